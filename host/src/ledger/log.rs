//! The log itself: opening a folder and finding what a crash left, appending groups, rotation, retention.
//!
//! One process owns a folder: it holds the lock on the file `lock` as long as it lives. A group of records
//! is written with one write and made durable with one sync; when the write fails (a full disk) what reached
//! the file is taken back and the log is as before, when the sync fails nobody knows what is on the disk and
//! the log is broken for good.

use super::{
    chain::Keys,
    corrupt::{Checked, Corruption, Frames, Problem},
    fault::{AppendFile, Fault},
    head::Head,
    record::Record,
    segment::{self, FRAME, Position, Segment},
    settle::Settled,
};
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

const LOCK: &str = "lock";
/// The record of share of the versions before.
const FORMER: &str = "shares.ndjson";

/// What a log is made of.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// Its folder.
    pub folder: PathBuf,
    /// A segment is full beyond this, bytes.
    pub segment_size: u64,
    /// How long a segment is kept after its last record, once every share in it has its result.
    pub keep: Duration,
}

/// What opening found.
pub struct Opened {
    /// The log, to be appended to.
    pub log: Log,
    /// Which shares have their result.
    pub settled: Settled,
    /// Words about a torn write that was cut off.
    pub cut: Option<String>,
}

/// Why a group was not written.
#[derive(Debug)]
pub enum CommitError {
    /// The log is as before; it may work later.
    Refused(io::Error),
    /// Nothing may be acknowledged any more.
    Broken(io::Error),
}

/// The open log.
pub struct Log {
    config: LogConfig,
    keys: Keys,
    file: AppendFile,
    /// Oldest segment that is kept.
    base: u64,
    /// Everything before is durable.
    end: Position,
    /// Where the pending records will end.
    staged: Position,
    pending: Vec<u8>,
    _lock: File,
}

impl Log {
    /// Opens a folder, or makes it.
    ///
    /// # Errors
    /// I/O, a lock held by another gateway, or a ledger that is not as it was written; the error says what to
    /// do.
    pub fn open(config: LogConfig, keys: Option<Keys>, fault: Fault) -> io::Result<Opened> {
        let folder = &config.folder;
        let in_context =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", folder.display()));
        if fault == Fault::ReadOnly {
            return Err(in_context(io::ErrorKind::ReadOnlyFilesystem.into()));
        }
        fs::create_dir_all(folder).map_err(in_context)?;
        let lock = lock(folder).map_err(in_context)?;
        refuse_former(folder)?;
        let keys = match keys {
            Some(keys) => keys,
            None => Keys::of_folder(folder, true).map_err(in_context)?,
        };
        let found = find(folder, &keys).map_err(|corruption| refusal(&corruption))?;
        let Found { base, end, settled, cut } = match found {
            Some(found) => found,
            None => begin(folder, &keys).map_err(in_context)?,
        };
        let path = segment::path(folder, end.segment);
        let file = AppendFile::open(&path, end.offset, fault, Default::default()).map_err(in_context)?;
        let (staged, pending) = (end, Vec::new());
        let mut log = Self { config, keys, file, base, end, staged, pending, _lock: lock };
        if cut.is_some() {
            log.file.take_back(end.offset)?;
            log.file.sync()?;
        }
        log.write_head(&settled)?;
        log.remove_before_base();
        Ok(Opened { log, settled, cut })
    }

    /// Where the durable records end.
    pub fn end(&self) -> Position {
        self.end
    }

    /// The number that the next share will have.
    pub fn next_share(&self) -> u64 {
        self.staged.share
    }

    /// How long old segments are kept.
    pub fn keep(&self) -> Duration {
        self.config.keep
    }

    /// The keys, for whoever reads along.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Whether another record fits into this group.
    pub fn has_room(&self, most: usize) -> bool {
        self.pending.len() < most
    }

    /// Adds a record to the next group.
    pub fn push(&mut self, is_share: bool, encode: impl FnOnce(&mut Vec<u8>)) {
        let start = self.pending.len();
        self.pending.extend_from_slice(&[0; 2]);
        encode(&mut self.pending);
        let length = self.pending.len() - start - 2;
        // Texts are cut, so that a body is far shorter than a u16 counts.
        self.pending[start..start + 2]
            .copy_from_slice(&u16::try_from(length).unwrap_or_default().to_le_bytes());
        let tag = self.keys.signing().tag(&self.staged.tag, self.staged.record, &self.pending[start + 2..]);
        self.pending.extend_from_slice(&tag);
        self.staged.tag = tag;
        self.staged.offset += (length + FRAME) as u64;
        self.staged.record += 1;
        self.staged.share += u64::from(is_share);
    }

