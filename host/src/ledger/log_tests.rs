//! The log as a folder of files: what a restart finds, what a look at it finds, and what neither accepts.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::{
    super::{
        corrupt::{Corruption, Problem},
        read::Ledger,
        record::{Forwarded, reversed, tests::accepted},
        segment::Segment,
        verify::verify,
    },
    *,
};
use std::io::{Read, Seek, SeekFrom, Write};
use tempfile::TempDir;

const KEY: &str = "the key of the ledger";

pub(in super::super) fn keys() -> Keys {
    Keys::parse(KEY).unwrap()
}

fn config(folder: &TempDir, segment_size: u64) -> LogConfig {
    let keep = Duration::from_secs(3_600);
    LogConfig { folder: folder.path().to_owned(), segment_size, keep }
}

pub(in super::super) fn open(folder: &TempDir) -> io::Result<Opened> {
    Log::open(config(folder, 1 << 30), Some(keys()), Fault::None)
}

pub(in super::super) fn refused(folder: &TempDir) -> String {
    open(folder).err().expect("the log opens").to_string()
}

fn push_share(log: &mut Log) -> u64 {
    let number = log.next_share();
    let record = accepted(number);
    log.push(true, |out| record.encode(out));
    number
}

pub(in super::super) fn push_result(log: &mut Log, settled: &mut Settled, share: u64) {
    let record = Forwarded {
        time_ms: 1,
        share,
        share_id: accepted(share).share_id,
        accepted: true,
        attempts: 1,
        detail: "",
    };
    log.push(false, |out| record.encode(out));
    settled.settle(share);
}

/// Shares in groups of ten, each with its head, as a gateway would write them that then ends.
pub(in super::super) fn filled(folder: &TempDir, segment_size: u64, groups: u64) -> (Log, Settled) {
    let Opened { mut log, settled, .. } =
        Log::open(config(folder, segment_size), Some(keys()), Fault::None).unwrap();
    for _ in 0..groups {
        (0..10).for_each(|_| _ = push_share(&mut log));
        log.commit().unwrap();
        log.rotate(None).unwrap();
    }
    log.write_head(&settled).unwrap();
    (log, settled)
}

pub(in super::super) fn checked(folder: &TempDir) -> Result<super::super::verify::Report, Box<Corruption>> {
    Ledger::open(folder.path(), keys()).and_then(|ledger| verify(&ledger))
}

/// Where each record of the first segment begins and ends.
pub(in super::super) fn records(folder: &TempDir) -> Vec<(u64, u64)> {
    let mut segment = Segment::open(folder.path(), 1, &keys()).unwrap();
    let limit = segment.length().unwrap();
    let mut records = Vec::new();
    while let Some(at) = segment.next(limit).unwrap().map(|found| found.at.offset) {
        records.push((at, segment.position().offset));
    }
    records
}

pub(in super::super) fn change(folder: &TempDir, with: impl FnOnce(&mut Vec<u8>)) {
    let path = segment::path(folder.path(), 1);
    let mut bytes = fs::read(&path).unwrap();
    with(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_restart_knows_what_has_its_result_and_reads_the_rest_again() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, mut settled) = filled(&folder, 1 << 30, 3);
    for share in [1, 2, 3, 17] {
        push_result(&mut log, &mut settled, share);
    }
    log.commit().unwrap();
    // The head of before, as a crash would leave it.
    drop(log);
    let Opened { log, settled, cut } = open(&folder).unwrap();
    assert_eq!((log.next_share(), settled.answered(), cut), (31, 4, None));
    for share in 1..=30 {
        assert_eq!(settled.is_settled(share), [1, 2, 3, 17].contains(&share), "share {share}");
    }
    drop(log);
    let report = checked(&folder).unwrap();
    assert_eq!((report.shares, report.forward_accepted, report.open), (30, 4, 26));
    assert_eq!(report.first_open, Some(reversed(&accepted(4).share_id)));
}

