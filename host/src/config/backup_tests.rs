//! Several sources in the configuration: what an operator may write, and what is said of mistakes.

use super::*;

/// A complete configuration with one source, and the first line after it.
const ONE: &str = r#"mode = "shadow"
[source]
kind = "node"
url = "http://n:1"
network = "mainnet"
cookie_file = "c"
[coinbase]
payout_address = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"
[[policy]]
name = "a"
module = "a"
"#;

fn parse(more: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigFaults> {
    let variables = variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    Config::parse(&format!("{ONE}{more}"), Path::new("conf/gateway.toml"), &variables)
}

fn faults(more: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let faults = parse(more, variables).expect_err("the configuration has faults").to_string();
    faults.lines().map(str::to_owned).collect()
}

const SECOND: &str = "[[backup]]\nname = \"second\"\nkind = \"node\"\nurl = \"http://n:2\"\n\
                      network = \"mainnet\"\ncookie_file = \"d\"\n";

#[test]
fn one_source_needs_no_more_than_before_and_others_follow_in_the_order_of_the_file() {
    let one = parse("", &[]).expect("loads");
    assert_eq!((&*one.source_name, one.backups.len()), ("main", 0));
    let third = SECOND.replace("second", "third").replace("n:2", "n:3");
    let three = parse(&format!("{SECOND}{third}[failover]\nreturn_after = \"1m\"\n"), &[]).expect("loads");
    let names: Vec<_> = three.backups.iter().map(|backup| &*backup.name).collect();
    assert_eq!(names, ["second", "third"]);
    assert_eq!(three.failover.return_after, Duration::from_secs(60));
    assert_eq!(three.failover.disagree_after, Duration::from_secs(5));
    let Source::Node(node) = &three.backups[1].source else { panic!("no node") };
    assert_eq!(node.url.as_str(), "http://n:3/");
    assert_eq!(one.changes(&one, &three).waiting, ["[[backup]], their number", "[failover] return_after"]);
    let moved = parse(&SECOND.replace("n:2", "n:9"), &[]).expect("loads");
    let two = parse(SECOND, &[]).expect("loads");
    assert_eq!(two.changes(&two, &moved).waiting, ["backup \"second\": url"]);
}

#[test]
fn every_mistake_in_a_backup_is_named_with_its_line() {
    let more = r#"[[backup]]
name = "main"
kind = "node"
url = "http://n:2"
network = "signet"
cookie_file = "d"
[[backup]]
name = "second"
kind = "embedded"
[[backup]]
kind = "node"
[[backup]]
name = "third"
kind = "node"
url = "http://n:4"
network = "mainnet"
user = "u"
zmq_hashblock = "127.0.0.1:28332"
proposal = "yes"
[[backup]]
name = "fourth"
kind = "node"
url = "http://n:5"
network = "mainnet"
user = "u"
password = "in the file"
urll = "x"
[failover]
disagree_after = "0s"
"#;
    assert_eq!(
        faults(more, &[("RESERVEGRID_BACKUP__URL", "http://n:9")]),
        [
            r#"conf/gateway.toml:13:8: [[backup]] name: "main" is the name of [source] too"#,
            r#"conf/gateway.toml:16:11: [[backup]] network: is another one than that of [source]"#,
            r#"conf/gateway.toml:20:8: [[backup]] kind: nothing can stand in for the embedded chain or a replay, nor they for anything else"#,
            r#"conf/gateway.toml:21:1: [[backup]] name: is missing; it is text in quotes"#,
            r#"conf/gateway.toml:23:1: [[backup]] password: is missing; name a file that holds it with password_file"#,
            r#"conf/gateway.toml:29:17: [[backup]] zmq_hashblock: "127.0.0.1:28332" is not a ZMQ address; write e.g. "tcp://127.0.0.1:28332""#,
            r#"conf/gateway.toml:30:12: [[backup]] proposal: "yes" is not a choice; write "off", "watch" or "gate""#,
            r#"conf/gateway.toml:37:12: [[backup]] password: a secret does not belong into the configuration file; name a file that holds it with password_file"#,
            r#"conf/gateway.toml:38:8: [[backup]] urll: unknown key; did you mean url?"#,
            r#"conf/gateway.toml:40:18: [failover] disagree_after: "0s" is not between 100ms and 1h"#,
            "RESERVEGRID_BACKUP__URL: backups are given in the file only",
        ]
    );
}

#[test]
fn a_backup_that_is_no_list_says_so() {
    assert_eq!(
        faults("[backup]\nname = \"x\"\n", &[]),
        ["conf/gateway.toml:12:2: backups are a list; begin each with [[backup]]"]
    );
}
