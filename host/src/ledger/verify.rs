//! `reservegrid ledger verify`: that the files are as they were written and keep the ledger's promise.
//!
//! In order: every segment is there and follows the one before, every record has its right HMAC, every
//! result belongs to one share and is its only one, and the tail that was durable is there. Then that no
//! share was accepted twice: by 64 bits of each id, in as many passes as it takes to stay within a bounded
//! memory, and a closer look where two agree.

use super::{
    corrupt::{Corruption, Problem},
    read::Ledger,
    record::{Hash, Record, reversed},
};
use serde::Serialize;
use std::{
    collections::{HashMap, HashSet, VecDeque},
    fmt,
};

/// Ids looked at in one pass: 512 MB.
const IDS_AT_ONCE: u64 = 64 << 20;

/// What was found in a ledger that is as it should be.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Files.
    pub segments: u64,
    /// Records in them.
    pub records: u64,
    /// Shares that were accepted.
    pub shares: u64,
    /// Shares that the pool took.
    pub forward_accepted: u64,
    /// Shares that the pool refused for good.
    pub forward_rejected: u64,
    /// Shares that have no result yet.
    pub open: u64,
    /// The first of them.
    pub first_open: Option<String>,
    /// Answers of the node for solved blocks.
    pub blocks: u64,
    /// A gateway was at work; what it wrote in the last second was not looked at.
    pub in_use: bool,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the chain is whole: {} records in {} segment(s)", self.records, self.segments)?;
        writeln!(
            f,
            "{} shares accepted; the pool took {}, refused {}; {} without a result, {} solved blocks",
            self.shares, self.forward_accepted, self.forward_rejected, self.open, self.blocks
        )?;
        if let Some(first) = &self.first_open {
            writeln!(f, "the first without a result is {first}")?;
        }
        if self.in_use {
            writeln!(f, "a gateway is at work in it; what it wrote in the last second was not looked at")?;
        }
        Ok(())
    }
}

/// Checks a ledger.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn verify(ledger: &Ledger) -> Result<Report, Box<Corruption>> {
    let mut report = Report { segments: ledger.segments(), in_use: ledger.in_use(), ..Report::default() };
    let passes = ledger.shares() / IDS_AT_ONCE + 1;
    let mut joins = Joins::default();
    let mut ids = Vec::new();
    ledger.walk(|entry| {
        report.records += 1;
        match &entry.record {
            Record::Accepted(share) => {
                report.shares += 1;
                joins.accepted(entry.at.share, &share.share_id);
                let id = short(&share.share_id);
                if id.is_multiple_of(passes) {
                    ids.push(id);
                }
            }
            Record::Forwarded(result) => {
                if result.accepted {
                    report.forward_accepted += 1;
                } else {
                    report.forward_rejected += 1;
                }
                joins.answered(result.share, &result.share_id).map_err(|problem| entry.wrong(problem))?;
            }
            Record::Block(_) => report.blocks += 1,
        }
        Ok::<_, Box<Corruption>>(())
    })?;
    let mut alike = repeated(ids);
    for pass in 1..passes {
        let mut ids = Vec::new();
        ledger.walk(|entry| {
            if let Record::Accepted(share) = &entry.record {
                ids.extend(Some(short(&share.share_id)).filter(|id| id % passes == pass));
            }
            Ok::<_, Box<Corruption>>(())
        })?;
        alike.extend(repeated(ids));
    }
    if !alike.is_empty() {
        look_closer(ledger, &alike)?;
    }
    report.open = joins.open;
    report.first_open = match joins.first_open() {
        Some(number) => find(ledger, number)?,
        None => None,
    };
    Ok(report)
}

/// Bits of a share id that are as good as random, and never zero.
fn short(id: &Hash) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&id[..8]);
    u64::from_le_bytes(bytes).max(1)
}

fn repeated(mut ids: Vec<u64>) -> HashSet<u64> {
    ids.sort_unstable();
    ids.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect()
}

fn look_closer(ledger: &Ledger, alike: &HashSet<u64>) -> Result<(), Box<Corruption>> {
    let mut seen: HashMap<Hash, u64> = HashMap::new();
    ledger.walk(|entry| {
        if let Record::Accepted(share) = &entry.record
            && alike.contains(&short(&share.share_id))
            && seen.insert(share.share_id, entry.at.share).is_some()
        {
            return Err(entry.wrong(Problem::AcceptedTwice));
        }
        Ok(())
    })?;
    Ok(())
}

fn find(ledger: &Ledger, number: u64) -> Result<Option<String>, Box<Corruption>> {
    let mut found = None;
    ledger.walk(|entry| {
        if let Record::Accepted(share) = &entry.record
            && entry.at.share == number
        {
            found = Some(reversed(&share.share_id));
        }
        Ok::<_, Box<Corruption>>(())
    })?;
    Ok(found)
}

/// Which shares wait for their result: from the oldest open one on, eight bytes a share.
#[derive(Default)]
struct Joins {
    /// Number of the first share that is there, and of the first in `ids`.
    begins: Option<u64>,
    first: u64,
    /// Short ids; zero for those that have their result.
    ids: VecDeque<u64>,
    open: u64,
}

impl Joins {
    fn accepted(&mut self, number: u64, id: &Hash) {
        if self.begins.is_none() {
            self.begins = Some(number);
        }
        if self.ids.is_empty() {
            self.first = number;
        }
        self.ids.push_back(short(id));
        self.open += 1;
    }

    fn answered(&mut self, number: u64, id: &Hash) -> Result<(), Problem> {
        // Its share was in a segment that is not kept any more.
        if self.begins.is_none_or(|begins| number < begins) {
            return Ok(());
        }
        let known = number.checked_sub(self.first).and_then(|at| self.ids.get_mut(usize::try_from(at).ok()?));
        match known {
            None if number < self.first => return Err(Problem::AnsweredTwice),
            None => return Err(Problem::ResultWithoutShare),
            Some(0) => return Err(Problem::AnsweredTwice),
            Some(known) if *known != short(id) => return Err(Problem::ResultWithoutShare),
            Some(known) => *known = 0,
        }
        self.open -= 1;
        while self.ids.front() == Some(&0) {
            self.ids.pop_front();
            self.first += 1;
        }
        Ok(())
    }

    fn first_open(&self) -> Option<u64> {
        (self.open > 0).then_some(self.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_share_has_one_result_and_each_result_one_share() {
        let mut joins = Joins::default();
        for number in 5..9 {
            joins.accepted(number, &[u8::try_from(number).unwrap(); 32]);
        }
        assert_eq!(joins.answered(3, &[3; 32]), Ok(()), "of a segment that is gone");
        assert_eq!(joins.answered(6, &[6; 32]), Ok(()));
        assert_eq!(joins.answered(6, &[6; 32]), Err(Problem::AnsweredTwice));
        assert_eq!(joins.answered(7, &[8; 32]), Err(Problem::ResultWithoutShare));
        assert_eq!(joins.answered(9, &[9; 32]), Err(Problem::ResultWithoutShare));
        assert_eq!((joins.first_open(), joins.open), (Some(5), 3));
        assert_eq!(joins.answered(5, &[5; 32]), Ok(()));
        assert_eq!(joins.answered(5, &[5; 32]), Err(Problem::AnsweredTwice));
        assert_eq!((joins.first_open(), joins.ids.len()), (Some(7), 2));
    }
}
