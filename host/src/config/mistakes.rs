//! Every mistake with every key, and what is said about it, word for word: `mistakes.txt` beside this file.
//! `make docs` writes it again; whoever changes a message sees all that it says.

use super::{
    tests::{GOOD, SECRETS, parse},
    *,
};
use std::fmt::Write;
use toml::{Table, Value};

/// What somebody may write instead of a value: of another type, of none, too small, too large, or like it.
const WRONG: [&str; 12] =
    ["''", "'nonsense'", "true", "-1", "0", "0.5", "99999999999999", "nan", "[]", "{}", "'0s'", "'1000000h'"];

/// The complete configuration of a gateway on a node.
fn node() -> String {
    let node = "kind = \"node\"\nurl = \"http://127.0.0.1:8332\"\nnetwork = \"regtest\"\ncookie_file = \"c\"";
    let coinbase = "[coinbase]\npayout_address = \"bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080\"\n";
    GOOD.replace("kind = \"embedded\"", node).replace("[[policy]]", &format!("{coinbase}[[policy]]"))
}

/// What is said when this key of a good configuration has this value, or is left out; `None` when nothing is.
fn said(base: &str, key: &Key, value: Option<Value>) -> Option<String> {
    let mut table: Table = base.parse().expect("good");
    let section = match key.section {
        "" => Some(&mut table),
        "policy" => table["policy"][0].as_table_mut(),
        section => table.entry(section).or_insert_with(|| Table::new().into()).as_table_mut(),
    };
    let section = section.expect("a section");
    match value {
        Some(value) => _ = section.insert(key.key.into(), value),
        None => _ = section.remove(key.key)?,
    }
    let faults = parse(&toml::to_string(&table).expect("TOML"), &SECRETS).err()?;
    let faults: Vec<_> = faults.iter().map(|fault| fault.message.as_str()).collect();
    Some(faults.join("\n        and: "))
}

#[test]
fn generated_every_mistake_with_every_key_is_answered_as_written() {
    let mut found = String::new();
    for key in keys() {
        // Whose key it is decides what it stands among.
        let foreign = said(GOOD, &key, Some(Value::Boolean(true)));
        let of_node = foreign.is_some_and(|said| said.contains("other kind of source"));
        let base = if of_node { node() } else { GOOD.to_owned() };
        let _ = writeln!(found, "{}", key.name());
        let mut tell = |wrong: &str, said: Option<String>| {
            let said = said.unwrap_or_else(|| "(fine)".into());
            let _ = writeln!(found, "    {wrong:<16} {said}");
        };
        for wrong in WRONG {
            let mut value: Table = format!("value = {wrong}").parse().expect("TOML");
            tell(wrong, said(&base, &key, value.remove("value")));
        }
        if let Some(said) = said(&base, &key, None) {
            tell("(left out)", Some(said));
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/mistakes.txt");
    if std::env::var_os("RESERVEGRID_WRITE_DOCS").is_some() {
        std::fs::write(&path, &found).expect("written");
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    for (line, (found, golden)) in (1..).zip(found.lines().zip(golden.lines())) {
        assert_eq!(
            found, golden,
            "mistakes.txt:{line}; if the new words are better, `make docs` writes them"
        );
    }
    assert_eq!(found.lines().count(), golden.lines().count(), "mistakes.txt is old; `make docs` writes it");
}
