//! A ledger for those who look at it, also while a gateway writes it: every record in order, checked.
//!
//! While a gateway is at work, everything up to its last head is read: that much is surely whole. Otherwise
//! the files are read to their end, which must be at or behind the head.

use super::{
    chain::Keys,
    corrupt::{Corruption, Problem},
    head::{self, Head},
    log,
    record::Record,
    segment::{self, Position, Segment},
};
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Is told how far a reading is: bytes read, bytes in all.
pub type Watch = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// What stands before the records.
#[derive(Clone)]
pub struct Ledger {
    folder: PathBuf,
    keys: Keys,
    head: Head,
    last: u64,
    in_use: bool,
    /// What stands behind the head is not read.
    to_head: bool,
    watch: Option<Watch>,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger")
            .field("folder", &self.folder)
            .field("head", &self.head)
            .finish_non_exhaustive()
    }
}

/// A record and where it stands.
pub struct Entry<'a> {
    /// What it says.
    pub record: Record<'a>,
    /// Where it begins.
    pub at: Position,
    segment: &'a Path,
}

impl Entry<'_> {
    /// Something is wrong with it.
    pub fn wrong(&self, problem: Problem) -> Box<Corruption> {
        let mut corruption = Corruption::of_file(self.segment, problem);
        corruption.at = Some(self.at);
        corruption.share_id = Some(super::record::reversed(self.record.share_id()));
        corruption
    }
}

impl Ledger {
    /// Records between two words about how far it is.
    pub(super) const WATCHED_EVERY: u64 = 1 << 14;

    /// Opens a ledger for reading.
    ///
    /// # Errors
    /// When there is none, or its head is not as it was written.
    pub fn open(folder: &Path, keys: Keys) -> Result<Self, Box<Corruption>> {
        // Asked first: what it writes after that is behind the head that is read now.
        let in_use = log::is_in_use(folder);
        let head = Head::read(folder, &keys)?
            .ok_or_else(|| Corruption::of_file(&head::path(folder), Problem::Missing))?;
        let numbers = segment::list(folder)
            .map_err(|error| Corruption::of_file(folder, Problem::Io(error.to_string())))?;
        let written = numbers.last().copied().unwrap_or_default().max(head.end.segment);
        let last = if in_use { head.end.segment } else { written };
        Ok(Self { folder: folder.to_owned(), keys, head, last, in_use, to_head: in_use, watch: None })
    }

    /// A ledger up to a head that it could have.
    pub(super) fn up_to(folder: &Path, keys: Keys, head: Head) -> Self {
        let last = head.end.segment;
        Self { folder: folder.to_owned(), keys, head, last, in_use: false, to_head: true, watch: None }
    }

    /// The same; somebody is told how far each reading is.
    #[must_use]
    pub fn watched(self, watch: Option<Watch>) -> Self {
        Self { watch, ..self }
    }

    /// Whether a gateway is at work in it.
    pub fn in_use(&self) -> bool {
        self.in_use
    }

    /// Segments of it.
    pub fn segments(&self) -> u64 {
        self.last + 1 - self.head.base
    }

    /// About how many shares it has, to plan by.
    pub fn shares(&self) -> u64 {
        self.head.end.share
    }

    /// Reads every record; gives the place behind the last one.
    ///
    /// # Errors
    /// What `visit` says, or the first thing that is not as it was written.
    pub fn walk<E: From<Box<Corruption>>>(
        &self,
        mut visit: impl FnMut(Entry<'_>) -> Result<(), E>,
    ) -> Result<Position, E> {
        let mut passed = false;
        let mut before: Option<Position> = None;
        let (total, mut read) = (segment::size(&self.folder, self.head.base..=self.last), 0);
        for number in self.head.base..=self.last {
            let mut segment = Segment::open(&self.folder, number, &self.keys)
                .map_err(|corruption| self.removed(corruption))?;
            if let Some(before) = &before {
                segment.check_follows(before)?;
            }
            let path = segment.path().to_owned();
            let limit =
                if self.to_head && number == self.last { self.head.end.offset } else { segment.length()? };
            loop {
                passed |= segment.position() == self.head.end;
                let at = match segment.next(limit) {
                    Ok(None) => break,
                    Ok(Some(found)) => match Record::decode(found.body) {
                        Some(record) => {
                            if let Some(watch) = self
                                .watch
                                .as_ref()
                                .filter(|_| found.at.record.is_multiple_of(Self::WATCHED_EVERY))
                            {
                                watch(read + found.at.offset, total);
                            }
                            visit(Entry { record, at: found.at, segment: &path })?;
                            continue;
                        }
                        None => found.at,
                    },
                    Err(corruption) => return Err(corruption.examined(&segment, limit).into()),
                };
                segment.seek(at);
                return Err(segment.here(Problem::Unreadable).into());
            }
            read += limit;
            before = Some(segment.position());
        }
        let end = before.unwrap_or_default();
        if !passed {
            let path = segment::path(&self.folder, self.last);
            let mut corruption = Corruption::of_file(&path, Problem::TailMissing(self.head.end.record));
            corruption.at = Some(end);
            return Err(corruption.into());
        }
        Ok(end)
    }

    /// Retention may remove a segment before it is read.
    fn removed(&self, corruption: Box<Corruption>) -> Box<Corruption> {
        let retired = matches!(corruption.problem, Problem::Missing)
            && Head::read(&self.folder, &self.keys)
                .is_ok_and(|head| head.is_some_and(|h| h.base > self.head.base));
        if !retired {
            return corruption;
        }
        let detail = "the gateway removed it while it was to be read, since it is older than [ledger] keep; \
                      run the command again";
        Corruption::of_file(&corruption.file, Problem::Io(detail.into()))
    }
}
