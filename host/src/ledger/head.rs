//! The `head` of a ledger: how far it surely goes, and where its reading goes on.
//!
//! Written once a second while there is something new, when a segment is full, and at the end of the
//! process; always after the records it speaks of are durable. So a ledger that ends before its head has lost
//! its tail, and a restart reads a second's records instead of all. It is one line of JSON and a line with
//! its HMAC, and takes its name only when it is whole.

use super::{
    chain::{Fingerprint, Keys, Tag},
    corrupt::{Checked, Corruption, Problem},
    segment::Position,
};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

const NAME: &str = "head";
const VERSION: u32 = 1;
const PURPOSE: &str = "head";
/// It has some hundred bytes, and a few for each gap in what was answered.
const MAX_LEN: u64 = 64 << 20;

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The oldest segment that is kept.
    pub base: u64,
    /// Everything before is durable.
    pub end: Position,
    /// Every share before has its result.
    pub resume: Position,
    /// Shares from there on that have theirs: first, and one after the last.
    pub settled: Vec<(u64, u64)>,
    /// Results of all times.
    pub answered: u64,
}

#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    key: String,
    base: u64,
    end: Place,
    resume: Place,
    settled: Vec<(u64, u64)>,
    answered: u64,
}

#[derive(Serialize, Deserialize)]
struct Place {
    segment: u64,
    offset: u64,
    record: u64,
    share: u64,
    tag: String,
}

impl Place {
    fn of(position: &Position) -> Self {
        let Position { segment, offset, record, share, tag } = *position;
        Self { segment, offset, record, share, tag: hex::encode(tag) }
    }

    fn position(&self) -> Option<Position> {
        let mut tag = Tag::default();
        hex::decode_to_slice(&self.tag, &mut tag).ok()?;
        let Self { segment, offset, record, share, .. } = *self;
        Some(Position { segment, offset, record, share, tag })
    }
}

/// Its file.
pub fn path(folder: &Path) -> PathBuf {
    folder.join(NAME)
}

impl Head {
    /// Shares without a result.
    pub fn open(&self) -> u64 {
        (self.end.share - 1).saturating_sub(self.answered)
    }

    /// Writes it in the place of the one before.
    ///
    /// # Errors
    /// I/O; the one before is then still there.
    pub fn write(&self, folder: &Path, keys: &Keys) -> io::Result<()> {
        let key = keys.signing();
        let written = Written {
            version: VERSION,
            key: hex::encode(key.fingerprint()),
            base: self.base,
            end: Place::of(&self.end),
            resume: Place::of(&self.resume),
            settled: self.settled.clone(),
            answered: self.answered,
        };
        let line = serde_json::to_string(&written)?;
        let text = format!("{line}\n{}\n", hex::encode(key.seal(PURPOSE, line.as_bytes())));
        let next = folder.join("head.next");
        let mut file = File::create(&next)?;
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        fs::rename(&next, path(folder))
    }

    /// Reads it; `None` when there is none.
    ///
    /// # Errors
    /// When it is not as it was written, or with a key that is not given.
    pub fn read(folder: &Path, keys: &Keys) -> Checked<Option<Self>> {
        let path = path(folder);
        let wrong = |problem| Corruption::of_file(&path, problem);
        let text = match fs::metadata(&path).and_then(|data| {
            if data.len() > MAX_LEN {
                return Err(io::Error::other("is too large for what it is"));
            }
            fs::read_to_string(&path)
        }) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            // It is no text.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(wrong(Problem::Header("it was changed")));
            }
            Err(error) => return Err(wrong(Problem::Io(error.to_string()))),
        };
        let changed = || wrong(Problem::Header("it was changed"));
        let (line, seal) = text.split_once('\n').ok_or_else(changed)?;
        let written: Written = serde_json::from_str(line).map_err(|_| changed())?;
        if written.version != VERSION {
            return Err(wrong(Problem::Header("it is of another version of the gateway")));
        }
        let mut fingerprint = Fingerprint::default();
        hex::decode_to_slice(&written.key, &mut fingerprint).map_err(|_| changed())?;
        let key = keys.named(fingerprint).ok_or_else(|| wrong(Problem::OtherKey(fingerprint)))?;
        if hex::encode(key.seal(PURPOSE, line.as_bytes())) != seal.trim_end() {
            return Err(changed());
        }
        let (end, resume) = written.end.position().zip(written.resume.position()).ok_or_else(changed)?;
        let Written { base, settled, answered, .. } = written;
        Ok(Some(Self { base, end, resume, settled, answered }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_as_it_was_and_not_when_it_was_touched() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::parse("the key of the ledger\nan older key of it").unwrap();
        assert_eq!(Head::read(folder.path(), &keys), Ok(None));
        let end = Position { segment: 3, offset: 1_000, record: 70, share: 50, tag: [7; 16] };
        let resume = Position { segment: 2, offset: 500, record: 60, share: 40, tag: [6; 16] };
        let head = Head { base: 2, end, resume, settled: vec![(41, 45)], answered: 43 };
        head.write(folder.path(), &keys).unwrap();
        assert_eq!(Head::read(folder.path(), &keys), Ok(Some(head.clone())));
        assert_eq!(head.open(), 6);
        let other = Keys::parse("some other key entirely").unwrap();
        let error = Head::read(folder.path(), &other).unwrap_err();
        assert!(matches!(error.problem, Problem::OtherKey(_)), "{error}");
        let text = fs::read_to_string(path(folder.path())).unwrap();
        fs::write(path(folder.path()), text.replace("\"answered\":43", "\"answered\":44")).unwrap();
        let error = Head::read(folder.path(), &keys).unwrap_err().to_string();
        assert!(error.contains("head: the header of the file is wrong: it was changed"), "{error}");
    }
}
