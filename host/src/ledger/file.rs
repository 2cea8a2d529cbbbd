//! `shares.ndjson`: append-only, locked against a second gateway, read once at start.

use super::forward::Forwardable;
use crate::event::Stamped;
use serde::Deserialize;
use std::{
    collections::HashMap,
    fs::{File, OpenOptions, TryLockError},
    io::{self, BufRead, BufReader, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

const NAME: &str = "shares.ndjson";

/// The open file and the lines that wait for the next commit.
pub struct LedgerFile {
    path: PathBuf,
    file: File,
    pending: Vec<u8>,
    /// Bytes of the file that are known to be durable.
    committed: u64,
}

/// The two fields that join the events of a share.
#[derive(Deserialize)]
struct Join<'a> {
    event: &'a str,
    share_id: &'a str,
}

impl LedgerFile {
    /// Opens or creates the file in `folder`; gives the accepted shares that have no result yet.
    ///
    /// A last line without its line end is a write that a crash cut short; nobody was told Success
    /// for it, and it is removed.
    ///
    /// # Errors
    /// I/O, a lock held by another gateway, or a line that is no record.
    pub fn open(folder: &Path) -> io::Result<(Self, Vec<Forwardable>)> {
        let path = folder.join(NAME);
        let in_context =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        std::fs::create_dir_all(folder).map_err(in_context)?;
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(in_context)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => in_context(io::Error::other(
                "another gateway is using this ledger; give each its own [ledger] dir",
            )),
            TryLockError::Error(error) => in_context(error),
        })?;
        let (whole, unanswered) = recover(&file).map_err(in_context)?;
        file.set_len(whole).map_err(in_context)?;
        file.seek(SeekFrom::End(0)).map_err(in_context)?;
        // The file's name must survive a power cut as well.
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(in_context)?;
        Ok((Self { path, file, pending: Vec::new(), committed: whole }, unanswered))
    }

    /// Adds a record to the next commit and gives its JSON.
    pub fn push(&mut self, record: &Stamped) -> String {
        // Records are plain structs of numbers and strings: there is nothing that cannot be JSON.
        let line = serde_json::to_string(record).unwrap_or_default();
        self.pending.extend_from_slice(line.as_bytes());
        self.pending.push(b'\n');
        line
    }

    /// Writes what was pushed and makes it durable.
    ///
    /// # Errors
    /// I/O; what is on the disk is then unknown.
    pub fn commit(&mut self) -> io::Result<()> {
        let written = self.file.write_all(&self.pending).and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => self.committed += self.pending.len() as u64,
            // Nobody hears Success for these records: take back what of them may have reached the file.
            Err(_) => _ = self.file.set_len(self.committed),
        }
        self.pending.clear();
        written.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", self.path.display())))
    }
}

/// Reads all records: the length of the whole lines, and what is accepted but unanswered, oldest first.
fn recover(file: &File) -> io::Result<(u64, Vec<Forwardable>)> {
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut unanswered: HashMap<String, (usize, String)> = HashMap::new();
    let (mut whole, mut number, mut line) = (0, 0, Vec::new());
    loop {
        line.clear();
        number += 1;
        // Bytes, not text: a write cut short may end inside a character.
        let length = reader.read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            break;
        }
        let record: Join = serde_json::from_slice(&line).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("line {number} is no record: {error}"))
        })?;
        match record.event {
            "share_accepted" => {
                unanswered.insert(
                    record.share_id.to_owned(),
                    (number, String::from_utf8_lossy(&line[..length - 1]).into_owned()),
                );
            }
            "share_forward_result" => {
                unanswered.remove(record.share_id);
            }
            other => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("line {number} has the unknown event {other:?}"),
                ));
            }
        }
        whole += length as u64;
    }
    let mut unanswered: Vec<_> =
        unanswered.into_iter().map(|(share_id, (at, line))| (at, share_id, line)).collect();
    unanswered.sort_unstable();
    let unanswered = unanswered
        .into_iter()
        .map(|(_, share_id, line)| Forwardable { share_id, line, attempts: 0, permit: None })
        .collect();
    Ok((whole, unanswered))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::{
        event::{Event, schema::ShareForwardResult},
        reason::Reason,
    };

    fn accepted(id: &str) -> String {
        format!("{{\"time_ms\":1,\"event\":\"share_accepted\",\"share_id\":\"{id}\"}}\n")
    }

    #[test]
    fn a_restart_finds_the_shares_without_a_result_oldest_first() {
        let folder = tempfile::tempdir().unwrap();
        let text = ["c", "a", "b"].map(accepted).concat();
        std::fs::write(folder.path().join(NAME), text).unwrap();
        let (mut file, unanswered) = LedgerFile::open(folder.path()).unwrap();
        assert_eq!(unanswered.iter().map(|f| f.share_id.as_str()).collect::<Vec<_>>(), ["c", "a", "b"]);
        let result = ShareForwardResult {
            share_id: "a".into(),
            reason: Reason::ForwardAccepted,
            detail: String::new(),
            attempts: 1,
        };
        file.push(&Stamped::now(Event::ShareForwardResult(result)));
        file.commit().unwrap();
        drop(file);
        let (_file, unanswered) = LedgerFile::open(folder.path()).unwrap();
        assert_eq!(unanswered.iter().map(|f| f.share_id.as_str()).collect::<Vec<_>>(), ["c", "b"]);
    }

    #[test]
    fn a_torn_last_line_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        let mut text = (accepted("a") + "{\"time_ms\":1,\"event\":\"share_accepted\",\"user_identity\":\"M")
            .into_bytes();
        text.push(0xc3); // the first byte of an umlaut
        std::fs::write(&path, text).unwrap();
        let (_file, unanswered) = LedgerFile::open(folder.path()).unwrap();
        assert_eq!(unanswered.len(), 1);
        assert_eq!(std::fs::read_to_string(path).unwrap(), accepted("a"));
    }

    #[test]
    fn a_line_that_is_no_record_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(NAME), accepted("a") + "garbage\n" + &accepted("b")).unwrap();
        let error = LedgerFile::open(folder.path()).err().unwrap().to_string();
        assert!(error.contains("line 2 is no record"), "{error}");
    }

    #[test]
    fn a_second_gateway_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let first = LedgerFile::open(folder.path()).unwrap();
        let error = LedgerFile::open(folder.path()).err().unwrap().to_string();
        assert!(error.contains("another gateway"), "{error}");
        drop(first);
        assert!(LedgerFile::open(folder.path()).is_ok());
    }
}
