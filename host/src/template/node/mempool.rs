//! What waits in the node's mempool: its size and fees, and the fee rates of its bytes. Asked beside the
//! templates, never on their way, and only as old as [`MAX_AGE`] handed out: older than that is unknown.
//!
//! Fee rates are exact where the mempool is small enough to be listed (a listing holds up the node). A large one
//! is asked for a histogram, which Knots has and Bitcoin Core has not: there they are unknown.

use super::super::{
    FeeRatePercentiles, MempoolState,
    rpc::{Rpc, Wait},
};
use crate::template::SourceError;
use bitcoin::Amount;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Value, json};
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{sync::Notify, time::timeout};

/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(5);
/// Every so many looks the fee rates are, unless they are unknown.
const FEES_EVERY: u32 = 6;
/// What is older is not handed out.
const MAX_AGE: Duration = Duration::from_secs(60);
/// Transactions up to which they are listed.
const MAX_LISTED: u64 = 5_000;

/// What is known of the mempool, and since when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Looked {
    pub(super) state: MempoolState,
    pub(super) fee_rates: Option<FeeRatePercentiles>,
    pub(super) at: Instant,
}

/// The last look at the mempool.
#[derive(Debug, Default)]
pub(super) struct Mempool {
    last: Mutex<Option<Looked>>,
    /// Rung when there is a reason to look now.
    now: Notify,
}

#[derive(Deserialize)]
struct Info {
    size: u64,
    bytes: u64,
    #[serde(with = "bitcoin::amount::serde::as_btc")]
    total_fee: Amount,
}

impl Mempool {
    /// The last look, unless it is too old.
    pub(super) fn last(&self) -> Option<Looked> {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.filter(|looked| looked.at.elapsed() <= MAX_AGE)
    }

    /// The tip has moved: much of what was there is not any more.
    pub(super) fn look_again(&self) {
        self.now.notify_one();
    }

    /// Looks again and again, for as long as somebody holds on to the mempool beside this task.
    pub(super) async fn follow(self: Arc<Self>, rpc: Arc<Rpc>) {
        let mut fee_rates = None;
        for turn in 0_u32.. {
            match self.look(&rpc).await {
                Ok(looked) if turn % FEES_EVERY == 0 || fee_rates.is_none() => {
                    fee_rates = rates(&rpc, looked.state).await;
                    self.note(Looked { fee_rates, ..looked });
                }
                Ok(looked) => self.note(Looked { fee_rates, ..looked }),
                Err(error) => tracing::debug!(%error, "the mempool is not known"),
            }
            let _ = timeout(EVERY, self.now.notified()).await;
            if Arc::strong_count(&self) == 1 {
                return;
            }
        }
    }

    /// One look at its size and fees, noted.
    pub(super) async fn look(&self, rpc: &Rpc) -> Result<Looked, SourceError> {
        let at = Instant::now();
        let Info { size, bytes, total_fee } = rpc.call("getmempoolinfo", json!([]), Wait::Normal).await?;
        let total_fees = total_fee.to_sat();
        let state = MempoolState { transaction_count: size, total_vsize: bytes, total_fees };
        let fee_rates = self.last().and_then(|last| last.fee_rates);
        let looked = Looked { state, fee_rates, at };
        self.note(looked);
        Ok(looked)
    }

    fn note(&self, looked: Looked) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(looked);
    }
}

/// The fee rates; unknown when the node cannot say them at a bearable price.
async fn rates(rpc: &Rpc, state: MempoolState) -> Option<FeeRatePercentiles> {
    let asked = if state.transaction_count <= MAX_LISTED {
        rpc.call("getrawmempool", json!([true]), Wait::Normal).await.map(|Listed(entries)| entries)
    } else {
        rpc.call("getmempoolinfo", json!([groups()]), Wait::Normal).await.map(|Histogram(groups)| groups)
    };
    match asked {
        Ok(entries) => percentiles(entries),
        Err(error) => {
            tracing::debug!(%error, "the fee rates are not known");
            None
        }
    }
}

/// Lower bounds of the histogram's groups, satoshi per vbyte: each up to 50, then in steps of a tenth.
fn groups() -> Vec<u64> {
    let above =
        std::iter::successors(Some(55_u64), |rate| Some(rate + rate / 10)).take_while(|rate| *rate < 20_000);
    (0..=50).chain(above).collect()
}

