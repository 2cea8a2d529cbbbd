//! What can be repaired, what that says, and what is left alone.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::{
    super::log::tests::{change, checked, filled, keys, open, push_result, records, refused},
    *,
};
use tempfile::TempDir;

fn look(folder: &TempDir) -> Checked<Repair> {
    Repair::look(folder.path(), keys(), None)
}

/// What is wrong; fails when there is nothing to repair.
fn fault(repair: &Repair) -> &str {
    repair.findings.fault.as_deref().expect("there is something to repair")
}

fn truncate(folder: &TempDir, length: u64) {
    change(folder, |bytes| bytes.truncate(usize::try_from(length).unwrap()));
}

#[test]
fn a_ledger_that_a_gateway_can_use_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let log = filled(&folder, 3_000, 10).0;
    let said = look(&folder).err().unwrap().to_string();
    assert!(said.contains("another gateway is using this ledger"), "{said}");
    drop(log);
    let repair = look(&folder).unwrap();
    assert_eq!(repair.findings.fault, None);
    assert_eq!(repair.findings.report.as_ref().unwrap().shares, 100);
    // A torn write is the start's own business.
    drop(repair);
    let last = *segment::list(folder.path()).unwrap().last().unwrap();
    let path = segment::path(folder.path(), last);
    let torn = [fs::read(&path).unwrap(), vec![7; 30]].concat();
    fs::write(&path, torn).unwrap();
    assert_eq!(look(&folder).unwrap().findings.fault, None);
}

#[test]
fn a_lost_or_damaged_head_is_made_anew_and_no_answered_share_is_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, mut settled) = filled(&folder, 1 << 30, 200);
    for share in (1..=1_200).chain([1_500, 1_501, 1_999]) {
        push_result(&mut log, &mut settled, share);
    }
    log.commit().unwrap();
    drop(log);
    let head = head::path(folder.path());
    let whole = fs::read(&head).unwrap();
    for damaged in [None, Some(&b"\0\0\0\0"[..]), Some(&[0xff; 90][..]), Some(&whole[..whole.len() / 2])] {
        match damaged {
            None => fs::remove_file(&head).unwrap(),
            Some(bytes) => fs::write(&head, bytes).unwrap(),
        }
        assert!(refused(&folder).contains("ledger repair"), "{}", refused(&folder));
        let repair = look(&folder).unwrap();
        assert!(fault(&repair).contains("head: "), "{}", fault(&repair));
        let words = repair.findings.unproved.join("\n");
        assert!(words.contains("behind record 3203"), "{words}");
        assert!(words.contains("The pool's books can tell") && repair.findings.lost.is_empty());
        let there = fs::read(&head).ok();
        assert_eq!(there.as_deref(), damaged, "looking changed something");
        let written = repair.write().unwrap();
        assert_eq!(written.len(), if damaged.is_some() { 3 } else { 2 }, "{written:?}");
        if let Some(damaged) = damaged {
            assert_eq!(fs::read(&written[1]).unwrap(), damaged, "the head of before is kept");
        }
        assert!(fs::read_to_string(&written[0]).unwrap().contains("CANNOT BE PROVED"));
        drop(repair);
        let report = checked(&folder).unwrap();
        assert_eq!((report.shares, report.open), (2_000, 797));
        let opened = open(&folder).unwrap();
        assert_eq!((opened.log.next_share(), opened.settled.answered()), (2_001, 1_203));
        for share in 1..=2_000 {
            let answered = share <= 1_200 || [1_500, 1_501, 1_999].contains(&share);
            assert_eq!(opened.settled.is_settled(share), answered, "share {share}");
        }
        let resume = opened.settled.resume().share;
        assert!(resume > 1_200 - STEP && resume <= 1_201, "a restart reads from share {resume} on");
    }
}

#[test]
fn segments_that_retention_removed_count_as_answered_and_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, mut settled) = filled(&folder, 3_000, 10);
    let third = Segment::open(folder.path(), 3, &keys()).unwrap().position();
    (1..third.share).for_each(|share| push_result(&mut log, &mut settled, share));
    log.commit().unwrap();
    settled.handed_out(third);
    let later = std::time::SystemTime::now() + Duration::from_secs(7_200);
    assert_eq!(log.retire(&settled, later).unwrap(), 2);
    drop(log);
    fs::remove_file(head::path(folder.path())).unwrap();
    let repair = look(&folder).unwrap();
    let words = repair.findings.unproved.join("\n");
    assert!(words.contains("the 2 file(s) before 0000000003"), "{words}");
    repair.write().unwrap();
    drop(repair);
    let opened = open(&folder).unwrap();
    assert_eq!((opened.log.next_share(), opened.settled.answered()), (101, third.share - 1));
}

