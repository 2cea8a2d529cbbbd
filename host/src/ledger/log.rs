//! The log itself: opening a folder and finding what a crash left, appending groups, rotation, retention.
//!
//! One process owns a folder: it holds the lock on the file `lock` as long as it lives. A group of records
//! is written with one write and made durable with one sync; when the write fails (a full disk) what reached
//! the file is taken back and the log is as before, when the sync fails nobody knows what is on the disk and
//! the log is broken for good.

use super::{
    chain::Keys,
    fault::{AppendFile, Fault},
    head::Head,
    recover::{self, Found},
    segment::{self, FRAME, Position},
    settle::Settled,
};
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

const LOCK: &str = "lock";
/// Written to find out whether there is room.
const TRIAL: &str = "room";
/// The record of shares of the versions before.
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
        let found =
            recover::find(folder, &keys).map_err(|corruption| recover::refusal(folder, &corruption))?;
        let Found { base, end, settled, cut } = match found {
            Some(found) => found,
            None => recover::begin(folder, &keys).map_err(in_context)?,
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

    /// Another size beyond which a segment is full, and another time for which full ones are kept.
    pub fn set_limits(&mut self, segment_size: u64, keep: Duration) {
        (self.config.segment_size, self.config.keep) = (segment_size, keep);
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

    /// Whether there is something to commit.
    pub fn is_pending(&self) -> bool {
        !self.pending.is_empty()
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

    /// Finds out whether the disk has room, without touching the log: a file of this length is written and
    /// removed again.
    ///
    /// # Errors
    /// I/O, most likely that it has none.
    pub fn try_room(&mut self, length: usize) -> io::Result<()> {
        self.file.fail_if_full()?;
        let path = self.config.folder.join(TRIAL);
        let tried = File::create(&path).and_then(|mut file| {
            file.write_all(&vec![0; length])?;
            file.sync_data()
        });
        tried.and(fs::remove_file(&path))
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

/// Makes a folder this process's own, for as long as the file lives.
pub(super) fn lock(folder: &Path) -> io::Result<File> {
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

#[cfg(test)]
#[path = "log_tests.rs"]
pub(super) mod tests;
