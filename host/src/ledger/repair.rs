//! `reservegrid ledger repair`: a new head for a ledger that lost its own, or that ends before it.
//!
//! A gateway does not start on records that are not as they were written. Two such faults leave a ledger that
//! could go on once somebody has decided so: the head is missing or damaged, or records at the end are missing
//! that had been durable (a disk that forgot them, a folder from an old backup). What is left is checked
//! here from the first record to the last, what is lost and what nobody can prove any more is put into
//! words, and a head that says what is there is written. Records are never changed: where the chain itself is broken
//! there is nothing to repair, only a backup to bring back. Nothing is thrown away: the head of before, the
//! bytes of a torn write and these words stay in the folder.

use super::{
    chain::Keys,
    corrupt::{Checked, Corruption, Problem},
    head::{self, Head},
    log,
    read::{Ledger, Watch},
    record::Record,
    recover,
    segment::{self, Position, Segment},
    settle::Settled,
    verify::{self, Report},
};
use crate::event::unix_seconds;
use serde::Serialize;
use std::{
    fmt, fs,
    fs::File,
    io,
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

/// Shares between two places at which a restart may go on reading.
const STEP: u64 = 512;
/// A torn write is far shorter.
const MAX_TORN: u64 = 256 << 20;

/// What was found.
#[derive(Debug, Default, Serialize)]
pub struct Findings {
    /// Why the ledger cannot be used as it is; none: it can.
    pub fault: Option<String>,
    /// What was durable and is not there.
    pub lost: Vec<String>,
    /// What nobody can prove any more.
    pub unproved: Vec<String>,
    /// What is there and as it was written.
    pub report: Option<Report>,
    /// What is wrong besides, and no head can mend.
    pub besides: Option<String>,
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.fault {
            Some(fault) => writeln!(f, "FAULT {fault}")?,
            None => writeln!(f, "there is nothing to repair")?,
        }
        self.lost.iter().try_for_each(|lost| writeln!(f, "LOST {lost}"))?;
        self.unproved.iter().try_for_each(|words| writeln!(f, "CANNOT BE PROVED: {words}"))?;
        self.besides.iter().try_for_each(|words| writeln!(f, "WRONG BESIDES: {words}"))?;
        self.report.iter().try_for_each(|report| write!(f, "{report}"))
    }
}

/// A ledger that was looked at, and the head that it can have. No gateway starts on it meanwhile.
pub struct Repair {
    /// What was found.
    pub findings: Findings,
    folder: PathBuf,
    keys: Keys,
    head: Head,
    torn: Vec<u8>,
    _lock: File,
}

impl Repair {
    /// Looks at a ledger; changes nothing.
    ///
    /// # Errors
    /// What keeps it from being repaired: a gateway that is at work in it, or records that are not as they
    /// were written.
    pub fn look(folder: &Path, keys: Keys, watch: Option<Watch>) -> Checked<Self> {
        let unusable = |error: io::Error| Corruption::of_file(folder, Problem::Io(error.to_string()));
        let lock = log::lock(folder).map_err(unusable)?;
        let mut findings = Findings::default();
        let before = match Head::read(folder, &keys) {
            Ok(Some(head)) => Some(head),
            Ok(None) => {
                findings.fault = Some(Corruption::of_file(&head::path(folder), Problem::Missing).to_string());
                None
            }
            Err(corruption) if matches!(corruption.problem, Problem::Header(_)) => {
                findings.fault = Some(corruption.to_string());
                None
            }
            Err(corruption) => return Err(corruption),
        };
        let scan = scan(folder, &keys, before.as_ref(), watch.as_ref())?;
        match &before {
            None => findings.unproved.extend(scan.without_head()),
            Some(head) if !scan.passed => findings.lose(head, &scan, folder)?,
            Some(_) => {}
        }
        if findings.fault.is_some() && !scan.torn.is_empty() {
            findings.unproved.push(format!(
                "what the last {} bytes of {} were (from byte {} on): they are no whole record. The next start \
                 removes them",
                scan.torn.len(),
                segment::path(folder, scan.end.segment).display(),
                scan.end.offset
            ));
        }
        let Scan { first, end, settled, torn, .. } = scan;
        let head = Head {
            base: first.segment,
            end,
            resume: settled.resume(),
            settled: settled.ranges(),
            answered: settled.answered(),
        };
        let ledger = Ledger::up_to(folder, keys.clone(), head.clone()).watched(watch);
        match verify::verify(&ledger) {
            Ok(report) => findings.report = Some(report),
            Err(corruption) => findings.besides = Some(corruption.to_string()),
        }
        Ok(Self { findings, folder: folder.to_owned(), keys, head, torn, _lock: lock })
    }