#[test]
fn a_write_that_was_cut_short_is_removed_wherever_it_was_cut() {
    let folder = tempfile::tempdir().unwrap();
    drop(filled(&folder, 1 << 30, 1));
    let whole = fs::metadata(segment::path(folder.path(), 1)).unwrap().len();
    let mut group = {
        let mut log = open(&folder).unwrap().log;
        (0..3).for_each(|_| _ = push_share(&mut log));
        log.commit().unwrap();
        let mut file = File::open(segment::path(folder.path(), 1)).unwrap();
        file.seek(SeekFrom::Start(whole)).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    };
    let ends: Vec<_> =
        records(&folder)[10..].iter().map(|(_, end)| usize::try_from(end - whole).unwrap()).collect();
    // What lies beyond the last head may be of any length; whole records of it stay.
    for cut in [1, 2, 20, ends[0] - 1, ends[0], ends[0] + 1, ends[1] + 7, ends[1], ends[2] - 1] {
        let kept = ends.iter().filter(|end| **end <= cut).count();
        change(&folder, |bytes| {
            bytes.truncate(usize::try_from(whole).unwrap());
            bytes.extend(&group[..cut]);
        });
        let Opened { log, cut: words, .. } = open(&folder).unwrap();
        assert_eq!(log.next_share(), 11 + kept as u64, "cut at {cut}");
        assert_eq!(words.is_some(), !ends.contains(&cut), "cut at {cut}: {words:?}");
        let left = whole + kept.checked_sub(1).map_or(0, |last| ends[last]) as u64;
        assert_eq!(fs::metadata(segment::path(folder.path(), 1)).unwrap().len(), left);
        drop(log);
        // For the next one: the head must not know what is cut off then.
        reset_head(&folder, whole);
    }
    // A byte of the last record is another: nobody can tell it from a write that did not arrive whole.
    group[ends[1] + 5] ^= 1;
    change(&folder, |bytes| {
        bytes.truncate(usize::try_from(whole).unwrap());
        bytes.extend(&group);
    });
    let Opened { log, cut, .. } = open(&folder).unwrap();
    assert_eq!(log.next_share(), 13);
    assert!(cut.unwrap().contains("before record 13"));
}

/// The head as it was when the first segment had this length.
fn reset_head(folder: &TempDir, length: u64) {
    let mut segment = Segment::open(folder.path(), 1, &keys()).unwrap();
    let first = segment.position();
    while segment.next(length).unwrap().is_some() {}
    let head = Head { base: 1, end: segment.position(), resume: first, settled: vec![], answered: 0 };
    head.write(folder.path(), &keys()).unwrap();
}

#[test]
fn a_changed_record_in_the_middle_is_named_and_nothing_starts() {
    let folder = tempfile::tempdir().unwrap();
    drop(filled(&folder, 1 << 30, 2));
    let (begin, end) = records(&folder)[6];
    for at in [begin + 3, begin + 40, end - 1] {
        let flip = |bytes: &mut Vec<u8>| bytes[usize::try_from(at).unwrap()] ^= 0x10;
        change(&folder, flip);
        let corruption = checked(&folder).unwrap_err();
        assert_eq!(
            (corruption.problem.clone(), corruption.at.unwrap().record),
            (Problem::Changed, 7),
            "{at}"
        );
        let said = refused(&folder);
        assert!(said.contains("0000000001.rgl, record 7") && said.contains("from a backup"), "{said}");
        change(&folder, flip);
    }
    // A byte outside its id leaves the share's id readable.
    change(&folder, |bytes| bytes[usize::try_from(begin + 100).unwrap()] ^= 1);
    let id = reversed(&accepted(7).share_id);
    assert!(refused(&folder).contains(&format!("share {id}")));
    // A byte of its length, too.
    change(&folder, |bytes| {
        bytes[usize::try_from(begin + 100).unwrap()] ^= 1;
        bytes[usize::try_from(begin).unwrap()] ^= 1;
    });
    assert_eq!(checked(&folder).unwrap_err().at.unwrap().record, 7);
    assert!(refused(&folder).contains("record 7"));
}

#[test]
fn behind_the_last_head_too_a_change_is_no_torn_write_when_the_chain_goes_on_after_it() {
    let folder = tempfile::tempdir().unwrap();
    drop(filled(&folder, 1 << 30, 2));
    let records = records(&folder);
    reset_head(&folder, records[4].1);
    for at in [records[11].0, records[11].0 + 30] {
        change(&folder, |bytes| bytes[usize::try_from(at).unwrap()] ^= 1);
        assert!(refused(&folder).contains("record 12"), "{}", refused(&folder));
        change(&folder, |bytes| bytes[usize::try_from(at).unwrap()] ^= 1);
    }
}

