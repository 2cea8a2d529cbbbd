//! The event file: one JSON object a line, changed for a new one when it is large or old enough.
//!
//! The file in use keeps its name; an earlier one has the time of its end behind the name, Unix
//! milliseconds (`events.ndjson.1795377600000`). The oldest beyond what is to be kept are removed. Files of
//! any other name are left alone. What cannot be moved or removed is said and goes on being written.

use crate::{config::Rotation, event::unix_ms};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// After a change of files that failed, until the next try.
const RETRY: Duration = Duration::from_secs(60);

/// The file in use.
pub(super) struct EventFile {
    path: PathBuf,
    rotation: Rotation,
    writer: BufWriter<File>,
    bytes: u64,
    since: SystemTime,
    not_before: SystemTime,
    /// Not a device or a pipe, which is written to and never moved.
    regular: bool,
}

impl EventFile {
    /// Opens the file for appending; its folder is made when it does not exist.
    pub(super) fn open(path: &Path, rotation: Rotation) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let known = file.metadata()?;
        let now = SystemTime::now();
        Ok(Self {
            path: path.to_owned(),
            rotation,
            writer: BufWriter::new(file),
            bytes: known.len(),
            since: known.created().unwrap_or(now),
            not_before: now,
            regular: known.is_file(),
        })
    }

    /// When it is changed for a new one.
    pub(super) fn rotation(&self) -> Rotation {
        self.rotation
    }

    /// Appends a line.
    pub(super) fn write(&mut self, json: &str) -> io::Result<()> {
        self.writer.write_all(json.as_bytes())?;
        self.writer.write_all(b"\n")?;
        self.bytes += json.len() as u64 + 1;
        Ok(())
    }

    /// Hands what was written to the system, and begins a new file if it is time.
    pub(super) fn flush(&mut self, rotation: Rotation) -> io::Result<()> {
        self.rotation = rotation;
        self.writer.flush()?;
        if !self.regular {
            return Ok(());
        }
        let now = SystemTime::now();
        let age = now.duration_since(self.since).unwrap_or_default();
        let old = !self.rotation.age.is_zero() && age >= self.rotation.age;
        if self.bytes > 0 && (self.bytes >= self.rotation.size.0 || old) && now >= self.not_before {
            match self.change() {
                Ok(next) => *self = next,
                Err(error) => {
                    self.not_before = now + RETRY;
                    tracing::error!(%error, "the event file cannot be changed for a new one; it goes on growing");
                }
            }
        }
        Ok(())
    }

    fn change(&self) -> io::Result<Self> {
        fs::rename(&self.path, earlier(&self.path, unix_ms()))?;
        let next = Self::open(&self.path, self.rotation)?;
        if let Err(error) = self.remove_old() {
            tracing::error!(%error, "old event files cannot be removed");
        }
        Ok(Self { since: SystemTime::now(), ..next })
    }

    fn remove_old(&self) -> io::Result<()> {
        let mut times = Vec::new();
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        for entry in fs::read_dir(folder.unwrap_or(Path::new(".")))? {
            times.extend(time_of(&self.path, &entry?.path()));
        }
        times.sort_unstable();
        let surplus = times.len().saturating_sub(self.rotation.keep as usize);
        times.iter().take(surplus).try_for_each(|time| fs::remove_file(earlier(&self.path, *time)))
    }
}

fn earlier(path: &Path, time_ms: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{time_ms}"));
    name.into()
}

/// The time behind the name of an earlier file.
fn time_of(path: &Path, candidate: &Path) -> Option<u64> {
    let name = candidate.file_name()?.to_str()?;
    let time = name.strip_prefix(path.file_name()?.to_str()?)?.strip_prefix('.')?;
    time.bytes().all(|byte| byte.is_ascii_digit()).then(|| time.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::ByteSize;

    fn rotation(size: u64, keep: u32) -> Rotation {
        Rotation { size: ByteSize(size), age: Duration::ZERO, keep }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_that_is_large_enough_is_kept_under_the_time_and_a_new_one_begins() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.ndjson");
        let mut file = EventFile::open(&path, rotation(10, 2)).unwrap();
        file.write("{\"a\":1}").unwrap();
        file.flush(file.rotation()).unwrap();
        assert_eq!(names(folder.path()), ["events.ndjson"], "8 bytes are less than 10");
        file.write("{\"a\":2}").unwrap();
        file.flush(file.rotation()).unwrap();
        file.write("{\"a\":3}").unwrap();
        file.flush(file.rotation()).unwrap();
        let names = names(folder.path());
        assert_eq!(names.len(), 2, "{names:?}");
        assert_eq!(fs::read_to_string(folder.path().join(&names[1])).unwrap(), "{\"a\":1}\n{\"a\":2}\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"a\":3}\n");
    }

    #[test]
    fn what_is_no_file_is_written_to_and_stays_where_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("events.ndjson");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        let mut file = EventFile::open(&link, rotation(1, 2)).unwrap();
        file.write("{}").unwrap();
        file.flush(file.rotation()).unwrap();
        assert_eq!(names(folder.path()), ["events.ndjson"]);
    }

    #[test]
    fn the_oldest_files_go_and_foreign_ones_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.ndjson");
        for name in ["events.ndjson.1", "events.ndjson.20", "events.ndjson.3", "events.ndjson.bak", "other.1"]
        {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        let mut file = EventFile::open(&path, rotation(1, 2)).unwrap();
        file.write("{}").unwrap();
        file.flush(file.rotation()).unwrap();
        let names = names(folder.path());
        assert_eq!(names.len(), 5, "{names:?}");
        assert!(!names.contains(&"events.ndjson.1".into()) && !names.contains(&"events.ndjson.3".into()));
        assert!(names.contains(&"events.ndjson.bak".into()) && names.contains(&"other.1".into()));
    }

    #[test]
    fn an_old_file_is_changed_whatever_its_size_and_an_empty_one_never() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.ndjson");
        let age = Rotation { size: ByteSize(1 << 30), age: Duration::from_secs(60), keep: 3 };
        let mut file = EventFile::open(&path, age).unwrap();
        file.since = SystemTime::now() - Duration::from_secs(61);
        file.flush(file.rotation()).unwrap();
        assert_eq!(names(folder.path()).len(), 1);
        file.write("{}").unwrap();
        file.flush(file.rotation()).unwrap();
        assert_eq!(names(folder.path()).len(), 2);
        file.write("{}").unwrap();
        file.flush(file.rotation()).unwrap();
        assert_eq!(names(folder.path()).len(), 2, "the new one is young");
    }
}
