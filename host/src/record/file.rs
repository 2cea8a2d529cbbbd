//! Files of recordings: one a day, compressed, the oldest removed when there are too many bytes or days.
//!
//! `2026-11-22-0001.ndjson.gz`; a start of the gateway, or a day that grows beyond its part of the bound,
//! begins the next number. Each recording is a gzip member of its own behind the ones before, so that
//! `zcat` shows a file, what was written stays whole when a later write fails, and what a crash cut off can only be the
//! end of a file. A single recording may also stand alone as JSON (`reservegrid record show`).

use super::{ReadError, Recording};
use chrono::DateTime;
use flate2::{Compression, bufread::GzDecoder, write::GzEncoder};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

const SUFFIX: &str = ".ndjson.gz";
/// Longest recording that is read, bytes of JSON: many times what a full block makes.
const MAX_RECORDING: u64 = 256 << 20;
/// What a gzip file begins with (RFC 1952).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// What is kept of recordings.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// Bytes of all files together.
    pub bytes: u64,
    /// Age of the newest recording in a file.
    pub age: Duration,
}

/// The folder that recordings are written to.
pub(super) struct Shelf {
    pub(super) folder: PathBuf,
    /// Another bound counts from the next recording on.
    pub(super) keep: Arc<Mutex<Keep>>,
    open: Option<Open>,
}

/// The file that is written.
struct Open {
    path: PathBuf,
    day: String,
    file: File,
    length: u64,
}

impl Shelf {
    pub(super) fn open(folder: &Path, keep: Keep) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let shelf = Self { folder: folder.to_owned(), keep: Arc::new(Mutex::new(keep)), open: None };
        shelf.tidy()?;
        Ok(shelf)
    }

    /// Writes a recording whole or not at all, then removes what is too much.
    pub(super) fn put(&mut self, recording: &Recording) -> io::Result<()> {
        let mut member = GzEncoder::new(Vec::new(), Compression::fast());
        serde_json::to_writer(&mut member, recording)?;
        member.write_all(b"\n")?;
        let member = member.finish()?;
        let day = day(recording.time_ms);
        // Removing is by file: a quarter of what may be kept is the most that goes at once.
        let most = self.keep().bytes / 4;
        let full = |open: &Open| open.length > 0 && open.length + member.len() as u64 > most;
        // What is written to a file that somebody removed is nowhere.
        let gone = |open: &Open| !open.path.exists();
        if self.open.as_ref().is_none_or(|open| open.day != day || full(open) || gone(open)) {
            self.open = Some(self.begin(day)?);
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        if let Err(error) = open.file.write_all(&member) {
            // A part of it would hide everything behind it.
            if open.file.set_len(open.length).is_err() {
                self.open = None;
            }
            return Err(error);
        }
        open.length += member.len() as u64;
        self.tidy()
    }

    fn keep(&self) -> Keep {
        *self.keep.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, day: String) -> io::Result<Open> {
        let taken = files(&self.folder)?;
        let of_day = taken.iter().filter_map(|path| number(path)).filter(|(other, _)| *other == day);
        let next = of_day.map(|(_, number)| number).max().unwrap_or(0) + 1;
        let path = self.folder.join(format!("{day}-{next:04}{SUFFIX}"));
        let file = OpenOptions::new().append(true).create_new(true).open(&path)?;
        Ok(Open { path, day, file, length: 0 })
    }

    /// Removes the oldest files until the rest may stay. The one that is written stays.
    fn tidy(&self) -> io::Result<()> {
        let (keep, mut found) = (self.keep(), Vec::new());
        for path in files(&self.folder)? {
            let data = fs::metadata(&path)?;
            found.push((path, data.len(), data.modified()?));
        }
        let mut total: u64 = found.iter().map(|(_, length, _)| length).sum();
        let now = SystemTime::now();
        for (path, length, modified) in found {
            // A clock that went back makes it younger, never older.
            let old = now.duration_since(modified).unwrap_or_default() > keep.age;
            if self.open.as_ref().is_some_and(|open| open.path == path) || !(old || total > keep.bytes) {
                continue;
            }
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => total -= length,
            }
        }
        Ok(())
    }
}

/// The day of a time, UTC.
fn day(time_ms: u64) -> String {
    let time = i64::try_from(time_ms).ok().and_then(DateTime::from_timestamp_millis).unwrap_or_default();
    time.format("%Y-%m-%d").to_string()
}

