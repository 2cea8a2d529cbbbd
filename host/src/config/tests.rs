//! What an operator is told: the messages are part of the product and compared word for word.

use super::*;
use std::collections::BTreeSet;

const SECRETS: [(&str, &str); 2] = [
    // base58check of 32 bytes 0x01
    ("RESERVEGRID_MINERS__AUTHORITY_SECRET", "SeLqn3UAUoRymWmwW7axrzJK7JfNaBR2cHCryA6cFsgFkHEF"),
    ("RESERVEGRID_POOL__SECRET", "0123456789abcdef"),
];

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

fn parse(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigFaults> {
    Config::parse(text, Path::new("conf/gateway.toml"), &environment(variables))
}

fn faults(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
    parse(text, variables)
        .expect_err("the configuration has faults")
        .to_string()
        .lines()
        .map(str::to_owned)
        .collect()
}

/// A complete configuration for miners, to be changed by a test.
const GOOD: &str = r#"mode = "inline"
[source]
kind = "embedded"
[[policy]]
name = "fee-floor"
module = "fee-floor.wasm"
[miners]
listen = "127.0.0.1:34255"
[pool]
url = "http://127.0.0.1:8080/shares"
key_id = "k1"
[ledger]
dir = "ledger"
"#;

#[test]
fn a_file_with_many_mistakes_has_them_all_listed_with_their_places() {
    let text = r#"mode = "inlin"
[source]
kind = "node"
url = "https://node:8332"
network = "main"
cookie_file = "c"
bits = "207fffff"
[coinbase]
payout_address = "bc1nonsense"
tag = "more than thirty-two characters of tag"
[gate]
verdict_timeout = 50
hold_timeout = "5 sec"
held_shares = "keep"
verdict_timout = "1s"
[[policy]]
name = "fee-floor"
module = "a.wasm"
fuel = "lots"
[[policy]]
name = "Fee Floor"
sha256 = "abc"
[gates]
x = 1
[miners]
listen = "34255"
max_connections = 0
authority_secret = "topsecret"
[pool]
secret_file = "does-not-exist"
[drain]
timeout = "1d"
"#;
    let expected = [
        r#"conf/gateway.toml:1:8: mode: "inlin" is not a mode; write "shadow", "observe" or "inline""#,
        r#"conf/gateway.toml:4:7: [source] url: "https://node:8332" asks for https, which the gateway does not speak; put a local proxy before the other side and write http://"#,
        r#"conf/gateway.toml:5:11: [source] network: "main" is not a network; write "mainnet", "testnet4", "signet" or "regtest""#,
        r#"conf/gateway.toml:7:8: [source] bits: belongs to the other kind of source; remove it, or change kind"#,
        r#"conf/gateway.toml:9:18: [coinbase] payout_address: "bc1nonsense" is not a Bitcoin address; was it copied whole?"#,
        r#"conf/gateway.toml:10:7: [coinbase] tag: "more than thirty-two characters of tag" is not a tag of at most 32 printable ASCII characters"#,
        r#"conf/gateway.toml:12:19: [gate] verdict_timeout: 50 is not a duration; write e.g. "50ms", "5s", "2m" or "1h""#,
        r#"conf/gateway.toml:13:16: [gate] hold_timeout: "5 sec" is not a duration; write e.g. "50ms", "5s", "2m" or "1h""#,
        r#"conf/gateway.toml:14:15: [gate] held_shares: "keep" is not a choice; write "accept" or "refuse""#,
        r#"conf/gateway.toml:15:18: [gate] verdict_timout: unknown key; did you mean verdict_timeout?"#,
        r#"conf/gateway.toml:19:8: [[policy]] fuel: "lots" is not a whole number from 0 without quotes, e.g. 100_000_000"#,
        r#"conf/gateway.toml:20:1: [[policy]] module: is missing; it is a path in quotes"#,
        r#"conf/gateway.toml:21:8: [[policy]] name: "Fee Floor" is not a name of lower case letters, digits and dashes; write e.g. "fee-floor""#,
        r#"conf/gateway.toml:22:10: [[policy]] sha256: "abc" is not a SHA-256 of 64 hexadecimal digits"#,
        r#"conf/gateway.toml:23:2: unknown section [gates]; did you mean [gate]?"#,
        r#"conf/gateway.toml:26:10: [miners] listen: "34255" is not an address and port; write e.g. "0.0.0.0:34255""#,
        r#"conf/gateway.toml:27:19: [miners] max_connections: 0 is not between 1 and 1000000"#,
        r#"conf/gateway.toml:28:20: [miners] authority_secret: a secret does not belong into the configuration file; set RESERVEGRID_MINERS__AUTHORITY_SECRET, or name a file that holds it with authority_secret_file"#,
        r#"conf/gateway.toml:32:11: [drain] timeout: "1d" is not a duration; write e.g. "50ms", "5s", "2m" or "1h""#,
    ];
    assert_eq!(faults(text, &[]), expected);
}

#[test]
fn a_bad_address_is_named_with_the_network_it_should_be_of() {
    let node = |network: &str, address: &str| {
        let text = format!(
            "mode = \"shadow\"\n[source]\nkind = \"node\"\nurl = \"http://n:1\"\nnetwork = \"{network}\"\ncookie_file = \"c\"\n\
             [coinbase]\npayout_address = \"{address}\"\n[[policy]]\nname = \"a\"\nmodule = \"a\"\n"
        );
        parse(&text, &[])
    };
    let mainnet = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4";
    assert!(node("mainnet", mainnet).is_ok());
    let other = node("regtest", mainnet).unwrap_err().to_string();
    assert_eq!(
        other,
        format!(
            "conf/gateway.toml:8:18: [coinbase] payout_address: \"{mainnet}\" is an address of another network than regtest, where the source is"
        )
    );
    let nonsense = node("mainnet", "bc1nonsense").unwrap_err().to_string();
    assert!(
        nonsense.starts_with(
            "conf/gateway.toml:8:18: [coinbase] payout_address: \"bc1nonsense\" is not a Bitcoin address"
        ),
        "{nonsense}"
    );
}

#[test]
fn what_is_missing_is_listed_with_what_to_do() {
    let text = "mode = \"observe\"\n[source]\nkind = \"node\"\n[miners]\n";
    assert_eq!(
        faults(text, &[]),
        [
            r#"conf/gateway.toml:2:2: [source] cookie_file: is missing; give the node's cookie file, or user and a password"#,
            r#"conf/gateway.toml:2:2: [source] network: is missing; it is a network; write "mainnet", "testnet4", "signet" or "regtest""#,
            r#"conf/gateway.toml:2:2: [source] url: is missing; it is a URL; write e.g. "http://127.0.0.1:8332""#,
            r#"conf/gateway.toml:4:2: [miners] authority_secret: is missing; set RESERVEGRID_MINERS__AUTHORITY_SECRET, or name a file that holds it with authority_secret_file (`reservegrid keys generate` makes one)"#,
            r#"conf/gateway.toml:4:2: [miners] listen: is missing; it is an address and port; write e.g. "0.0.0.0:34255""#,
            r#"conf/gateway.toml: [ledger] dir: is missing; it is a path in quotes"#,
            r#"conf/gateway.toml: [pool] key_id: is missing; it is text in quotes"#,
            r#"conf/gateway.toml: [pool] secret: is missing; set RESERVEGRID_POOL__SECRET, or name a file that holds it with secret_file (at least 16 bytes, the same as at the pool)"#,
            r#"conf/gateway.toml: [pool] url: is missing; it is a URL; write e.g. "http://127.0.0.1:8332""#,
            r#"conf/gateway.toml: there is no [[policy]]; a gateway without one would judge nothing"#,
        ]
    );
}

#[test]
fn a_bad_variable_is_named_instead_of_a_line() {
    let variables = [
        SECRETS[0],
        ("RESERVEGRID_POOL__SECRET", "short"),
        ("RESERVEGRID_GATE__HOLD_TIMEOUT", "50"),
        ("RESERVEGRID_MINERS__MAX_CONNECTIONS", "many"),
        ("RESERVEGRID_MINERS__LISTN", "0.0.0.0:1"),
        ("RESERVEGRID_MINER__LISTEN", "0.0.0.0:1"),
        ("RESERVEGRID_MINERS_LISTEN", "0.0.0.0:1"),
        ("RESERVEGRID_POLICY__NAME", "x"),
        ("RESERVEGRID_MODE", "on"),
        ("RESERVEGRID_BIN", "a variable of scripts"),
    ];
    assert_eq!(
        faults(GOOD, &variables),
        [
            r#"RESERVEGRID_GATE__HOLD_TIMEOUT: [gate] hold_timeout: "50" is not a duration; write e.g. "50ms""#,
            r#"RESERVEGRID_MINERS_LISTEN: is not read; write RESERVEGRID_MINERS__LISTEN"#,
            r#"RESERVEGRID_MINERS__LISTN: [miners] listn: unknown key; did you mean listen?"#,
            r#"RESERVEGRID_MINERS__MAX_CONNECTIONS: [miners] max_connections: "many" is not a whole number from 0 to 4294967295 without quotes, e.g. 512"#,
            r#"RESERVEGRID_MINER__LISTEN: unknown section [miner]; did you mean RESERVEGRID_MINERS__…?"#,
            r#"RESERVEGRID_MODE: mode: "on" is not a mode; write "shadow", "observe" or "inline""#,
            r#"RESERVEGRID_POLICY__NAME: policies are given in the file only"#,
        ]
    );
}

#[test]
fn a_secret_that_is_too_short_or_no_key_is_refused_without_being_shown() {
    let variables =
        [("RESERVEGRID_MINERS__AUTHORITY_SECRET", "not-a-key"), ("RESERVEGRID_POOL__SECRET", "short")];
    assert_eq!(
        faults(GOOD, &variables),
        [
            "RESERVEGRID_MINERS__AUTHORITY_SECRET: [miners] authority_secret: the secret is not an authority key; `reservegrid keys generate` makes one",
            "RESERVEGRID_POOL__SECRET: [pool] secret: the secret has 5 bytes; at least 16 are needed",
        ]
    );
}

#[test]
fn a_variable_goes_before_the_file_even_where_the_file_is_wrong() {
    let text = GOOD.replace("127.0.0.1:34255", "nonsense");
    let mut variables = SECRETS.to_vec();
    variables.push(("RESERVEGRID_MINERS__LISTEN", "[::1]:7"));
    variables.push(("RESERVEGRID_GATE__HOLD_TIMEOUT", "7s"));
    let config = parse(&text, &variables).expect("the variable stands in");
    assert_eq!(config.serving.expect("inline serves miners").miners.listen.to_string(), "[::1]:7");
    assert_eq!(config.gate.hold_timeout, Duration::from_secs(7));
}

#[test]
fn a_secret_in_the_file_is_a_fault_even_beside_its_variable() {
    let text = GOOD.replace("key_id", "secret = \"0123456789abcdef\"\nkey_id");
    let [fault] = &faults(&text, &SECRETS)[..] else { panic!("one fault") };
    assert_eq!(
        fault,
        "conf/gateway.toml:11:10: [pool] secret: a secret does not belong into the configuration file; set RESERVEGRID_POOL__SECRET, or name a file that holds it with secret_file"
    );
}

#[test]
fn a_secret_is_read_from_its_file_relative_to_the_configuration() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("gateway.toml");
    std::fs::write(folder.path().join("pool.key"), "a key of sixteen bytes\n").expect("writes");
    std::fs::write(&path, GOOD.replace("key_id", "secret_file = \"pool.key\"\nkey_id")).expect("writes");
    let config = Config::load_with(&path, &environment(&SECRETS[..1])).expect("loads");
    let serving = config.serving.expect("inline serves miners");
    assert_eq!(serving.pool.secret.expose(), "a key of sixteen bytes");
    assert_eq!(serving.ledger.dir, folder.path().join("ledger"));
    assert_eq!(config.policies[0].module, folder.path().join("fee-floor.wasm"));
    let short =
        Config::load_with(&path, &environment(&[SECRETS[0], SECRETS[1]])).expect("the variable goes first");
    assert_eq!(short.serving.expect("serves").pool.secret.expose(), SECRETS[1].1);

    std::fs::remove_file(folder.path().join("pool.key")).expect("removes");
    let missing = Config::load_with(&path, &environment(&SECRETS[..1])).unwrap_err().to_string();
    assert!(
        missing.contains(":11:15: [pool] secret_file: ") && missing.contains("pool.key cannot be read"),
        "{missing}"
    );
}

