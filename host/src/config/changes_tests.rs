//! What a reload takes over, and what waits.

use super::*;
use crate::config::tests::{GOOD, SECRETS, parse};

/// What takes effect and what waits when a gateway that runs with `old` reads `new`.
pub(in crate::config) fn changes(old: &Config, new: &Config) -> (Vec<String>, Vec<String>) {
    let Changes { taken, waiting } = old.changes(old, new);
    (taken, waiting)
}

#[test]
fn keys_that_take_effect_and_keys_that_wait_are_named_and_policies_are_not_among_them() {
    let nothing = || (Vec::<String>::new(), Vec::<String>::new());
    let old = parse(GOOD, &SECRETS).expect("loads");
    assert_eq!(changes(&old, &old), nothing());
    let text = GOOD
        .replace("127.0.0.1:34255", "127.0.0.1:34256")
        .replace("kind = \"embedded\"", "kind = \"embedded\"\nrefresh = \"6s\"\nstale_after = \"4m\"")
        .replace("fee-floor.wasm", "other.wasm")
        .replace("[miners]", "[gate]\nhold_timeout = \"9s\"\n[swap]\nreplay = 3\n[miners]\nmax_channels = 7");
    let mut secrets = SECRETS;
    secrets[1].1 = "another secret of the pool";
    let new = parse(&text, &secrets).expect("loads");
    let (taken, waiting) = changes(&old, &new);
    assert_eq!(
        taken,
        [
            "[source] stale_after",
            "[gate] hold_timeout",
            "[swap] replay",
            "[miners] max_channels",
            "[pool] secret"
        ]
    );
    assert_eq!(waiting, ["[source] refresh", "[miners] listen"]);
    // Once it is in force, only what waits is left; and set back, that waits no more.
    assert_eq!(old.changes(&new, &new), Changes { taken: vec![], waiting });
    assert_eq!(old.changes(&new, &old).waiting, Vec::<String>::new());
    let shadow = parse(&GOOD.replace("inline", "shadow"), &SECRETS).expect("loads");
    assert_eq!(changes(&old, &shadow).1, ["mode"]);
    assert_eq!(changes(&shadow, &old).1, ["mode"]);
    let observe = parse(&GOOD.replace("inline", "observe"), &SECRETS).expect("loads");
    assert_eq!(changes(&old, &observe), nothing(), "it takes effect at once, and is told of by itself");
}