#[test]
fn removed_and_swapped_records_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    drop(filled(&folder, 1 << 30, 2));
    let whole = fs::read(segment::path(folder.path(), 1)).unwrap();
    let records = records(&folder);
    let part = |from: usize, to: usize| {
        let place = |at: u64| usize::try_from(at).unwrap();
        whole[place(records[from].0)..place(records[to].1)].to_vec()
    };
    let head = &whole[..segment::HEADER_LEN];
    let cases: [(Vec<Vec<u8>>, Problem, u64); 4] = [
        (vec![part(0, 5), part(7, 19)], Problem::Removed(1), 7),
        (vec![part(0, 5), part(9, 19)], Problem::Removed(3), 7),
        (vec![part(0, 5), part(7, 7), part(6, 6), part(8, 19)], Problem::Swapped, 7),
        (vec![part(0, 5), part(5, 19)], Problem::Changed, 7),
    ];
    for (parts, problem, record) in cases {
        change(&folder, |bytes| *bytes = [head.to_vec(), parts.concat()].concat());
        let corruption = checked(&folder).unwrap_err();
        assert_eq!(
            (corruption.problem.clone(), corruption.at.unwrap().record),
            (problem, record),
            "{corruption}"
        );
        assert!(open(&folder).is_err());
    }
}

#[test]
fn a_tail_that_was_durable_and_is_gone_is_missed() {
    let folder = tempfile::tempdir().unwrap();
    drop(filled(&folder, 1 << 30, 2));
    let records = records(&folder);
    // At the end of a record, where the chain itself shows nothing.
    change(&folder, |bytes| bytes.truncate(usize::try_from(records[14].1).unwrap()));
    let corruption = checked(&folder).unwrap_err();
    assert_eq!(corruption.problem, Problem::TailMissing(21));
    assert!(refused(&folder).contains("everything before record 21 had been durable"));
    // In the middle of one.
    change(&folder, |bytes| bytes.truncate(usize::try_from(records[14].1 - 5).unwrap()));
    let corruption = checked(&folder).unwrap_err();
    assert_eq!((corruption.problem.code(), corruption.at.unwrap().record), ("truncated_tail", 15));
    assert!(refused(&folder).contains("record 15"));
}

#[test]
fn the_chain_goes_on_from_segment_to_segment_and_a_missing_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = filled(&folder, 3_000, 10);
    assert!(log.end().segment >= 5, "{:?}", log.end());
    drop(log);
    assert_eq!(checked(&folder).unwrap().shares, 100);
    let Opened { log, .. } = open(&folder).unwrap();
    assert_eq!(log.next_share(), 101);
    drop(log);
    fs::rename(segment::path(folder.path(), 3), folder.path().join("elsewhere")).unwrap();
    for said in [refused(&folder), checked(&folder).unwrap_err().to_string()] {
        assert!(said.contains("0000000003.rgl: the file is missing"), "{said}");
    }
    // Another one in its place is not taken for it.
    fs::copy(segment::path(folder.path(), 2), segment::path(folder.path(), 3)).unwrap();
    assert!(refused(&folder).contains("it belongs to another file"));
}

#[test]
fn old_segments_go_when_everything_in_them_has_its_result_and_the_chain_has_no_gap() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, mut settled) = filled(&folder, 3_000, 10);
    let now = SystemTime::now();
    let much_later = now + Duration::from_secs(7_200);
    assert_eq!(log.retire(&settled, much_later).unwrap(), 0, "nothing has its result");
    // Shares of the first segments are answered; reading would go on behind them.
    let third = Segment::open(folder.path(), 3, &keys()).unwrap().position();
    (1..third.share).for_each(|share| push_result(&mut log, &mut settled, share));
    log.commit().unwrap();
    settled.handed_out(third);
    assert_eq!(log.retire(&settled, now).unwrap(), 0, "they are young");
    assert_eq!(log.retire(&settled, now - Duration::from_secs(7_200)).unwrap(), 0, "the clock went back");
    assert_eq!(log.retire(&settled, much_later).unwrap(), 2);
    drop(log);
    assert_eq!(segment::list(folder.path()).unwrap()[0], 3);
    let report = checked(&folder).unwrap();
    assert_eq!((report.shares, report.open), (101 - third.share, 101 - third.share));
    assert!(open(&folder).is_ok());
    // The oldest of those that are kept is missed like any other.
    fs::remove_file(segment::path(folder.path(), 3)).unwrap();
    assert!(refused(&folder).contains("0000000003.rgl: the file is missing"));
}