#[test]
fn broken_toml_is_listed_with_its_line_and_hides_nothing_else() {
    let text =
        GOOD.replace("name = \"fee-floor\"", "name = \"fee-floor").replace("key_id = \"k1\"", "key_id = 1");
    let listed = faults(&text, &SECRETS);
    assert!(
        listed[0].starts_with("conf/gateway.toml:5:") && listed[0].contains("TOML syntax: "),
        "{listed:#?}"
    );
    assert_eq!(
        listed[1..],
        ["conf/gateway.toml:11:10: [pool] key_id: 1 is not text in quotes"],
        "{listed:#?}"
    );
}

#[test]
fn a_key_written_twice_is_a_fault() {
    let listed = faults(&GOOD.replace("dir = \"ledger\"", "dir = \"ledger\"\ndir = \"other\""), &SECRETS);
    assert_eq!(listed, ["conf/gateway.toml:14:1: TOML syntax: duplicate key"]);
}

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
fn settings_of_a_policy_arrive_as_they_were_written() {
    let text = GOOD.replace(
        "[miners]",
        "[policy.settings]\nmin_avg_fee = 2_00\nshare = 0.5\ntiers = [{ name = \"low\", floor = 0x10 }]\nstrict = true\n[miners]",
    );
    let config = parse(&text, &SECRETS).expect("loads");
    let expected = serde_json::json!({
        "min_avg_fee": 200, "share": 0.5, "tiers": [{ "name": "low", "floor": 16 }], "strict": true
    });
    assert_eq!((&config.policies[0].settings, config.policies[0].line), (&expected, 4));
}

