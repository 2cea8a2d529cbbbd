//! Segments: the files that the ledger's records stand in, one after the other.
//!
//! `0000000001.rgl` and so on. A file begins with a header that names its place in the chain (its number,
//! the numbers of its first record and share, the tag before, the key) and is part of the chain itself.
//! Then come records: length of the body (u16), body, tag. A segment gets its name only when its header
//! is whole and durable.

use super::chain::{Fingerprint, Key, Keys, TAG_LEN, Tag};
use super::corrupt::{Checked, Corruption, Problem};
use super::record::MAX_BODY;
use crate::event::unix_ms;
use std::{
    fs::{self, File},
    io::{self, Write},
    ops::RangeInclusive,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// What a segment begins with: what it is, and the version of its form.
const MAGIC: [u8; 8] = *b"RGLEDG\x00\x01";
/// Bytes of a header.
pub const HEADER_LEN: usize = 8 + 3 * 8 + TAG_LEN + 8 + 8 + TAG_LEN;
/// Bytes of a record around its body.
pub const FRAME: usize = 2 + TAG_LEN;
/// Bytes read at once.
const CHUNK: usize = 1 << 20;
const SUFFIX: &str = "rgl";

/// A place between two records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Number of the segment.
    pub segment: u64,
    /// Bytes from its beginning.
    pub offset: u64,
    /// Number of the next record; the first of a ledger is 1.
    pub record: u64,
    /// Number of the next share; the first of a ledger is 1.
    pub share: u64,
    /// Tag of the record before.
    pub tag: Tag,
}

/// The file of a segment.
pub fn path(folder: &Path, segment: u64) -> PathBuf {
    folder.join(format!("{segment:010}.{SUFFIX}"))
}

/// The numbers of the segments in a folder, in order.
///
/// # Errors
/// I/O.
pub fn list(folder: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = PathBuf::from(entry?.file_name());
        if path.extension().is_some_and(|extension| extension == SUFFIX) {
            numbers.extend(path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok()));
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Bytes of these segments, as far as they are there.
pub fn size(folder: &Path, numbers: RangeInclusive<u64>) -> u64 {
    let length = |number| fs::metadata(path(folder, number)).map_or(0, |data| data.len());
    numbers.map(length).sum()
}

/// Makes the segment that follows `at` and gives where its first record will stand.
///
/// # Errors
/// I/O.
pub fn create(folder: &Path, number: u64, at: &Position, key: &Key) -> io::Result<Position> {
    let mut header = Vec::with_capacity(HEADER_LEN);
    header.extend_from_slice(&MAGIC);
    for number in [number, at.record, at.share] {
        header.extend_from_slice(&number.to_le_bytes());
    }
    header.extend_from_slice(&at.tag);
    header.extend_from_slice(&key.fingerprint());
    header.extend_from_slice(&unix_ms().to_le_bytes());
    let tag = key.seal("segment", &header);
    header.extend_from_slice(&tag);
    let path = path(folder, number);
    let next = path.with_extension("next");
    let mut file = File::create(&next)?;
    file.write_all(&header)?;
    file.sync_all()?;
    fs::rename(&next, &path)?;
    File::open(folder)?.sync_all()?;
    Ok(Position { segment: number, offset: HEADER_LEN as u64, tag, ..*at })
}

/// A record where it was found.
#[derive(Debug)]
pub struct Found<'a> {
    /// Where it begins.
    pub at: Position,
    /// What it says.
    pub body: &'a [u8],
}

/// Reads a segment record by record, checking the chain.
pub struct Segment {
    path: PathBuf,
    file: File,
    key: Key,
    /// Tag before the header.
    before: Tag,
    position: Position,
    buffer: Vec<u8>,
    /// Where in the buffer `position` is.
    read: usize,
}