    /// Writes the group and makes it durable.
    ///
    /// # Errors
    /// [`CommitError`]; the group is given up in both cases.
    pub fn commit(&mut self) -> Result<(), CommitError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let written = self.file.write(&self.pending);
        self.pending.clear();
        let context = |error: io::Error, path: PathBuf| {
            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        };
        if let Err(error) = written {
            self.staged = self.end;
            let error = context(error, segment::path(&self.config.folder, self.end.segment));
            // Only of these is it known that they say nothing about what was written before.
            let passing = matches!(
                error.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
            );
            return Err(match self.file.take_back(self.end.offset) {
                Ok(()) if passing => CommitError::Refused(error),
                _ => CommitError::Broken(error),
            });
        }
        if let Err(error) = self.file.sync() {
            // What is on the disk is unknown, and the kernel may have dropped the pages: best not there.
            let _ = self.file.take_back(self.end.offset);
            return Err(CommitError::Broken(context(
                error,
                segment::path(&self.config.folder, self.end.segment),
            )));
        }
        self.end = self.staged;
        Ok(())
    }

    /// Begins another segment when this one is full, or when other keys sign from now on.
    ///
    /// # Errors
    /// [`CommitError`]: refused, the log goes on in the segment it has.
    pub fn rotate(&mut self, keys: Option<Keys>) -> Result<bool, CommitError> {
        if self.end.offset < self.config.segment_size && keys.is_none() {
            return Ok(false);
        }
        let signing = keys.as_ref().unwrap_or(&self.keys).signing();
        let number = self.end.segment + 1;
        let path = segment::path(&self.config.folder, number);
        let made = segment::create(&self.config.folder, number, &self.end, signing).and_then(|end| {
            Ok((end, AppendFile::open(&path, end.offset, self.file.fault(), self.file.counts())?))
        });
        let (end, file) = made.map_err(|error| {
            // Once the next one has its name, nothing may be appended to this one any more.
            if path.exists() { CommitError::Broken(error) } else { CommitError::Refused(error) }
        })?;
        self.file = file;
        (self.end, self.staged) = (end, end);
        if let Some(keys) = keys {
            self.keys = keys;
        }
        Ok(true)
    }

    /// Writes the head.
    ///
    /// # Errors
    /// I/O; the one before is then still there.
    pub fn write_head(&self, settled: &Settled) -> io::Result<()> {
        let head = Head {
            base: self.base,
            end: self.end,
            resume: settled.resume(),
            settled: settled.ranges(),
            answered: settled.answered(),
        };
        head.write(&self.config.folder, &self.keys)
    }

    /// Removes segments that are old enough and fully answered, oldest first; gives how many.
    ///
    /// # Errors
    /// I/O.
    pub fn retire(&mut self, settled: &Settled, now: SystemTime) -> io::Result<u64> {
        let mut base = self.base;
        while base < settled.resume().segment.min(self.end.segment) {
            let modified = fs::metadata(segment::path(&self.config.folder, base))?.modified()?;
            // A clock that went back makes it younger, never older.
            if now.duration_since(modified).unwrap_or_default() < self.config.keep {
                break;
            }
            base += 1;
        }
        let gone = base - self.base;
        if gone > 0 {
            // The head first: a segment that is missing without it is a fault.
            self.base = base;
            self.write_head(settled)?;
            File::open(&self.config.folder)?.sync_all()?;
            self.remove_before_base();
        }
        Ok(gone)
    }

    fn remove_before_base(&self) {
        let numbers = segment::list(&self.config.folder).unwrap_or_default();
        for number in numbers.into_iter().filter(|number| *number < self.base) {
            // Tried again at the next start.
            let _ = fs::remove_file(segment::path(&self.config.folder, number));
        }
    }
}

/// What a folder holds.
struct Found {
    base: u64,
    end: Position,
    settled: Settled,
    cut: Option<String>,
}

fn lock(folder: &Path) -> io::Result<File> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(folder.join(LOCK))?;
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => {
            io::Error::other("another gateway is using this ledger; give each its own [ledger] dir")
        }
        TryLockError::Error(error) => error,
    })?;
    Ok(file)
}

/// Whether a gateway is at work in a folder.
pub fn is_in_use(folder: &Path) -> bool {
    let opened = File::open(folder.join(LOCK));
    opened.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

fn refuse_former(folder: &Path) -> io::Result<()> {
    let former = folder.join(FORMER);
    match fs::metadata(&former) {
        Ok(data) if data.len() > 0 => Err(io::Error::other(format!(
            "{} is the ledger of a version before this one, which this version does not read: let the version \
             before forward what is open in it, then move the file out of the folder",
            former.display()
        ))),
        _ => Ok(()),
    }
}

fn refusal(corruption: &Corruption) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!(
            "the share ledger is not as it was written, so the gateway does not start: {corruption}. Bring the \
             folder back from a backup; or move it away, so that the gateway begins a new one, and settle its \
             open shares by hand (`reservegrid ledger verify` and `export` read it)"
        ),
    )
}