#[test]
fn every_default_is_a_value_of_its_key() {
    let config = parse(GOOD, &SECRETS).expect("a value for every key that was left out");
    assert_eq!(config.gate.verdict_timeout, Duration::from_millis(50));
    assert_eq!(config.gate.hold_timeout, Duration::from_secs(5));
    assert_eq!(config.coinbase.tag, "/ReserveGrid/");
    assert_eq!(config.coinbase.payout, Config::anyone_can_spend());
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
fn the_examples_load() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    for (name, mode, policies) in [
        ("shadow", Mode::Shadow, 4),
        ("observe", Mode::Observe, 4),
        ("inline", Mode::Inline, 5),
        ("demo", Mode::Inline, 3),
    ] {
        let path = folder.join(name).with_extension("toml");
        let config =
            Config::load_with(&path, &environment(&SECRETS)).unwrap_or_else(|faults| panic!("{faults}"));
        assert_eq!((config.mode, config.policies.len()), (mode, policies), "{name}");
    }
}

#[test]
fn a_file_that_is_not_there_is_one_fault() {
    let faults = Config::load_with(Path::new("no/such.toml"), &Environment::new()).unwrap_err();
    assert!(
        faults.to_string().starts_with("no/such.toml: the configuration file cannot be read: "),
        "{faults}"
    );
    assert_eq!(faults.iter().count(), 1);
}

