//! The keys as they are explained, and that their defaults are what they say.

use super::*;
use crate::config::{
    SECTIONS, Source,
    changes::tests::changes,
    tests::{GOOD, SECRETS, environment, parse},
};
use std::{collections::BTreeSet, time::Duration};

#[test]
fn every_default_is_a_value_of_its_key() {
    let config = parse(GOOD, &SECRETS).expect("a value for every key that was left out");
    assert_eq!(config.gate.verdict_timeout, Duration::from_millis(50));
    assert_eq!(config.gate.hold_timeout, Duration::from_secs(5));
    assert_eq!(config.coinbase.tag, "/ReserveGrid/");
    assert_eq!(config.coinbase.payout, Config::anyone_can_spend().into());
    assert_eq!(config.policies[0].fuel, 10_000_000);
    let node = include_str!("../../../examples/shadow.toml");
    let Source::Node(node) = parse(node, &[]).expect("loads").source else { panic!("a node") };
    assert_eq!((node.request_timeout, node.stale_after), (Duration::from_secs(10), Duration::from_secs(180)));
}

#[test]
fn no_key_has_the_name_of_another_in_its_section_and_every_key_has_a_sentence() {
    for (section, lists) in SECTIONS {
        for list in *lists {
            let names: BTreeSet<_> = list.iter().map(|key| key.name).collect();
            assert_eq!(names.len(), list.len(), "[{section}]");
            assert!(list.iter().all(|key| key.doc.ends_with(['.', '"'])), "[{section}]");
        }
    }
}

#[test]
fn every_key_but_those_of_policies_has_a_variable_of_its_own() {
    let mut variables = BTreeSet::new();
    for key in keys() {
        match (&key.variable, key.section) {
            (None, "policy" | "backup") => {}
            (Some(variable), _) => assert!(variables.insert(variable.clone()), "{variable} is there twice"),
            (None, _) => panic!("{} has no variable", key.name()),
        }
        assert!(!key.kind.is_empty() && !key.default.is_empty() && key.meaning.ends_with(['.', '"']));
    }
    assert!(variables.contains("RESERVEGRID_MODE") && variables.contains("RESERVEGRID_GATE__HOLD_TIMEOUT"));
}

#[test]
fn the_defaults_are_a_configuration_that_changes_nothing() {
    let text = defaults();
    assert!(text.contains("verdict_timeout = \"50ms\"\n") && text.contains("workers = 2\n"), "{text}");
    let head = GOOD.split("[miners]").next().expect("a head");
    let miners = "[miners]\nlisten = \"127.0.0.1:34255\"\n";
    let all = text
        .replace("[miners]\n", miners)
        .replace("[pool]\n", "[pool]\nurl = \"http://127.0.0.1:8080/shares\"\nkey_id = \"k1\"\n")
        .replace("[ledger]\n", "[ledger]\ndir = \"ledger\"\n");
    let all = format!("{head}{all}");
    let written = parse(&all, &SECRETS).unwrap_or_else(|faults| panic!("{faults}\n{all}"));
    let plain = parse(GOOD, &SECRETS).expect("loads");
    assert_eq!(changes(&plain, &written), (vec![], vec![]));
}

#[test]
fn what_is_in_force_says_where_it_came_from_and_shows_no_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("gateway.toml");
    std::fs::write(&path, format!("{GOOD}[gate]\nhold_timeout = \"7s\"\n")).expect("written");
    let mut variables = SECRETS.to_vec();
    variables.push(("RESERVEGRID_GATE__VERDICT_TIMEOUT", "40ms"));
    let shown = in_force(&path, &environment(&variables)).expect("loads");
    let of = |key: &str| {
        let found = shown.iter().find(|value| value.key == key);
        let found = found.unwrap_or_else(|| panic!("{key} is not in {shown:#?}"));
        (found.value.as_str(), found.from.as_str())
    };
    let file = |place: &str| format!("{}:{place}", path.display());
    assert_eq!(of("[gate] hold_timeout"), ("7s", &*file("15:16")));
    assert_eq!(of("[gate] verdict_timeout"), ("40ms", "RESERVEGRID_GATE__VERDICT_TIMEOUT"));
    assert_eq!(of("[gate] held_shares"), ("accept", "default"));
    assert_eq!(of("[pool] secret"), ("(secret)", "RESERVEGRID_POOL__SECRET"));
    assert_eq!(of("policy \"fee-floor\": fuel"), ("10000000", "default"));
    for (_, secret) in SECRETS {
        assert!(!format!("{shown:?}").contains(secret));
    }
}