#[test]
fn another_key_signs_from_a_new_segment_on_and_both_are_needed_to_check() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, settled) = filled(&folder, 1 << 30, 1);
    let both = Keys::parse(&format!("a newer key of it\n{KEY}")).unwrap();
    assert!(log.rotate(Some(both.clone())).unwrap());
    push_share(&mut log);
    log.commit().unwrap();
    log.write_head(&settled).unwrap();
    drop(log);
    let ledger = Ledger::open(folder.path(), both).unwrap();
    assert_eq!(verify(&ledger).unwrap().shares, 11);
    let newer = Keys::parse("a newer key of it").unwrap();
    let error = Ledger::open(folder.path(), newer).and_then(|ledger| verify(&ledger)).unwrap_err();
    assert!(matches!(error.problem, Problem::OtherKey(_)), "{error}");
    assert!(error.to_string().contains("under the newer keys"), "{error}");
}

#[test]
fn a_full_disk_takes_nothing_and_the_log_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let before = filled(&folder, 1 << 30, 1).0.end();
    let fault = Fault::Full(1, 2);
    let Opened { mut log, settled, .. } = Log::open(config(&folder, 1 << 30), Some(keys()), fault).unwrap();
    for _ in 0..2 {
        push_share(&mut log);
        assert!(matches!(log.commit(), Err(CommitError::Refused(_))));
        assert_eq!((log.end(), log.next_share()), (before, 11));
    }
    push_share(&mut log);
    log.commit().unwrap();
    log.write_head(&settled).unwrap();
    drop(log);
    assert_eq!(checked(&folder).unwrap().shares, 11);
}

#[test]
fn after_a_sync_that_failed_the_log_is_broken() {
    let folder = tempfile::tempdir().unwrap();
    drop(filled(&folder, 1 << 30, 1));
    let Opened { mut log, .. } = Log::open(config(&folder, 1 << 30), Some(keys()), Fault::Sync(2)).unwrap();
    push_share(&mut log);
    log.commit().unwrap();
    push_share(&mut log);
    assert!(matches!(log.commit(), Err(CommitError::Broken(_))));
    drop(log);
    // What was acknowledged is there.
    assert_eq!(open(&folder).unwrap().log.next_share(), 12);
}

#[test]
fn a_folder_is_refused_when_it_is_in_use_of_a_former_version_without_head_or_read_only() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(&folder).unwrap();
    assert!(is_in_use(folder.path()));
    assert!(refused(&folder).contains("another gateway is using this ledger"));
    drop(first);
    assert!(!is_in_use(folder.path()));
    let fault = Log::open(config(&folder, 1 << 30), Some(keys()), Fault::ReadOnly);
    assert!(fault.err().unwrap().to_string().contains("read-only"));

    let mut former = File::create(folder.path().join(FORMER)).unwrap();
    assert!(open(&folder).is_ok(), "an empty one is none");
    former.write_all(b"{}\n").unwrap();
    assert!(refused(&folder).contains("let the version before forward what is open"));
    fs::remove_file(folder.path().join(FORMER)).unwrap();

    drop(filled(&folder, 1 << 30, 1));
    fs::remove_file(super::super::head::path(folder.path())).unwrap();
    assert!(refused(&folder).contains("head: the file is missing"));
}

#[test]
fn a_share_accepted_or_answered_twice_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, mut settled) = filled(&folder, 1 << 30, 1);
    push_result(&mut log, &mut settled, 4);
    let again = accepted(6);
    log.push(true, |out| again.encode(out));
    log.commit().unwrap();
    log.write_head(&settled).unwrap();
    let corruption = checked(&folder).unwrap_err();
    assert_eq!((corruption.problem.clone(), corruption.at.unwrap().record), (Problem::AcceptedTwice, 12));
    assert_eq!(corruption.share_id, Some(reversed(&accepted(6).share_id)));
    push_result(&mut log, &mut settled, 4);
    log.commit().unwrap();
    log.write_head(&settled).unwrap();
    let corruption = checked(&folder).unwrap_err();
    assert_eq!((corruption.problem.clone(), corruption.at.unwrap().record), (Problem::AnsweredTwice, 13));
}