#[test]
fn no_secret_is_in_the_debug_text_of_a_configuration() {
    let config = parse(GOOD, &SECRETS).expect("loads");
    let text = format!("{config:?}");
    assert!(SECRETS.iter().all(|(_, secret)| !text.contains(secret)), "{text}");
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
fn keys_that_wait_for_a_restart_are_named_and_policies_are_not_among_them() {
    let old = parse(GOOD, &SECRETS).expect("loads");
    assert_eq!(old.restart_keys(&old), Vec::<String>::new());
    let text = GOOD
        .replace("127.0.0.1:34255", "127.0.0.1:34256")
        .replace("kind = \"embedded\"", "kind = \"embedded\"\nrefresh = \"6s\"")
        .replace("fee-floor.wasm", "other.wasm")
        .replace("[miners]", "[gate]\nhold_timeout = \"9s\"\n[swap]\nreplay = 3\n[miners]");
    let mut secrets = SECRETS;
    secrets[1].1 = "another secret of the pool";
    let new = parse(&text, &secrets).expect("loads");
    assert_eq!(
        old.restart_keys(&new),
        ["[source] refresh", "[gate] hold_timeout", "[swap] replay", "[miners] listen", "[pool] secret"]
    );
    let shadow = parse(&GOOD.replace("inline", "shadow"), &SECRETS).expect("loads");
    assert_eq!(old.restart_keys(&shadow), ["mode"]);
    assert_eq!(shadow.restart_keys(&old), ["mode"]);
    let observe = parse(&GOOD.replace("inline", "observe"), &SECRETS).expect("loads");
    assert_eq!(old.restart_keys(&observe), Vec::<String>::new(), "it takes effect at once");
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
fn miners_are_sent_to_a_host_and_a_port() {
    let with = |place: &str| GOOD.replace("34255\"\n", &format!("34255\"\nreconnect = \"{place}\"\n"));
    for (text, host) in [
        ("pool.example:34254", "pool.example"),
        ("192.0.2.7:34254", "192.0.2.7"),
        ("[2001:db8::7]:34254", "2001:db8::7"),
    ] {
        let serving = parse(&with(text), &SECRETS).expect("loads").serving.expect("miners");
        let reconnect = serving.miners.reconnect.expect("somewhere");
        assert_eq!((reconnect.host.as_str(), reconnect.port), (host, 34_254));
    }
    let long = faults(&with(&format!("{}:1", "h".repeat(256))), &SECRETS);
    assert!(long.len() == 1 && long[0].contains("is not a host and its port"), "{long:?}");
    for text in
        ["pool.example", "pool.example:", ":34254", "pool.example:0", "pool.example:70000", "a pool:1"]
    {
        assert_eq!(
            faults(&with(text), &SECRETS),
            [format!(
                r#"conf/gateway.toml:9:13: [miners] reconnect: "{text}" is not a host and its port in quotes, e.g. "pool.example:34254""#
            )]
        );
    }
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

#[test]
fn the_rotation_of_the_event_file_has_its_bounds() {
    let text = format!("{GOOD}[events]\nrotate_size = \"12\"\nrotate_age = \"2y\"\nkeep = -1\n");
    assert_eq!(
        faults(&text, &SECRETS),
        [
            "conf/gateway.toml:15:15: [events] rotate_size: \"12\" is not a size; write e.g. \"512KiB\", \
             \"64MiB\" or \"1GiB\"",
            "conf/gateway.toml:16:14: [events] rotate_age: \"2y\" is not a duration; write e.g. \"50ms\", \
             \"5s\", \"2m\" or \"1h\"",
            "conf/gateway.toml:17:8: [events] keep: -1 is not a whole number from 0 to 4294967295 without \
             quotes, e.g. 512",
        ]
    );
    let text = format!("{GOOD}[events]\nrotate_size = \"1KiB\"\nrotate_age = \"9000h\"\n");
    assert_eq!(
        faults(&text, &SECRETS),
        ["conf/gateway.toml:16:14: [events] rotate_age: \"9000h\" is not between 0s and 8760h"]
    );
}

#[test]
fn every_key_but_those_of_lists_has_a_variable_of_its_own() {
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
    assert_eq!(plain.restart_keys(&written), [""; 0]);
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
