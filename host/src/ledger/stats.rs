//! `reservegrid ledger stats`: what was accepted and paid, by user, channel and hour.

use super::{corrupt::Corruption, read::Ledger, record::Record};
use serde::Serialize;
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

const HOUR_MS: u64 = 3_600_000;

/// What the rows are about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct By {
    /// One row for each user identity.
    pub user: bool,
    /// For each channel: its connection and its number on it.
    pub channel: bool,
    /// For each hour, by the time a share was accepted.
    pub hour: bool,
}

/// What tells rows apart; what is not asked for is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Key {
    /// Beginning of the hour, Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hour: Option<u64>,
    /// Who mined.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_identity: Option<String>,
    /// Number of the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection: Option<u64>,
    /// The channel's id on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<u32>,
}

/// One row.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Sum {
    /// Shares accepted.
    pub shares: u64,
    /// The sum of their difficulties.
    pub difficulty: f64,
    /// Shares that the pool took.
    pub forward_accepted: u64,
    /// The sum of their difficulties.
    pub paid_difficulty: f64,
    /// Shares that the pool refused.
    pub forward_rejected: u64,
    /// Shares without a result.
    pub open: u64,
    /// Shares that solve their block.
    pub blocks: u64,
}

/// The rows in order.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct Table(pub Vec<Line>);

/// A key and its sum.
#[derive(Debug, Serialize)]
pub struct Line {
    /// What it is about.
    #[serde(flatten)]
    pub key: Key,
    /// What it comes to.
    #[serde(flatten)]
    pub sum: Sum,
}

/// Sums a ledger up.
///
/// # Errors
/// When it is not as it was written.
pub fn stats(ledger: &Ledger, by: By) -> Result<Table, Box<Corruption>> {
    let mut rows: Vec<(Key, Sum)> = Vec::new();
    let mut numbers: HashMap<Key, u32> = HashMap::new();
    // Row and difficulty of the shares that have no result yet.
    let mut open: HashMap<u64, (u32, f64)> = HashMap::new();
    ledger.walk(|entry| {
        match &entry.record {
            Record::Accepted(share) => {
                let key = Key {
                    hour: by.hour.then_some(share.time_ms / HOUR_MS * (HOUR_MS / 1_000)),
                    user_identity: by.user.then(|| share.user_identity.to_owned()),
                    connection: by.channel.then_some(share.connection),
                    channel: by.channel.then_some(share.channel),
                };
                let next = rows.len();
                let row = *numbers.entry(key.clone()).or_insert_with(|| {
                    rows.push((key, Sum::default()));
                    u32::try_from(next).unwrap_or(u32::MAX)
                });
                let sum = &mut rows[row as usize].1;
                sum.shares += 1;
                sum.difficulty += share.difficulty;
                sum.open += 1;
                sum.blocks += u64::from(share.solves_block);
                open.insert(entry.at.share, (row, share.difficulty));
            }
            Record::Forwarded(result) => {
                // Without its share it belongs to a segment that is not kept any more.
                if let Some((row, difficulty)) = open.remove(&result.share) {
                    let sum = &mut rows[row as usize].1;
                    sum.open -= 1;
                    if result.accepted {
                        sum.forward_accepted += 1;
                        sum.paid_difficulty += difficulty;
                    } else {
                        sum.forward_rejected += 1;
                    }
                }
            }
            Record::Block(_) => {}
        }
        Ok::<_, Box<Corruption>>(())
    })?;
    let sorted: BTreeMap<Key, Sum> = rows.into_iter().collect();
    Ok(Table(sorted.into_iter().map(|(key, sum)| Line { key, sum }).collect()))
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:>10} {:<24} {:>12} {:>10} {:>16} {:>10} {:>16} {:>8} {:>8} {:>6}",
            "hour",
            "user",
            "channel",
            "shares",
            "difficulty",
            "paid",
            "paid difficulty",
            "refused",
            "open",
            "blocks"
        )?;
        for Line { key, sum } in &self.0 {
            let hour = key.hour.map_or_else(|| "-".into(), |hour| hour.to_string());
            let user = key.user_identity.as_deref().unwrap_or("-");
            let channel =
                key.connection.zip(key.channel).map(|(connection, id)| format!("{connection}/{id}"));
            writeln!(
                f,
                "{hour:>10} {user:<24} {:>12} {:>10} {:>16.6} {:>10} {:>16.6} {:>8} {:>8} {:>6}",
                channel.as_deref().unwrap_or("-"),
                sum.shares,
                sum.difficulty,
                sum.forward_accepted,
                sum.paid_difficulty,
                sum.forward_rejected,
                sum.open,
                sum.blocks
            )?;
        }
        Ok(())
    }
}
