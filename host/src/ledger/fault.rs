//! The file that records are appended to, and the faults that the crash tests put into it.
//!
//! `RESERVEGRID_LEDGER_FAULT` makes the disk misbehave at a byte or a sync of this process's choosing, so
//! that the suites can prove on the real binary what happens then; without the variable a write is a write.
//!
//! | value | what happens |
//! |---|---|
//! | `kill:N` | the process is gone (SIGABRT) after the Nth byte that is appended, in the middle of a write |
//! | `power:N` | the same, and half of what was not yet synced is lost, as in a power cut |
//! | `full:N:M` | from the Nth byte on the disk is full (ENOSPC), for M writes |
//! | `sync:N` | the Nth sync fails (EIO) |
//! | `no-sync` | a sync does nothing: what durability costs is the difference |
//! | `read-only` | nothing can be opened for writing (EROFS) |

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
};

/// The variable.
pub const VARIABLE: &str = "RESERVEGRID_LEDGER_FAULT";

/// What goes wrong, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// Gone after this many bytes.
    Kill(u64),
    /// Gone after this many bytes, with half of what was not synced.
    Power(u64),
    /// Full from this byte on, for so many writes.
    Full(u64, u64),
    /// This sync fails.
    Sync(u64),
    /// Syncs do nothing.
    NoSync,
    /// Nothing can be written.
    ReadOnly,
}

impl Fault {
    /// The fault that the environment asks for.
    ///
    /// # Errors
    /// When it asks for something that there is not.
    pub fn of_environment() -> io::Result<Self> {
        match std::env::var(VARIABLE) {
            Ok(text) => Self::parse(&text)
                .ok_or_else(|| io::Error::other(format!("{VARIABLE}: {text:?} is no fault of a test"))),
            Err(_) => Ok(Self::None),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let kind = parts.next()?;
        let mut number = || parts.next()?.parse::<u64>().ok();
        Some(match kind {
            "kill" => Self::Kill(number()?),
            "power" => Self::Power(number()?),
            "full" => Self::Full(number()?, number()?),
            "sync" => Self::Sync(number()?),
            "no-sync" => Self::NoSync,
            "read-only" => Self::ReadOnly,
            _ => return None,
        })
    }
}

/// A file that is only appended to. Counts go on from one segment to the next.
#[derive(Debug)]
pub struct AppendFile {
    file: File,
    length: u64,
    synced: u64,
    fault: Fault,
    counts: Counts,
}

/// What happened so far, for the faults.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    bytes: u64,
    syncs: u64,
}

impl AppendFile {
    /// Opens a file of this length for appending.
    ///
    /// # Errors
    /// I/O.
    pub fn open(path: &Path, length: u64, fault: Fault, counts: Counts) -> io::Result<Self> {
        if fault == Fault::ReadOnly {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        let file = OpenOptions::new().append(true).open(path)?;
        Ok(Self { file, length, synced: length, fault, counts })
    }

    /// The fault that is left of it.
    pub fn fault(&self) -> Fault {
        self.fault
    }

    /// What happened so far, for the next file.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Appends.
    ///
    /// # Errors
    /// I/O; some of the bytes may then be there.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let before = self.counts.bytes;
        self.counts.bytes += bytes.len() as u64;
        match self.fault {
            Fault::Kill(at) | Fault::Power(at) if self.counts.bytes >= at => {
                self.last_words(&bytes[..usize::try_from(at.saturating_sub(before)).unwrap_or_default()]);
            }
            _ => {}
        }
        if let Err(full) = self.fail_if_full() {
            self.file.write_all(&bytes[..bytes.len() / 2])?;
            return Err(full);
        }
        self.file.write_all(bytes)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// One write less for which the disk is full, when a test has made it so.
    ///
    /// # Errors
    /// `ENOSPC`.
    pub fn fail_if_full(&mut self) -> io::Result<()> {
        match self.fault {
            Fault::Full(at, times) if self.counts.bytes >= at && times > 0 => {
                self.fault = Fault::Full(0, times - 1);
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }

    fn last_words(&mut self, bytes: &[u8]) -> ! {
        let written = self.file.write_all(bytes);
        if matches!(self.fault, Fault::Power(_)) {
            let unsynced = self.length - self.synced + bytes.len() as u64;
            let _ = written.and_then(|()| self.file.set_len(self.synced + unsynced / 2));
        }
        std::process::abort()
    }

    /// Makes durable what was appended.
    ///
    /// # Errors
    /// I/O; what is on the disk is then unknown.
    pub fn sync(&mut self) -> io::Result<()> {
        self.counts.syncs += 1;
        if self.fault == Fault::Sync(self.counts.syncs) {
            return Err(io::Error::from_raw_os_error(5));
        }
        if self.fault != Fault::NoSync {
            self.file.sync_data()?;
        }
        self.synced = self.length;
        Ok(())
    }

    /// Takes back what was appended after `length`.
    ///
    /// # Errors
    /// I/O.
    pub fn take_back(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)?;
        self.length = length;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_read_or_refused() {
        assert_eq!(Fault::parse("kill:17"), Some(Fault::Kill(17)));
        assert_eq!(Fault::parse("full:5:2"), Some(Fault::Full(5, 2)));
        for wrong in ["", "kill", "kill:x", "full:1", "other:1"] {
            assert_eq!(Fault::parse(wrong), None, "{wrong:?}");
        }
    }
}