/// Bytes that wait, and what they pay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bytes {
    vsize: u64,
    fees: u64,
}

impl Bytes {
    /// Satoshi per 1,000 vbytes.
    fn rate(self) -> u64 {
        self.fees.saturating_mul(1_000) / self.vsize.max(1)
    }
}

fn percentiles(mut entries: Vec<Bytes>) -> Option<FeeRatePercentiles> {
    entries.retain(|entry| entry.vsize > 0);
    entries.sort_by_key(|entry| entry.rate());
    let total: u64 = entries.iter().map(|entry| entry.vsize).sum();
    let at = |percent: u64| {
        let (mut below, bound) = (0, total * percent / 100);
        let reached = entries.iter().find(|entry| {
            below += entry.vsize;
            below > bound
        });
        reached.map(|entry| entry.rate())
    };
    Some(FeeRatePercentiles { p10: at(10)?, p25: at(25)?, p50: at(50)?, p75: at(75)?, p90: at(90)? })
}

/// `getrawmempool` with details, of which only size and fee are kept.
struct Listed(Vec<Bytes>);

#[derive(Deserialize)]
struct ListedEntry {
    vsize: u64,
    fees: ListedFees,
}

#[derive(Deserialize)]
struct ListedFees {
    #[serde(with = "bitcoin::amount::serde::as_btc")]
    base: Amount,
}

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Listed;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("transactions by their id")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Listed, A::Error> {
                let mut entries = Vec::new();
                while let Some((IgnoredAny, entry)) = map.next_entry::<_, ListedEntry>()? {
                    entries.push(Bytes { vsize: entry.vsize, fees: entry.fees.base.to_sat() });
                }
                Ok(Listed(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// `getmempoolinfo` of Knots with groups of fee rates.
struct Histogram(Vec<Bytes>);

impl<'de> Deserialize<'de> for Histogram {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Answer {
            fee_histogram: serde_json::Map<String, Value>,
        }
        let group = |(_, group): (String, Value)| {
            // Beside the groups stands their sum.
            Some(Bytes { vsize: group.get("sizes")?.as_u64()?, fees: group.get("fees")?.as_u64()? })
        };
        Ok(Self(Answer::deserialize(deserializer)?.fee_histogram.into_iter().filter_map(group).collect()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn bytes(list: &[(u64, u64)]) -> Vec<Bytes> {
        list.iter().map(|(vsize, rate)| Bytes { vsize: *vsize, fees: vsize * rate }).collect()
    }

    #[test]
    fn percentiles_are_those_of_bytes_and_not_of_transactions() {
        let one = percentiles(bytes(&[(500, 3)])).unwrap();
        assert_eq!((one.p10, one.p50, one.p90), (3_000, 3_000, 3_000));
        let mixed = percentiles(bytes(&[(100, 50), (800, 1), (100, 9)])).unwrap();
        assert_eq!((mixed.p10, mixed.p50, mixed.p75, mixed.p90), (1_000, 1_000, 1_000, 50_000));
        assert_eq!(percentiles(Vec::new()), None, "of nothing there are none");
    }

    #[test]
    fn both_ways_of_the_node_to_say_it_are_understood() {
        let listed =
            r#"{"aa": {"vsize": 141, "weight": 561, "fees": {"base": 0.00000282, "modified": 1.0}}}"#;
        let Listed(entries) = serde_json::from_str(listed).unwrap();
        assert_eq!(entries, [Bytes { vsize: 141, fees: 282 }]);
        let histogram = r#"{"size": 2, "fee_histogram": {
            "1": {"sizes": 200, "count": 1, "fees": 300, "from_feerate": 1, "to_feerate": 2},
            "2": {"sizes": 0, "count": 0, "fees": 0, "from_feerate": 2}, "total_fees": 300}}"#;
        let Histogram(groups) = serde_json::from_str(histogram).unwrap();
        assert_eq!(percentiles(groups).unwrap().p50, 1_500);
        assert!(serde_json::from_str::<Histogram>(r#"{"size": 2}"#).is_err(), "Bitcoin Core has none");
    }

    #[test]
    fn the_groups_are_few_and_rise() {
        let groups = groups();
        assert!(groups.len() < 130 && groups.is_sorted_by(|a, b| a < b), "{groups:?}");
    }
}
