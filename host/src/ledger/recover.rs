//! What a start finds in a ledger's folder: where the records end, which shares have their result, and whether
//! everything is as it was written. It reads from the segment on that the head points into; there is no time
//! for all of them at a start, and `verify` has it.

use super::{
    chain::Keys,
    corrupt::{Checked, Corruption, Frames, Problem},
    head::Head,
    record::Record,
    segment::{self, FRAME, Position, Segment},
    settle::Settled,
};
use std::{io, path::Path};

/// What a folder holds.
pub(super) struct Found {
    /// Oldest segment that is kept.
    pub(super) base: u64,
    /// Where the records end.
    pub(super) end: Position,
    /// Which shares have their result.
    pub(super) settled: Settled,
    /// Words about a torn write that is to be cut off.
    pub(super) cut: Option<String>,
}

pub(super) fn refusal(folder: &Path, corruption: &Corruption) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!(
            "the share ledger is not as it was written, so the gateway does not start: {corruption}. Bring the \
             folder back from a backup; or see what `reservegrid ledger repair {}` can prove of it, which can write a \
             new head when the head or the last records are missing; or move it away, so that the gateway begins a \
             new one, and settle its open shares by hand (`reservegrid ledger verify` and `export` read it)",
            folder.display()
        ),
    )
}

pub(super) fn begin(folder: &Path, keys: &Keys) -> io::Result<Found> {
    let start = Position { segment: 0, offset: 0, record: 1, share: 1, tag: [0; 16] };
    let end = segment::create(folder, 1, &start, keys.signing())?;
    Ok(Found { base: 1, end, settled: Settled::new(end, [], 0), cut: None })
}

/// Finds the end of a ledger: from the head on, record by record. `None` when there is nothing yet.
pub(super) fn find(folder: &Path, keys: &Keys) -> Checked<Option<Found>> {
    let io = |error: io::Error| Corruption::of_file(folder, Problem::Io(error.to_string()));
    let head = Head::read(folder, keys)?;
    let numbers = segment::list(folder).map_err(io)?;
    let Some(head) = head else {
        // The first segment is made before the first head, and the head before the first record.
        let empty = match numbers[..] {
            [] => true,
            [1] => Segment::open(folder, 1, keys)?.length()? == segment::HEADER_LEN as u64,
            _ => false,
        };
        return if empty {
            Ok(None)
        } else {
            Err(Corruption::of_file(&super::head::path(folder), Problem::Missing))
        };
    };
    let last = numbers.last().copied().unwrap_or_default().max(head.end.segment);
    // All of them are there, and each begins where the numbers of the one before leave off. What stands in
    // those before the head's is `verify`'s business; there is no time for it at a start.
    let mut before: Option<Position> = None;
    for number in head.base..=last {
        let begins = Segment::open(folder, number, keys)?.position();
        if let Some(before) = before.filter(|before| before.record > begins.record) {
            let problem = Problem::Gap { ends: before.record, begins: begins.record };
            return Err(Corruption::of_file(&segment::path(folder, number), problem));
        }
        before = Some(begins);
    }
    let mut settled = Settled::new(head.resume, head.settled.iter().copied(), head.answered);
    let mut segment = Segment::open(folder, head.end.segment, keys)?;
    let mut passed = false;
    loop {
        let limit = segment.length()?;
        let is_last = segment.position().segment == last;
        loop {
            // The place the head speaks of must be a place between two records.
            passed |= segment.position() == head.end;
            match segment.next(limit) {
                Ok(None) => break,
                Ok(Some(found)) => {
                    let at = found.at;
                    if let Some(Record::Forwarded(result)) =
                        Record::decode(found.body).filter(|_| at.record >= head.end.record)
                    {
                        settled.settle(result.share);
                    }
                }
                Err(corruption) => {
                    if !(is_last && passed && may_be_torn(&corruption, &segment, limit)) {
                        return Err(corruption.examined(&segment, limit));
                    }
                    let end = segment.position();
                    let cut = format!(
                        "{}: a write that was cut short was removed: {} bytes from byte {} on, before record {}; \
                         nobody had been told Success for it",
                        segment.path().display(),
                        limit - end.offset,
                        end.offset,
                        end.record
                    );
                    return Ok(Some(Found { base: head.base, end, settled, cut: Some(cut) }));
                }
            }
        }
        if !passed {
            return Err(segment.here(Problem::TailMissing(head.end.record)));
        }
        let end = segment.position();
        if is_last {
            return Ok(Some(Found { base: head.base, end, settled, cut: None }));
        }
        segment = Segment::open(folder, end.segment + 1, keys)?;
        segment.check_follows(&end)?;
    }
}

/// Whether a fault at the end of the last segment may be a write that was cut short.
pub(super) fn may_be_torn(corruption: &Corruption, segment: &Segment, limit: u64) -> bool {
    matches!(corruption.problem, Problem::Changed | Problem::CutShort) && !goes_on(segment, limit)
}

/// Whether a record that belongs to the chain stands behind the place where it breaks: then it is no write
/// that was cut short.
fn goes_on(segment: &Segment, limit: u64) -> bool {
    /// More than is written in the second between two heads.
    const MOST: u64 = 256 << 20;
    /// Records that may be missing between the two.
    const MISSING: u64 = 64;
    let at = segment.position();
    let Ok(bytes) = segment.rest(limit, MOST) else { return true };
    (1..bytes.len().saturating_sub(FRAME)).any(|from| {
        let Some(frame) = Frames(&bytes[from..]).next().filter(|f| Record::decode(f.body).is_some()) else {
            return false;
        };
        let before = if from >= 16 { bytes[from - 16..from].try_into().ok() } else { None };
        let (Some(before), Some(tag)) = (before, frame.tag()) else { return false };
        // The broken one may be any; those behind it count on.
        (1..=MISSING).any(|further| segment.key().tag(&before, at.record + further, frame.body) == tag)
    })
}
