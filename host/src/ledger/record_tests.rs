//! Records keep what they are given, and nothing else is one.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::event::{Event, Stamped};
use proptest::prelude::*;

/// A share with a number of its own.
pub(in super::super) fn accepted(number: u64) -> Accepted<'static> {
    let mut share_id = [0x5a; 32];
    share_id[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    Accepted {
        time_ms: 1_700_000_000_000 + number,
        share_id,
        template: [1; 32],
        previous_block_hash: [2; 32],
        connection: 3,
        channel: 4,
        job: 5,
        height: 6,
        difficulty: 7.25,
        version: 0x2000_0000,
        ntime: 1_700_000_000,
        nonce: u32::try_from(number & 0xffff_ffff).unwrap(),
        extranonce: [9; EXTRANONCE_LEN],
        held: number.is_multiple_of(2),
        solves_block: false,
        user_identity: "alice.1",
        worker: number.is_multiple_of(3).then_some("rig-7"),
    }
}

fn body(encode: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out);
    out
}

#[test]
fn every_kind_comes_back_as_it_was() {
    for number in 0..6 {
        let record = accepted(number);
        let bytes = body(|out| record.encode(out));
        assert_eq!(Record::decode(&bytes), Some(Record::Accepted(record)));
    }
    let forwarded = Forwarded {
        time_ms: 1,
        share: 2,
        share_id: [3; 32],
        accepted: false,
        attempts: 4,
        detail: "account closed, ä",
    };
    assert_eq!(Record::decode(&body(|out| forwarded.encode(out))), Some(Record::Forwarded(forwarded)));
    let block = Block {
        time_ms: 1,
        share_id: [3; 32],
        height: 4,
        coinbase_value: 5,
        outcome: BlockOutcome::Rejected,
        user_identity: "bob",
        detail: "high-hash",
    };
    assert_eq!(Record::decode(&body(|out| block.encode(out))), Some(Record::Block(block)));
}

#[test]
fn the_json_of_a_record_is_the_json_of_its_event() {
    for number in 0..6 {
        let record = accepted(number);
        let told = Stamped { time_ms: record.time_ms, event: Event::ShareAccepted(record.event()) };
        let told = serde_json::to_value(told).unwrap();
        assert_eq!(serde_json::to_value(Record::Accepted(record).json()).unwrap(), told);
    }
    let record =
        Forwarded { time_ms: 1, share: 2, share_id: [3; 32], accepted: true, attempts: 4, detail: "" };
    let told = Stamped { time_ms: 1, event: Event::ShareForwardResult(record.event()) };
    let told = serde_json::to_value(told).unwrap();
    assert_eq!(serde_json::to_value(Record::Forwarded(record).json()).unwrap(), told);
}

#[test]
fn a_long_text_is_cut_at_a_character() {
    let text = "ä".repeat(5_000);
    let record = Accepted { user_identity: &text, worker: Some(&text), ..accepted(1) };
    let bytes = body(|out| record.encode(out));
    assert!(bytes.len() <= MAX_BODY);
    let Some(Record::Accepted(read)) = Record::decode(&bytes) else { panic!("it does not come back") };
    assert_eq!(read.user_identity, "ä".repeat(512));
}

proptest! {
    #[test]
    fn whatever_the_bytes_reading_them_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Record::decode(&bytes);
    }

    #[test]
    fn a_body_cut_short_or_too_long_is_no_record(number in any::<u64>(), cut in 1usize..100) {
        let bytes = body(|out| accepted(number).encode(out));
        prop_assert_eq!(Record::decode(&bytes[..bytes.len() - cut]), None);
        let longer = [&bytes[..], &[0]].concat();
        prop_assert_eq!(Record::decode(&longer), None);
    }
}
