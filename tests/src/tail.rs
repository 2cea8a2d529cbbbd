//! The end of a file of JSON lines that somebody else writes.

use anyhow::{Context, Result};
use serde_json::Value;
use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::PathBuf,
};

/// The end of a file of JSON lines that somebody else writes.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    offset: u64,
    rest: Vec<u8>,
    /// What was read so far.
    pub seen: Vec<Value>,
}

impl Tail {
    /// Reads what is written from now on.
    ///
    /// # Errors
    /// When the file cannot be looked at.
    pub fn at_end(path: PathBuf) -> Result<Self> {
        let offset = if path.exists() { std::fs::metadata(&path)?.len() } else { 0 };
        Ok(Self { path, offset, rest: Vec::new(), seen: Vec::new() })
    }

    /// Reads the lines that were finished since.
    ///
    /// # Errors
    /// When a line is not JSON.
    pub fn poll(&mut self) -> Result<()> {
        // Not there before the first event.
        let Ok(mut file) = File::open(&self.path) else { return Ok(()) };
        file.seek(SeekFrom::Start(self.offset))?;
        self.offset += file.read_to_end(&mut self.rest)? as u64;
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let event = serde_json::from_slice(&line).with_context(|| {
                format!("a line of events that is not JSON: {}", String::from_utf8_lossy(&line))
            })?;
            self.seen.push(event);
        }
        Ok(())
    }

    /// The last lines, for messages.
    pub fn tail(&self) -> String {
        let last = self.seen.iter().skip(self.seen.len().saturating_sub(20)).map(Value::to_string);
        format!("--- the last events\n{}", last.collect::<Vec<_>>().join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn events_are_read_once_and_only_when_their_line_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.ndjson");
        std::fs::write(&path, "{\"event\":\"of the run before\"}\n").unwrap();
        let mut tail = Tail::at_end(path.clone()).unwrap();
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"n\":1}\n{\"n\":").unwrap();
        tail.poll().unwrap();
        assert_eq!(tail.seen, [serde_json::json!({ "n": 1 })]);
        file.write_all(b"2}\n").unwrap();
        tail.poll().unwrap();
        tail.poll().unwrap();
        assert_eq!(tail.seen.len(), 2);
    }
}
