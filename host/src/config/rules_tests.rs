//! What must be there, and what may not stand together.

use super::*;
use crate::config::{
    Switch,
    tests::{GOOD, SECRETS, faults, parse},
};

#[test]
fn two_policies_of_one_name_are_a_fault() {
    let listed = faults(
        &GOOD.replace("[miners]", "[[policy]]\nname = \"fee-floor\"\nmodule = \"b\"\n[miners]"),
        &SECRETS,
    );
    assert_eq!(
        listed,
        [r#"conf/gateway.toml:8:8: [[policy]] name: "fee-floor" is the name of the policy in line 4 too"#]
    );
}

#[test]
fn the_two_ways_into_a_node_cannot_be_mixed_or_left_half() {
    let node = |auth: &str, variables: &[(&str, &str)]| {
        let text = format!(
            "mode = \"shadow\"\n[source]\nkind = \"node\"\nurl = \"http://n:1\"\nnetwork = \"regtest\"\n{auth}\n\
             [coinbase]\npayout_address = \"bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080\"\n[[policy]]\nname = \"a\"\nmodule = \"a\"\n"
        );
        parse(&text, variables).map(|config| config.source).map_err(|faults| faults.to_string())
    };
    let password = ("RESERVEGRID_SOURCE__PASSWORD", "p");
    assert!(matches!(
        node("user = \"u\"", &[password]),
        Ok(Source::Node(NodeSource { auth: NodeAuth::Password { user, password }, .. })) if user == "u" && password.expose() == "p"
    ));
    assert!(matches!(
        node("cookie_file = \"c\"", &[]),
        Ok(Source::Node(NodeSource { auth: NodeAuth::Cookie(path), .. })) if path == Path::new("conf/c")
    ));
    for (auth, variables, says) in [
        (
            "user = \"u\"",
            &[][..],
            "conf/gateway.toml:2:2: [source] password: is missing; set RESERVEGRID_SOURCE__PASSWORD",
        ),
        ("", &[password], "conf/gateway.toml:2:2: [source] user: is missing"),
        (
            "cookie_file = \"c\"\nuser = \"u\"",
            &[password],
            "conf/gateway.toml:6:15: [source] cookie_file: stands beside user",
        ),
        (
            "cookie_file = \"c\"",
            &[password],
            "conf/gateway.toml:6:15: [source] cookie_file: stands beside user",
        ),
    ] {
        let error = node(auth, variables).unwrap_err();
        assert!(error.starts_with(says) && error.lines().count() == 1, "{auth}: {error}");
    }
}

#[test]
fn changing_the_mode_needs_no_other_key() {
    for mode in Mode::ALL {
        let config = parse(&GOOD.replace("inline", mode.name()), &SECRETS).expect("loads");
        assert_eq!((config.mode, config.serving.is_some()), (mode, mode.serves_miners()));
    }
}

#[test]
fn shadow_needs_nothing_for_miners_but_still_finds_typos_there() {
    let text = GOOD.replace("inline", "shadow").replace("listen", "lissen").replace("dir = \"ledger\"", "");
    assert_eq!(
        faults(&text, &[]),
        ["conf/gateway.toml:8:10: [miners] lissen: unknown key; did you mean listen?"]
    );
}

#[test]
fn a_verdict_may_not_take_longer_than_the_hold() {
    let text = format!("{GOOD}[gate]\nverdict_timeout = \"6s\"\n");
    assert_eq!(
        faults(&text, &SECRETS),
        [
            "conf/gateway.toml:15:19: [gate] verdict_timeout: is longer than hold_timeout; a verdict has to come before the hold ends"
        ]
    );
}

#[test]
fn users_are_known_in_one_way() {
    let with = |keys: &str| GOOD.replace("listen =", &format!("{keys}\nlisten ="));
    let both = with("users_file = \"users\"\nusers_url = \"http://127.0.0.1:1/\"");
    assert_eq!(
        faults(&both, &SECRETS),
        ["conf/gateway.toml:9:13: [miners] users_url: stands beside users_file; give one of the two ways"]
    );
    let file = parse(&with("users_file = \"users\""), &SECRETS).expect("a good configuration");
    let miners = file.serving.expect("inline serves miners").miners;
    assert_eq!(miners.users_file.as_deref(), Some(Path::new("conf/users")));
    assert_eq!((miners.vardiff, miners.min_difficulty), (Switch::On, 0.0001));
    let switch = with("vardiff = \"yes\"");
    assert_eq!(
        faults(&switch, &SECRETS),
        [r#"conf/gateway.toml:8:11: [miners] vardiff: "yes" is not a switch; write "on" or "off""#]
    );
}

#[test]
fn the_http_surface_is_open_to_others_only_with_a_token() {
    let text = |listen: &str| format!("{GOOD}[api]\nlisten = \"{listen}\"\n");
    for local in ["127.0.0.1:0", "127.8.8.8:80", "[::1]:80"] {
        let api = parse(&text(local), &SECRETS).expect("loads").api;
        assert!(api.listen.is_some() && api.token.is_none());
    }
    assert_eq!(
        faults(&text("0.0.0.0:8080"), &SECRETS),
        [
            "conf/gateway.toml:15:10: [api] listen: is no loopback address, so others can reach it: set RESERVEGRID_API__TOKEN, or name a file that holds a token with token_file"
        ]
    );
    let with =
        |token| parse(&text("0.0.0.0:8080"), &[&SECRETS[..], &[("RESERVEGRID_API__TOKEN", token)]].concat());
    assert!(with("0123456789abcdef").is_ok());
    for bad in ["short", "with spaces in between"] {
        let listed = with(bad).expect_err("refused").to_string();
        assert!(
            listed.starts_with("RESERVEGRID_API__TOKEN: [api] token: the secret is not a token"),
            "{listed}"
        );
        assert!(!listed.contains(bad), "{listed}");
    }
}

#[test]
fn a_policy_enforces_unless_it_is_to_be_monitored() {
    use crate::policy::Enforcement;
    let text = GOOD
        .replace("[miners]", "[[policy]]\nname = \"b\"\nmodule = \"b\"\nenforcement = \"monitor\"\n[miners]");
    let config = parse(&text, &SECRETS).expect("loads");
    let listed: Vec<_> = config.policies.iter().map(|policy| policy.enforcement).collect();
    assert_eq!(listed, [Enforcement::Enforce, Enforcement::Monitor]);
    assert_eq!(
        faults(&text.replace("\"monitor\"", "\"ignore\""), &SECRETS),
        [
            r#"conf/gateway.toml:10:15: [[policy]] enforcement: "ignore" is not a choice; write "enforce" or "monitor""#
        ]
    );
}

#[test]
fn inline_mode_wants_a_policy_that_enforces() {
    let monitored = GOOD.replace("[miners]", "enforcement = \"monitor\"\n[miners]");
    let found = faults(&monitored, &SECRETS);
    assert!(found.len() == 1 && found[0].contains("every [[policy]] is monitored"), "{found:?}");
    assert!(parse(&monitored.replace("inline", "observe"), &SECRETS).is_ok());
}

#[test]
fn the_tokens_of_the_http_surface_are_two_and_different() {
    let api = |listen: &str| format!("{GOOD}[api]\nlisten = \"{listen}\"\n");
    let with = |tokens: &[(&'static str, &'static str)]| [&SECRETS[..], tokens].concat();
    let token = ("RESERVEGRID_API__TOKEN", "0123456789abcdef");
    let read = |value| ("RESERVEGRID_API__READ_TOKEN", value);
    let good = parse(&api("0.0.0.0:1"), &with(&[token, read("fedcba9876543210")])).expect("loads");
    assert!(good.api.read_token.is_some());
    for (tokens, expected) in [
        (
            vec![read("fedcba9876543210")],
            "RESERVEGRID_API__READ_TOKEN: [api] read_token: stands alone, and without token everybody on this \
             machine may change things: set RESERVEGRID_API__TOKEN too",
        ),
        (
            vec![token, read("0123456789abcdef")],
            "RESERVEGRID_API__READ_TOKEN: [api] read_token: is the same as token; the one that only looks must \
             be another",
        ),
        (
            vec![token, read("short")],
            "RESERVEGRID_API__READ_TOKEN: [api] read_token: the secret is not a token of 16 to 256 printable \
             ASCII characters without spaces",
        ),
    ] {
        assert_eq!(faults(&api("127.0.0.1:1"), &with(&tokens)), [expected]);
    }
}
