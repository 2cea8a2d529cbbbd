//! What is known about the world around a template: part of a verdict's inputs, and recorded with it.

use bitcoin::{BlockHash, CompactTarget};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

/// The world around a template, as far as it is known: nothing here is a guess. A source fills in what it
/// knows; [`taken`](Self::taken) adds, right before judging, what only the gateway knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// When it was taken by the gateway's clock, Unix seconds.
    pub taken_at: u64,
    /// How long the gateway had had the template by then, milliseconds.
    pub template_age_ms: u64,
    /// The block that our nodes build on.
    pub tip: Option<ChainTip>,
    /// State of the node's mempool.
    pub mempool: Option<MempoolState>,
    /// Fee rates in the mempool.
    pub fee_rates: Option<FeeRatePercentiles>,
    /// The largest coinbase value among the templates of our own nodes on the same previous block,
    /// satoshi.
    pub best_template_value: Option<u64>,
    /// How old `mempool` was when the template came, milliseconds; `fee_rates` may be half a minute older.
    /// For records; policies are not shown it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mempool_age_ms: Option<u64>,
    /// Whether our nodes know each transaction of the template, in block order.
    #[serde(with = "super::record::flags")]
    pub known: Option<Arc<[bool]>>,
}

/// The block that our nodes build on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainTip {
    /// Its hash.
    pub hash: BlockHash,
    /// Its height.
    pub height: u32,
    /// Compact target of the next block; `None` when the node did not say.
    #[serde(with = "super::record::compact_option")]
    pub next_bits: Option<CompactTarget>,
}

/// State of a mempool at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MempoolState {
    /// Transactions in it.
    pub transaction_count: u64,
    /// Their virtual size, vbytes.
    pub total_vsize: u64,
    /// Sum of their fees, satoshi.
    pub total_fees: u64,
}

/// Fee rates in a mempool, satoshi per 1,000 vbytes, as percentiles of its virtual size: below `p10`
/// pay 10 % of the bytes that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the names say it")]
pub struct FeeRatePercentiles {
    pub p10: u64,
    pub p25: u64,
    pub p50: u64,
    pub p75: u64,
    pub p90: u64,
}

impl Context {
    /// How many of the template's transactions our nodes do not know; `None` when that is not known.
    pub fn unknown_transactions(&self) -> Option<u32> {
        // Counted in bytes, which makes it a matter of nanoseconds: every policy asks for it.
        let unknown = |few: &[bool]| few.iter().fold(0_u8, |sum, known| sum.wrapping_add((!known).into()));
        Some(self.known.as_deref()?.chunks(255).map(|few| u32::from(unknown(few))).sum())
    }

    /// The snapshot that a verdict is based on: this, and what the gateway adds. One that was taken before and
    /// recorded stays as it was. `now` is its clock in
    /// Unix seconds, `age` how long it has had the template, `best` the best template value of our nodes
    /// (see [`BestValues`](super::best::BestValues)), satoshi.
    pub fn taken(&self, now: u64, age: Duration, best: Option<u64>) -> Self {
        if self.taken_at != 0 {
            return self.clone();
        }
        Self {
            taken_at: now,
            template_age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            best_template_value: best,
            ..self.clone()
        }
    }
}