fn begin(folder: &Path, keys: &Keys) -> io::Result<Found> {
    let start = Position { segment: 0, offset: 0, record: 1, share: 1, tag: [0; 16] };
    let end = segment::create(folder, 1, &start, keys.signing())?;
    Ok(Found { base: 1, end, settled: Settled::new(end, [], 0), cut: None })
}

/// Finds the end of a ledger: from the head on, record by record. `None` when there is nothing yet.
fn find(folder: &Path, keys: &Keys) -> Checked<Option<Found>> {
    let io = |error: io::Error| Corruption::of_file(folder, Problem::Io(error.to_string()));
    let head = Head::read(folder, keys)?;
    let numbers = segment::list(folder).map_err(io)?;
    let Some(head) = head else {
        // The first segment is made before the first head, and the head before the first record.
        let empty = match numbers[..] {
            [] => true,
            [1] => Segment::open(folder, 1, keys)?.length()? == segment::HEADER_LEN as u64,
            _ => false,
        };
        return if empty {
            Ok(None)
        } else {
            Err(Corruption::of_file(&super::head::path(folder), Problem::Missing))
        };
    };
    let last = numbers.last().copied().unwrap_or_default().max(head.end.segment);
    // All of them are there, and each begins where the numbers of the one before leave off. What stands in
    // those before the head's is `verify`'s business; there is no time for it at a start.
    let mut before: Option<Position> = None;
    for number in head.base..=last {
        let begins = Segment::open(folder, number, keys)?.position();
        if let Some(before) = before.filter(|before| before.record > begins.record) {
            let problem = Problem::Gap { ends: before.record, begins: begins.record };
            return Err(Corruption::of_file(&segment::path(folder, number), problem));
        }
        before = Some(begins);
    }
    let mut settled = Settled::new(head.resume, head.settled.iter().copied(), head.answered);
    let mut segment = Segment::open(folder, head.end.segment, keys)?;
    let mut passed = false;
    loop {
        let limit = segment.length()?;
        let is_last = segment.position().segment == last;
        loop {
            // The place the head speaks of must be a place between two records.
            passed |= segment.position() == head.end;
            match segment.next(limit) {
                Ok(None) => break,
                Ok(Some(found)) => {
                    let at = found.at;
                    if let Some(Record::Forwarded(result)) =
                        Record::decode(found.body).filter(|_| at.record >= head.end.record)
                    {
                        settled.settle(result.share);
                    }
                }
                Err(corruption) => {
                    let torn = is_last
                        && passed
                        && matches!(corruption.problem, Problem::Changed | Problem::CutShort)
                        && !goes_on(&segment, limit);
                    if !torn {
                        return Err(corruption.examined(&segment, limit));
                    }
                    let end = segment.position();
                    let cut = format!(
                        "{}: a write that was cut short was removed: {} bytes from byte {} on, before record {}; \
                         nobody had been told Success for it",
                        segment.path().display(),
                        limit - end.offset,
                        end.offset,
                        end.record
                    );
                    return Ok(Some(Found { base: head.base, end, settled, cut: Some(cut) }));
                }
            }
        }
        if !passed {
            return Err(segment.here(Problem::TailMissing(head.end.record)));
        }
        let end = segment.position();
        if is_last {
            return Ok(Some(Found { base: head.base, end, settled, cut: None }));
        }
        segment = Segment::open(folder, end.segment + 1, keys)?;
        segment.check_follows(&end)?;
    }
}

/// Whether a record that belongs to the chain stands behind the place where it breaks: then it is no write
/// that was cut short.
fn goes_on(segment: &Segment, limit: u64) -> bool {
    /// More than is written in the second between two heads.
    const MOST: u64 = 256 << 20;
    /// Records that may be missing between the two.
    const MISSING: u64 = 64;
    let at = segment.position();
    let Ok(bytes) = segment.rest(limit, MOST) else { return true };
    (1..bytes.len().saturating_sub(FRAME)).any(|from| {
        let Some(frame) = Frames(&bytes[from..]).next().filter(|f| Record::decode(f.body).is_some()) else {
            return false;
        };
        let before = if from >= 16 { bytes[from - 16..from].try_into().ok() } else { None };
        let (Some(before), Some(tag)) = (before, frame.tag()) else { return false };
        // The broken one may be any; those behind it count on.
        (1..=MISSING).any(|further| segment.key().tag(&before, at.record + further, frame.body) == tag)
    })
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