    /// Writes the head, and beside it what it replaces; gives the files that are new.
    ///
    /// # Errors
    /// I/O; the head of before is then still there.
    pub fn write(&self) -> io::Result<Vec<PathBuf>> {
        let now = unix_seconds();
        let kept = |name: &str| self.folder.join(format!("repair-{now}.{name}"));
        let mut files = vec![kept("txt")];
        fs::write(&files[0], self.findings.to_string())?;
        if !self.torn.is_empty() {
            files.push(kept("torn"));
            fs::write(kept("torn"), &self.torn)?;
        }
        let before = head::path(&self.folder);
        if before.exists() {
            files.push(kept("head"));
            fs::copy(before, kept("head"))?;
        }
        for file in &files {
            File::open(file)?.sync_all()?;
        }
        self.head.write(&self.folder, &self.keys)?;
        File::open(&self.folder)?.sync_all()?;
        files.push(head::path(&self.folder));
        Ok(files)
    }
}

impl Findings {
    /// The records end before the head.
    fn lose(&mut self, head: &Head, scan: &Scan, folder: &Path) -> Checked<()> {
        let (end, known) = (&scan.end, &head.end);
        let behind = end.segment > known.segment || end.record > known.record;
        if behind || (end.segment, end.record) == (known.segment, known.record) {
            let problem = Problem::Header("it speaks of other records than those that are here");
            return Err(Corruption::of_file(&head::path(folder), problem));
        }
        let path = segment::path(folder, known.segment);
        self.fault = Some(Corruption::of_file(&path, Problem::TailMissing(known.record)).to_string());
        self.lost.push(match known.record - end.record {
            0 => format!("the file {}, in which no record stood yet", path.display()),
            count => format!(
                "{count} record(s), {} to {}: everything after {}. {} share(s) were among them, whose miners had \
                 heard Success, and results of the pool; which, the pool's books and the events of that time say",
                end.record,
                known.record - 1,
                scan.last(),
                known.share.saturating_sub(end.share),
            ),
        });
        Ok(())
    }
}

/// All records there are.
struct Scan {
    first: Position,
    end: Position,
    settled: Settled,
    /// The place that the head speaks of is there.
    passed: bool,
    /// What stands behind the last whole record.
    torn: Vec<u8>,
    /// When the last record was written, Unix milliseconds.
    last_ms: u64,
}

impl Scan {
    /// The last record, for people.
    fn last(&self) -> String {
        if self.end.record == self.first.record {
            return "the beginning".into();
        }
        let time = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(self.last_ms));
        format!("record {}, written {time}", self.end.record - 1)
    }

    fn without_head(&self) -> Vec<String> {
        let mut unproved = vec![format!(
            "that no record is missing behind {}, the last one that is there. The pool's books can tell, and the \
             events of that time",
            self.last()
        )];
        if self.first.segment > 1 {
            unproved.push(format!(
                "that the {} file(s) before {:010} were removed by the gateway, with a result for each of their {} \
                 shares; they are taken to have theirs",
                self.first.segment - 1,
                self.first.segment,
                self.first.share - 1
            ));
        }
        unproved
    }
}

/// Reads everything, from the oldest segment that is kept on.
fn scan(folder: &Path, keys: &Keys, head: Option<&Head>, watch: Option<&Watch>) -> Checked<Scan> {
    let io = |error: io::Error| Corruption::of_file(folder, Problem::Io(error.to_string()));
    let numbers = segment::list(folder).map_err(io)?;
    let base = head.map(|head| head.base).or(numbers.first().copied()).unwrap_or(1);
    let last = numbers.last().copied().unwrap_or(base);
    let total = segment::size(folder, base..=last);
    let mut segment = Segment::open(folder, base, keys)?;
    let first = segment.position();
    let mut settled = Settled::new(first, [], first.share - 1);
    let (mut passed, mut last_ms, mut before) = (false, 0, 0);
    loop {
        let limit = segment.length()?;
        let is_last = segment.position().segment == last;
        let mut torn = Vec::new();
        loop {
            passed |= head.is_some_and(|head| head.end == segment.position());
            let unreadable = match segment.next(limit) {
                Ok(None) => break,
                Ok(Some(found)) => {
                    let at = found.at;
                    if let Some(watch) = watch.filter(|_| at.record.is_multiple_of(Ledger::WATCHED_EVERY)) {
                        watch(before + at.offset, total);
                    }
                    match Record::decode(found.body) {
                        Some(record) => {
                            last_ms = record.time_ms();
                            match record {
                                Record::Accepted(_) if at.share.is_multiple_of(STEP) => {
                                    settled.handed_out(at)
                                }
                                Record::Forwarded(result) => _ = settled.settle(result.share),
                                _ => {}
                            }
                            continue;
                        }
                        None => at,
                    }
                }
                Err(corruption) => {
                    if !(is_last && recover::may_be_torn(&corruption, &segment, limit)) {
                        return Err(corruption.examined(&segment, limit));
                    }
                    torn = segment.rest(limit, MAX_TORN).map_err(io)?;
                    break;
                }
            };
            segment.seek(unreadable);
            return Err(segment.here(Problem::Unreadable));
        }
        let end = segment.position();
        if is_last {
            settled.handed_out(end);
            return Ok(Scan { first, end, settled, passed, torn, last_ms });
        }
        before += limit;
        segment = Segment::open(folder, end.segment + 1, keys)?;
        segment.check_follows(&end)?;
    }
}

#[cfg(test)]
#[path = "repair_tests.rs"]
mod tests;
