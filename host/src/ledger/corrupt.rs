//! What can be wrong with a ledger, and what its operator is told about it.

use super::{
    chain::{Fingerprint, TAG_LEN},
    record::{Record, reversed},
    segment::{FRAME, Position, Segment},
};
use std::{
    fmt,
    path::{Path, PathBuf},
};

/// What comes of reading a ledger that may not be as it was written.
pub type Checked<T> = Result<T, Box<Corruption>>;

/// The first thing that is wrong with a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corruption {
    /// The file it is in.
    pub file: PathBuf,
    /// The record it is at; none when it is about the file as a whole.
    pub at: Option<Position>,
    /// The share that this record is about, where that can be read.
    pub share_id: Option<String>,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// A file is not there.
    Missing,
    /// A header is none.
    Header(&'static str),
    /// The file was written with a key that was not given.
    OtherKey(Fingerprint),
    /// A segment does not follow the one before.
    Gap {
        /// The record that would come next.
        ends: u64,
        /// The record that comes.
        begins: u64,
    },
    /// The record is not as it was written.
    Changed,
    /// So many records are missing before it.
    Removed(u64),
    /// It and the next one have changed places.
    Swapped,
    /// The file ends inside the record.
    CutShort,
    /// Records that were durable are missing at the end: the next would have had this number.
    TailMissing(u64),
    /// The bytes are those that were written, and make no sense.
    Unreadable,
    /// The share was accepted before.
    AcceptedTwice,
    /// The share has a result already.
    AnsweredTwice,
    /// A result for a share that was not accepted.
    ResultWithoutShare,
    /// The file cannot be read.
    Io(String),
}

impl Problem {
    /// A word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing => "missing_file",
            Self::Header(_) => "bad_header",
            Self::OtherKey(_) => "other_key",
            Self::Gap { .. } => "missing_records",
            Self::Changed => "changed_record",
            Self::Removed(_) => "removed_record",
            Self::Swapped => "swapped_records",
            Self::CutShort | Self::TailMissing(_) => "truncated_tail",
            Self::Unreadable => "unreadable_record",
            Self::AcceptedTwice => "duplicate_share",
            Self::AnsweredTwice => "duplicate_result",
            Self::ResultWithoutShare => "result_without_share",
            Self::Io(_) => "unreadable_file",
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => write!(f, "the file is missing; bring it back from a backup"),
            Self::Header(what) => write!(f, "the header of the file is wrong: {what}"),
            Self::OtherKey(fingerprint) => write!(
                f,
                "the file was written with the key {}, which was not given; put it, on a line of its own, under \
                 the newer keys",
                hex::encode(fingerprint)
            ),
            Self::Gap { ends, begins } => write!(
                f,
                "the file begins with record {begins}, but the one before ends before record {ends}: records \
                 were removed between"
            ),
            Self::Changed => write!(f, "the record is not as it was written (its HMAC does not match)"),
            Self::Removed(count) => write!(f, "{count} record(s) were removed before this one"),
            Self::Swapped => write!(f, "this record and the next have changed places"),
            Self::CutShort => write!(f, "the file ends inside this record: its tail is missing"),
            Self::TailMissing(next) => {
                write!(f, "records at the end are missing: everything before record {next} had been durable")
            }
            Self::Unreadable => write!(f, "the record is as it was written and makes no sense"),
            Self::AcceptedTwice => write!(f, "the share was accepted before"),
            Self::AnsweredTwice => write!(f, "the share has a second result"),
            Self::ResultWithoutShare => write!(f, "a result for a share that was not accepted"),
            Self::Io(error) => write!(f, "{error}"),
        }
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(at) = self.at {
            write!(f, ", record {} (byte {})", at.record, at.offset)?;
        }
        if let Some(share_id) = &self.share_id {
            write!(f, ", share {share_id}")?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl std::error::Error for Corruption {}

impl From<Box<Corruption>> for std::io::Error {
    fn from(corruption: Box<Corruption>) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, corruption)
    }
}

impl Corruption {
    /// Something is wrong with a file as a whole.
    pub fn of_file(path: &Path, problem: Problem) -> Box<Self> {
        Box::new(Self { file: path.to_owned(), at: None, share_id: None, problem })
    }

    /// Looks closer at a record whose tag does not match: what was done, and to which share.
    #[must_use]
    pub fn examined(mut self: Box<Self>, segment: &Segment, limit: u64) -> Box<Self> {
        if self.problem != Problem::Changed && self.problem != Problem::CutShort {
            return self;
        }
        let Ok(bytes) = segment.rest(limit, 1 << 16) else { return self };
        let frames: Vec<_> = Frames(&bytes).take(3).collect();
        self.share_id = frames
            .first()
            .and_then(|frame| Record::decode(frame.body))
            .map(|record| reversed(record.share_id()));
        if let (Problem::Changed, [first, second, ..]) = (&self.problem, &frames[..]) {
            self.problem = what_was_done(segment, first, second);
        }
        self
    }
}

/// Two records from the place where the chain breaks on.
fn what_was_done(segment: &Segment, first: &Frame<'_>, second: &Frame<'_>) -> Problem {
    let (at, key) = (segment.position(), segment.key());
    let (Some(first_tag), Some(second_tag)) = (first.tag(), second.tag()) else { return Problem::Changed };
    if key.tag(&at.tag, at.record, second.body) == second_tag
        && key.tag(&second_tag, at.record + 1, first.body) == first_tag
    {
        return Problem::Swapped;
    }
    // The second follows the first in the chain; how far both are from where they should be says how
    // many are missing.
    const FARTHEST: u64 = 1_000;
    let follows = |removed: &u64| key.tag(&first_tag, at.record + removed + 1, second.body) == second_tag;
    match (0..FARTHEST).find(follows) {
        None | Some(0) => Problem::Changed,
        Some(removed) => Problem::Removed(removed),
    }
}

/// A record by its length alone.
pub(super) struct Frame<'a> {
    pub(super) body: &'a [u8],
    tag: &'a [u8],
}

impl Frame<'_> {
    pub(super) fn tag(&self) -> Option<[u8; TAG_LEN]> {
        self.tag.try_into().ok()
    }
}

/// Records by their lengths alone.
pub(super) struct Frames<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;
    fn next(&mut self) -> Option<Frame<'a>> {
        let length = usize::from(u16::from_le_bytes(self.0.get(..2)?.try_into().ok()?));
        let (frame, rest) = self.0.split_at_checked(length + FRAME)?;
        self.0 = rest;
        let (body, tag) = frame[2..].split_at(length);
        Some(Frame { body, tag })
    }
}
