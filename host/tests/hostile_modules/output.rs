//! Guests that come back with something that is not a verdict: bad texts, bad pointers, bad numbers.

use super::{
    engine::{alone, asked_often, evaluate, holds, loaded},
    guest::{Guest, VERDICT, ZEROS, value, words},
    templates::with_fees,
};
use reservegrid::reason::Reason;

const LITTLE: u64 = 20_000;

fn invalid(guest: &Guest, words: &str) {
    holds(guest, LITTLE, Reason::PolicyOutputInvalid, words);
}

#[test]
fn a_well_formed_rejection_comes_through_as_it_is() {
    let _alone = alone();
    let entries: [(&[u8], [u8; 16]); 4] = [
        (b"flag", value(0, 1)),
        (b"count", value(1, u64::MAX)),
        (b"difference", value(2, u64::MAX)),
        (b"words", value(3, 4096 | 4 << 32)),
    ];
    let set = loaded(&Guest::rejecting(b"listed_code", b"fine", &entries), LITTLE);
    asked_often(&set, &with_fees([1, 2, 3]), |judgement| {
        assert_eq!(
            serde_json::to_string(&judgement.verdict).unwrap(),
            r#"{"accepted":false,"reason_code":"listed_code","reason_detail":"fine","policy_context":{"count":18446744073709551615,"difference":-1,"flag":true,"words":"fine"}}"#
        );
    });
}

#[test]
fn words_that_would_turn_the_direction_of_writing_are_shown_escaped() {
    let _alone = alone();
    let detail = "fee=\u{202e}001\u{202c} \u{2066}x\u{2028}\u{200f}".as_bytes();
    let mut guest = Guest::rejecting(b"listed_code", detail, &[]);
    guest.words[2] = "Good \u{202e}dab".as_bytes().to_vec();
    let set = loaded(&guest, LITTLE);
    let judgement = evaluate(&set, &with_fees([1]));
    assert_eq!(
        judgement.verdict.reason_detail.as_deref(),
        Some(r"fee=\u{202e}001\u{202c} \u{2066}x\u{2028}\u{200f}")
    );
    assert_eq!(set.policies()[0].info().summary, r"Good \u{202e}dab");
}

#[test]
fn a_code_that_is_not_of_the_form_of_a_code_does_not_get_through() {
    for code in [
        &b""[..],
        b"ab",
        b"Upper",
        b"evil\ncode",
        b"evil\x1b[31m",
        b"evil\0code",
        b"listed-code",
        b" listed_code",
        b"1isted_code",
        "listéd".as_bytes(),
        &[b'a'; 65],
    ] {
        invalid(&Guest::rejecting(code, b"fine", &[]), "is not of the form");
    }
}

#[test]
fn a_code_that_the_policy_did_not_list_does_not_get_through() {
    invalid(&Guest::rejecting(b"unlisted_code", b"fine", &[]), "not one of the codes");
    // Nor one of the gateway's own, which would put the blame elsewhere.
    invalid(&Guest::rejecting(b"policy_deadline_exceeded", b"fine", &[]), "not one of the codes");
}

#[test]
fn a_code_of_megabytes_is_cut_before_it_is_shown() {
    let mut guest = Guest::rejecting(b"x", b"fine", &[]);
    guest.data(VERDICT + 4, &words(&[65_536, 190_000]));
    invalid(&guest, "is not of the form");
}

#[test]
fn a_detail_that_is_no_short_line_does_not_get_through() {
    for (detail, words) in [
        (&b"red \x1b[31m"[..], "control character U+001B"),
        (b"two\nlines", "control character U+000A"),
        (b"nothing \0", "control character U+0000"),
        ("next\u{85}line".as_bytes(), "control character U+0085"),
        (&[b'x'; 513], "513 bytes long"),
        (b"\xff\xfe", ""),
        (b"\xc0\x80", ""),
        (b"\xed\xa0\x80", ""),
        (b"cut \xe2\x82", ""),
    ] {
        invalid(&Guest::rejecting(b"listed_code", detail, &[]), words);
    }
}