impl Segment {
    /// Opens a segment and checks its header.
    ///
    /// # Errors
    /// When it is missing, its header is none, or it was written with a key that is not given.
    pub fn open(folder: &Path, number: u64, keys: &Keys) -> Checked<Self> {
        let path = path(folder, number);
        let wrong = |problem| Corruption::of_file(&path, problem);
        let file = File::open(&path).map_err(|error| {
            wrong(if error.kind() == io::ErrorKind::NotFound {
                Problem::Missing
            } else {
                Problem::Io(error.to_string())
            })
        })?;
        let mut header = [0; HEADER_LEN];
        file.read_exact_at(&mut header, 0).map_err(|_| wrong(Problem::Header("it is too short")))?;
        let (signed, tag) = header.split_at(HEADER_LEN - TAG_LEN);
        if signed[..8] != MAGIC {
            return Err(wrong(Problem::Header("it is no segment of a ledger of this version")));
        }
        let number_at = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&signed[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let mut before = Tag::default();
        before.copy_from_slice(&signed[32..48]);
        let mut fingerprint = Fingerprint::default();
        fingerprint.copy_from_slice(&signed[48..56]);
        let key = keys.named(fingerprint).ok_or_else(|| wrong(Problem::OtherKey(fingerprint)))?.clone();
        let mut own = Tag::default();
        own.copy_from_slice(tag);
        if key.seal("segment", signed) != own {
            return Err(wrong(Problem::Header("it was changed")));
        }
        if number_at(8) != number {
            return Err(wrong(Problem::Header("it belongs to another file")));
        }
        let position = Position {
            segment: number,
            offset: HEADER_LEN as u64,
            record: number_at(16),
            share: number_at(24),
            tag: own,
        };
        Ok(Self { path, file, key, before, position, buffer: Vec::new(), read: 0 })
    }

    /// Whether it follows what ends at `end`.
    ///
    /// # Errors
    /// When it does not.
    pub fn check_follows(&self, end: &Position) -> Checked<()> {
        let begins = (self.before, self.position.record, self.position.share);
        if begins == (end.tag, end.record, end.share) {
            return Ok(());
        }
        let detail = Problem::Gap { ends: end.record, begins: self.position.record };
        Err(Corruption::of_file(&self.path, detail))
    }

    /// Goes to a place of this segment.
    pub fn seek(&mut self, position: Position) {
        self.position = position;
        self.buffer.clear();
        self.read = 0;
    }

    /// Where the next record begins.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Length of the file, bytes.
    ///
    /// # Errors
    /// I/O.
    pub fn length(&self) -> Checked<u64> {
        self.file.metadata().map(|data| data.len()).map_err(|error| self.here(Problem::Io(error.to_string())))
    }

    /// The next record that ends at or before `limit`; `None` when the next one would begin there.
    ///
    /// # Errors
    /// When what stands there is no record of this chain, or is cut short.
    pub fn next(&mut self, limit: u64) -> Checked<Option<Found<'_>>> {
        let at = self.position;
        if at.offset >= limit {
            return Ok(None);
        }
        let frame = match self.frame(limit)? {
            Some(length) => length,
            None => return Err(self.here(Problem::CutShort)),
        };
        let start = self.read;
        let (body, tag) = self.buffer[start + 2..start + frame].split_at(frame - FRAME);
        if self.key.tag(&at.tag, at.record, body) != tag {
            return Err(self.here(Problem::Changed));
        }
        self.position.tag.copy_from_slice(tag);
        self.position.offset += frame as u64;
        self.position.record += 1;
        self.position.share += u64::from(body.first() == Some(&1));
        self.read += frame;
        Ok(Some(Found { at, body: &self.buffer[start + 2..start + frame - TAG_LEN] }))
    }

    /// Has the next record in the buffer and gives its length with its frame; `None` when there is no
    /// whole one before the limit.
    fn frame(&mut self, limit: u64) -> Checked<Option<usize>> {
        if !self.fill(2, limit)? {
            return Ok(None);
        }
        let length = u16::from_le_bytes([self.buffer[self.read], self.buffer[self.read + 1]]);
        if length == 0 || usize::from(length) > MAX_BODY {
            return Err(self.here(Problem::Changed));
        }
        let frame = usize::from(length) + FRAME;
        Ok(self.fill(frame, limit)?.then_some(frame))
    }

    fn fill(&mut self, wanted: usize, limit: u64) -> Checked<bool> {
        while self.buffer.len() - self.read < wanted {
            self.buffer.drain(..self.read);
            self.read = 0;
            let have = self.buffer.len();
            let from = self.position.offset + have as u64;
            let most = limit.saturating_sub(from).min(CHUNK as u64);
            self.buffer.resize(have + usize::try_from(most).unwrap_or(CHUNK), 0);
            let got = self.file.read_at(&mut self.buffer[have..], from);
            let got = got.map_err(|error| self.here(Problem::Io(error.to_string())))?;
            self.buffer.truncate(have + got);
            if got == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What stands from here to the limit, for those who look for the reason of a fault.
    ///
    /// # Errors
    /// I/O.
    pub fn rest(&self, limit: u64, most: u64) -> io::Result<Vec<u8>> {
        let length = limit.saturating_sub(self.position.offset).min(most);
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        self.file.read_exact_at(&mut bytes, self.position.offset)?;
        Ok(bytes)
    }

    /// Its key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Something is wrong with the next record.
    pub fn here(&self, problem: Problem) -> Box<Corruption> {
        let mut corruption = Corruption::of_file(&self.path, problem);
        corruption.at = Some(self.position);
        corruption
    }
}