#[test]
fn records_that_are_missing_at_the_end_are_counted_and_then_the_ledger_goes_on_without_them() {
    let folder = tempfile::tempdir().unwrap();
    drop(filled(&folder, 1 << 30, 2));
    let records = records(&folder);
    // At the end of a record and in the middle of one.
    for (length, torn) in [(records[14].1, 0), (records[13].1 + 9, 9)] {
        truncate(&folder, length);
        let repair = look(&folder).unwrap();
        assert!(
            fault(&repair).contains("everything before record 21 had been durable"),
            "{}",
            fault(&repair)
        );
        let last = if torn > 0 { 14 } else { 15 };
        let lost = &repair.findings.lost[0];
        let expected = format!("{} record(s), {} to 20: everything after record {last}", 20 - last, last + 1);
        assert!(lost.contains(&expected) && lost.contains(&format!("{} share(s)", 20 - last)), "{lost}");
        assert_eq!(repair.findings.unproved.len(), usize::from(torn > 0), "{:?}", repair.findings);
        assert_eq!(repair.torn.len(), torn);
        assert_eq!(repair.findings.report.as_ref().unwrap().shares, last);
    }
    let repair = look(&folder).unwrap();
    let written = repair.write().unwrap();
    assert_eq!(fs::read(&written[1]).unwrap().len(), 9, "the torn bytes are kept: {written:?}");
    drop(repair);
    let opened = open(&folder).unwrap();
    assert_eq!((opened.log.next_share(), opened.cut.is_some()), (15, true));
    drop(opened);
    assert_eq!(checked(&folder).unwrap().shares, 14);
}

#[test]
fn what_the_chain_shows_to_be_changed_is_not_repaired_with_or_without_a_head() {
    let folder = tempfile::tempdir().unwrap();
    let log = filled(&folder, 3_000, 10).0;
    let segments = log.end().segment;
    drop(log);
    let (begin, _) = records(&folder)[6];
    let flip = |bytes: &mut Vec<u8>| bytes[usize::try_from(begin).unwrap() + 40] ^= 1;
    change(&folder, flip);
    assert!(look(&folder).err().unwrap().to_string().contains("0000000001.rgl, record 7"));
    let head = fs::read(head::path(folder.path())).unwrap();
    fs::remove_file(head::path(folder.path())).unwrap();
    assert!(look(&folder).err().unwrap().to_string().contains("0000000001.rgl, record 7"));
    change(&folder, flip);
    // A segment that is missing in the middle.
    let (there, elsewhere) = (segment::path(folder.path(), 3), folder.path().join("elsewhere"));
    fs::rename(&there, &elsewhere).unwrap();
    assert!(look(&folder).err().unwrap().to_string().contains("0000000003.rgl: the file is missing"));
    fs::rename(&elsewhere, &there).unwrap();
    // The last ones, which a head still knows of.
    fs::write(head::path(folder.path()), head).unwrap();
    for number in segments - 1..=segments {
        fs::remove_file(segment::path(folder.path(), number)).unwrap();
    }
    let repair = look(&folder).unwrap();
    assert!(repair.findings.lost[0].contains("to 100: everything after record"), "{:?}", repair.findings);
}

#[test]
fn a_file_that_is_missing_with_no_record_in_it_is_no_loss_of_records() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, settled) = filled(&folder, 1 << 30, 2);
    assert!(log.rotate(Some(keys())).unwrap());
    log.write_head(&settled).unwrap();
    drop(log);
    fs::remove_file(segment::path(folder.path(), 2)).unwrap();
    let repair = look(&folder).unwrap();
    assert!(repair.findings.lost[0].contains("in which no record stood yet"), "{:?}", repair.findings);
    repair.write().unwrap();
    drop(repair);
    assert_eq!(open(&folder).unwrap().log.next_share(), 21);
}

#[test]
fn a_head_of_another_ledger_with_the_same_key_is_not_written_over() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    drop(filled(&folder, 1 << 30, 2));
    drop(filled(&other, 1 << 30, 2));
    fs::copy(head::path(other.path()), head::path(folder.path())).unwrap();
    let said = look(&folder).err().unwrap().to_string();
    assert!(said.contains("head: ") && said.contains("other records than those that are here"), "{said}");
}