#[test]
fn a_detail_of_megabytes_is_not_copied() {
    let mut guest = Guest::rejecting(b"listed_code", b"", &[]);
    guest.memory = "600".into();
    guest.data(VERDICT + 12, &words(&[65_536, 32 << 20]));
    invalid(&guest, "");
    guest.data(VERDICT + 12, &words(&[65_536, 200_000]));
    invalid(&guest, "200000 bytes long");
}

#[test]
fn context_entries_without_number_do_not_get_through() {
    let entry = (&b"entry"[..], value(0, 0));
    invalid(&Guest::rejecting(b"listed_code", b"fine", &[entry; 17]), "17 context entries");
    let mut guest = Guest::rejecting(b"listed_code", b"fine", &[entry]);
    guest.data(VERDICT + 20, &words(&[16_384, 5000]));
    invalid(&guest, "5000 context entries");
    for many in [1_000_000, 0x1000_0000, u32::MAX] {
        guest.data(VERDICT + 20, &words(&[16_384, many]));
        invalid(&guest, "");
    }
}

#[test]
fn a_context_entry_that_is_malformed_does_not_get_through() {
    let twice = [(&b"entry"[..], value(0, 0)), (&b"entry"[..], value(0, 1))];
    invalid(&Guest::rejecting(b"listed_code", b"fine", &twice), "is given twice");
    for (name, value, words) in [
        (&b"Entry"[..], value(0, 0), "the context name"),
        (b"", value(0, 0), "the context name"),
        (b"a\x07b", value(0, 0), "the context name"),
        (b"\xff\xff\xff", value(0, 0), ""),
        (b"entry", value(4, 0), ""),
        (b"entry", value(255, 0), ""),
        (b"entry", value(3, 65_536 | 257 << 32), "257 bytes long"),
        (b"entry", value(3, 65_536 | 9 << 32), "control character"),
        (b"entry", value(3, 0xffff_0000 | 9 << 32), ""),
        (b"entry", value(3, 65_536 | 0xffff_ffff << 32), ""),
    ] {
        invalid(&Guest::rejecting(b"listed_code", b"fine", &[(name, value)]), words);
    }
}

#[test]
fn a_boolean_is_any_number_and_means_yes() {
    let _alone = alone();
    let set = loaded(&Guest::rejecting(b"listed_code", b"fine", &[(b"entry", value(0, 0xff))]), LITTLE);
    asked_often(&set, &with_fees([1]), |judgement| {
        assert_eq!(serde_json::to_string(&judgement.verdict.policy_context).unwrap(), r#"{"entry":true}"#);
    });
}

#[test]
fn a_pointer_to_nowhere_is_no_verdict() {
    for at in ["-4", "-1", "2", "1025", "262120", "262144", "2147483647"] {
        invalid(&Guest::evaluating(&format!("i32.const {at}")), "");
    }
}

#[test]
fn a_verdict_that_the_contract_does_not_have_is_no_verdict() {
    for discriminant in [2, 7, 255] {
        let mut guest = Guest::rejecting(b"listed_code", b"fine", &[]);
        guest.data(VERDICT, &[discriminant]);
        invalid(&guest, "");
    }
}

#[test]
fn texts_and_lists_outside_the_memory_are_no_verdict() {
    for (field, at, length) in [
        (4, u32::MAX, 3),
        (4, 262_142, 3),
        (4, 0x8000_0000, 0x8000_0000),
        (12, 262_144, 1),
        (12, 4096, u32::MAX),
        (20, u32::MAX - 7, 1),
        (20, 16_385, 1),
        (20, 262_136, 1),
    ] {
        let mut guest = Guest::rejecting(b"listed_code", b"fine", &[]);
        guest.data(VERDICT + field, &words(&[at, length]));
        invalid(&guest, "");
    }
}

#[test]
fn what_post_return_writes_comes_too_late() {
    let _alone = alone();
    let guest =
        Guest { post_return: format!("(i32.store8 (i32.const {ZEROS}) (i32.const 1))"), ..Guest::default() };
    let set = loaded(&guest, LITTLE);
    asked_often(&set, &with_fees([1]), |judgement| assert!(judgement.verdict.accepted));
}
