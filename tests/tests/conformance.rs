//! The conformance table is true as far as a machine can tell: each of its lines names a test that is
//! there, or says what is missing.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use anyhow::{Context, Result, ensure};
use std::{fs, path::PathBuf};

const TABLE: &str = "CONFORMANCE.md";
/// Lines do not get lost.
const LINES: usize = 75;

fn here() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The source file of `wire/shares`, `host/miner/rate`, `host-tests/noise`, `load/crowd`.
fn file_of(module: &str) -> PathBuf {
    let (folder, rest) = match module.split_once('/') {
        Some(("host", rest)) => ("../host/src", rest),
        Some(("load", rest)) => ("load/tests", rest),
        Some(("host-tests", rest)) => ("../host/tests", rest),
        _ => ("tests", module),
    };
    here().join(folder).join(rest).with_extension("rs")
}

/// The lines of all tables, without their heads: the cells.
fn lines(text: &str) -> Vec<Vec<&str>> {
    let table = text.lines().filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'));
    let cells: Vec<Vec<&str>> = table.map(|line| line.split('|').map(str::trim).collect()).collect();
    let rule = |line: &Vec<&str>| line.iter().all(|cell| cell.bytes().all(|b| b == b'-'));
    let head = |at: usize| cells.get(at + 1).is_some_and(rule);
    let body = cells.iter().enumerate().filter(|(at, line)| !rule(line) && !head(*at));
    body.map(|(_, line)| line.clone()).collect()
}

#[test]
fn every_line_of_the_table_names_a_test_that_exists_or_says_what_is_missing() -> Result<()> {
    let text = fs::read_to_string(here().join(TABLE))?;
    let lines = lines(&text);
    ensure!(lines.len() >= LINES, "the table has {} lines; it had {LINES}", lines.len());
    for line in lines {
        let shown = line.last().context("a line without cells")?;
        let reason = ["**hole**: ", "**never**: "].iter().find_map(|mark| shown.strip_prefix(mark));
        if let Some(reason) = reason {
            ensure!(reason.len() > 10, "{line:?} does not say what is missing, or why");
            continue;
        }
        let tests: Vec<&str> = shown.split('`').map(str::trim).filter(|word| !word.is_empty()).collect();
        ensure!(!tests.is_empty(), "{line:?} names no test");
        for test in tests {
            let (module, name) = test.split_once("::").with_context(|| format!("{test} is no test"))?;
            let path = file_of(module);
            let source = fs::read_to_string(&path).with_context(|| format!("{test}: {}", path.display()))?;
            ensure!(source.contains(&format!("fn {name}(")), "{test} is not in {}", path.display());
        }
    }
    Ok(())
}

#[test]
fn every_message_and_every_rule_has_its_line() -> Result<()> {
    let text = fs::read_to_string(here().join(TABLE))?;
    let lines = lines(&text);
    let begins = |word: &str| lines.iter().any(|line| line[0].split([' ', ',']).any(|part| part == word));
    for rule in 1..=20 {
        ensure!(begins(&rule.to_string()), "rule {rule} has no line");
    }
    // Common messages, those of the mining protocol (0x1e does not exist), and of template distribution.
    let numbers = (0x00..=0x04).chain(0x10..=0x25).chain(0x70..=0x76);
    for number in numbers.filter(|number| *number != 0x1e) {
        ensure!(begins(&format!("0x{number:02x}")), "message 0x{number:02x} has no line");
    }
    Ok(())
}