/// Day and number of a file of recordings by its name.
fn number(path: &Path) -> Option<(String, u32)> {
    let stem = path.file_name()?.to_str()?.strip_suffix(SUFFIX)?;
    let (day, number) = stem.rsplit_once('-')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let parts: Vec<&str> = day.split('-').collect();
    let dated = parts.len() == 3 && parts.iter().all(|part| digits(part)) && day.len() == 10;
    (dated && digits(number)).then(|| Some((day.to_owned(), number.parse().ok()?))).flatten()
}

/// The files of recordings in a folder, oldest first; other files are not touched.
///
/// # Errors
/// When the folder cannot be read.
pub fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        found.extend(number(&path).map(|key| (key, path)));
    }
    found.sort_unstable();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// The recordings of one file, in the order in which they were written; the first fault ends them.
pub struct Recordings {
    file: PathBuf,
    text: Text,
    /// It is a file of several.
    several: bool,
    /// How many were read.
    number: usize,
}

enum Text {
    /// One recording as JSON.
    Single(String),
    /// Members, each with its own checksum.
    Members(BufReader<File>),
    Ended,
}

impl Recordings {
    /// Opens a file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let unreadable = |error: io::Error| ReadError::new(path, format!("it cannot be read: {error}"));
        let mut file = BufReader::new(File::open(path).map_err(unreadable)?);
        let compressed = file.fill_buf().map_err(unreadable)?.starts_with(&GZIP);
        let text = if compressed {
            Text::Members(file)
        } else {
            let mut text = String::new();
            file.take(MAX_RECORDING).read_to_string(&mut text).map_err(unreadable)?;
            // One of several that was begun and never written is no fault.
            if text.is_empty() && number(path).is_some() { Text::Ended } else { Text::Single(text) }
        };
        Ok(Self { file: path.to_owned(), text, several: compressed, number: 0 })
    }

    /// Where the recording that was read last stands: `FILE`, or `FILE#3` in a file of several.
    pub fn place(&self) -> String {
        let file = self.file.display();
        if self.several { format!("{file}#{}", self.number) } else { file.to_string() }
    }

    /// The next recording as it stands there, one line of JSON.
    fn next_text(&mut self) -> Result<Option<String>, ReadError> {
        let at = self.number + 1;
        let fault = |problem: String| ReadError::new(&self.file, problem);
        let mut file = match std::mem::replace(&mut self.text, Text::Ended) {
            Text::Ended => return Ok(None),
            Text::Single(text) => {
                self.number = at;
                return Ok(Some(text));
            }
            Text::Members(file) => file,
        };
        if file.fill_buf().map_err(|error| fault(format!("it cannot be read: {error}")))?.is_empty() {
            return Ok(None);
        }
        // To its end, where its checksum stands: nothing of a changed recording is believed.
        let mut text = String::new();
        let read = GzDecoder::new(&mut file).take(MAX_RECORDING).read_to_string(&mut text);
        read.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => fault(format!(
                "it ends in the middle of recording {at}, as after a crash or while it is written; those before \
                 are whole"
            )),
            _ => fault(format!("recording {at} is damaged: {error}")),
        })?;
        if !text.ends_with('\n') {
            return Err(fault(format!("recording {at} is longer than {MAX_RECORDING} bytes or not whole")));
        }
        self.text = Text::Members(file);
        self.number = at;
        Ok(Some(text))
    }
}

impl Iterator for Recordings {
    type Item = Result<Recording, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let text = self.next_text().transpose()?;
        let parsed = text.and_then(|text| {
            let problem = |problem| ReadError { place: self.place(), problem };
            Recording::parse(&text).map_err(problem)
        });
        Some(parsed)
    }
}

/// The text at a place: a whole file, or one recording of a file of several (`FILE#3`).
pub(super) fn text_at(place: &Path) -> Result<String, ReadError> {
    let (path, wanted) = match place.to_str().and_then(|text| text.rsplit_once('#')) {
        Some((path, number)) if !place.exists() => {
            let number = number.parse::<usize>().ok().filter(|number| *number > 0);
            let number = number.ok_or_else(|| ReadError::new(place, "write FILE#N, N from 1".into()))?;
            (PathBuf::from(path), Some(number))
        }
        _ => (place.to_owned(), None),
    };
    let mut recordings = Recordings::open(&path)?;
    if recordings.several && wanted.is_none() {
        let problem = format!("it holds several recordings; name one, e.g. {}#1", path.display());
        return Err(ReadError::new(place, problem));
    }
    for _ in 1..wanted.unwrap_or(1) {
        if recordings.next_text()?.is_none() {
            break;
        }
    }
    let held = recordings.number;
    recordings
        .next_text()?
        .ok_or_else(|| ReadError::new(place, format!("there is none: the file holds {held} recordings")))
}
