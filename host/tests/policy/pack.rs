//! The standard pack with settings that an ordinary pool might have, for tests and benches: through the
//! engine, and natively.

use super::{built::module, templates};
use bitcoin::hashes::Hash;
use reservegrid::{
    policy::{DEFAULT_FUEL, Enforcement, Inputs, PolicySpec},
    template::{ChainTip, Context},
};
use reservegrid_coinbase_guard::CoinbaseGuard;
use reservegrid_fee_floor::FeeFloor;
use reservegrid_integrity::Integrity;
use reservegrid_limits::Limits;
use reservegrid_mempool_agreement::MempoolAgreement;
use reservegrid_policy_sdk::{self as sdk, Policy};
use reservegrid_revenue_guard::RevenueGuard;
use serde_json::{Value, json};
use std::{path::PathBuf, sync::Arc};

/// The policies in the order in which an operator lists them.
pub(crate) const NAMES: [&str; 6] =
    ["integrity", "limits", "coinbase-guard", "mempool-agreement", "revenue-guard", "fee-floor"];

/// Settings under which [`inputs`] are accepted.
fn settings(name: &str) -> Value {
    match name {
        "coinbase-guard" => json!({ "tag": "/tests/" }),
        "fee-floor" => json!({
            "min_avg_fee": { "low": 1, "mid": 1, "high": 1 }, "min_total_fees": 1, "min_fee_rate": 1_000
        }),
        _ => json!({}),
    }
}

pub(crate) fn spec(name: &str) -> PolicySpec {
    PolicySpec {
        name: name.into(),
        module: PathBuf::new(),
        sha256: None,
        settings: settings(name),
        fuel: DEFAULT_FUEL,
        enforcement: Enforcement::Enforce,
    }
}

/// The whole pack.
pub(crate) fn specs() -> Vec<PolicySpec> {
    NAMES.map(|name| PolicySpec { module: module(name), ..spec(name) }).to_vec()
}

/// A template of so many transactions that the whole pack accepts, and everything known about the world.
pub(crate) fn inputs(count: u64) -> Inputs {
    let template = templates::small_with_fees((0..count).map(|index| 1_000 + index));
    let tip = ChainTip {
        hash: template.previous_block_hash,
        height: template.height - 1,
        next_bits: Some(template.bits),
    };
    let context = Context {
        taken_at: u64::from(template.current_time),
        tip: Some(tip),
        best_template_value: Some(template.coinbase_value),
        known: Some(vec![true; template.transactions.len()].into()),
        ..templates::mempool(2_000_000)
    };
    Inputs { template, context: Arc::new(context) }
}

/// The same policies without an engine: settings read once, facts copied out as the engine does.
pub(crate) struct Native<'a> {
    inputs: &'a Inputs,
    context: sdk::Context,
    integrity: Integrity,
    limits: Limits,
    coinbase_guard: CoinbaseGuard,
    mempool_agreement: MempoolAgreement,
    revenue_guard: RevenueGuard,
    fee_floor: FeeFloor,
}

impl<'a> Native<'a> {
    pub(crate) fn new(inputs: &'a Inputs) -> Self {
        let known = &inputs.context;
        let context = sdk::Context {
            taken_at: known.taken_at,
            template_age_ms: known.template_age_ms,
            tip: known.tip.map(|tip| sdk::ChainTip {
                hash: tip.hash.to_byte_array().to_vec(),
                height: tip.height,
                next_bits: tip.next_bits.map(|bits| bits.to_consensus()),
            }),
            mempool: known.mempool.map(|mempool| sdk::MempoolState {
                transaction_count: mempool.transaction_count,
                total_vsize: mempool.total_vsize,
                total_fees: mempool.total_fees,
            }),
            fee_rates: None,
            best_template_value: known.best_template_value,
            unknown_transactions: known.unknown_transactions(),
        };
        Self {
            inputs,
            context,
            integrity: configured("integrity"),
            limits: configured("limits"),
            coinbase_guard: configured("coinbase-guard"),
            mempool_agreement: configured("mempool-agreement"),
            revenue_guard: configured("revenue-guard"),
            fee_floor: configured("fee-floor"),
        }
    }

    /// Asks them all, in the order of [`NAMES`].
    pub(crate) fn judge(&self) -> sdk::Verdict {
        self.ask(&self.integrity)?;
        self.ask(&self.limits)?;
        self.ask(&self.coinbase_guard)?;
        self.ask(&self.mempool_agreement)?;
        self.ask(&self.revenue_guard)?;
        self.ask(&self.fee_floor)
    }

    fn ask(&self, policy: &impl Policy) -> sdk::Verdict {
        policy.evaluate(&sdk::Template::new(self, self.summary()), &self.context)
    }

    fn summary(&self) -> sdk::TemplateSummary {
        let template = &self.inputs.template;
        sdk::TemplateSummary {
            height: template.height,
            version: template.version.to_consensus().cast_unsigned(),
            previous_block_hash: template.previous_block_hash.to_byte_array().to_vec(),
            bits: template.bits.to_consensus(),
            min_time: template.min_time,
            current_time: template.current_time,
            transaction_count: template.transactions.len().try_into().unwrap(),
            total_fees: template.facts.total_fees,
            total_weight: template.facts.total_weight,
            total_sigops: template.facts.total_sigops,
            coinbase_value: template.coinbase_value,
            subsidy: template.subsidy,
            provenance: sdk::Provenance::Node,
        }
    }

    fn rows<T: Clone>(column: &[T], start: u32, count: u32) -> Vec<T> {
        let start = (start as usize).min(column.len());
        column[start..column.len().min(start + count as usize)].to_vec()
    }
}

fn configured<P: Policy>(name: &str) -> P {
    sdk::testing::configure(&settings(name).to_string())
}

impl sdk::Rows for Native<'_> {
    fn coinbase(&self) -> sdk::CoinbaseTransaction {
        let coinbase = &self.inputs.template.coinbase;
        let outputs = coinbase.transaction.output.iter().zip(&coinbase.addresses);
        sdk::CoinbaseTransaction {
            version: 2,
            script: coinbase.transaction.input[0].script_sig.to_bytes(),
            height: coinbase.height,
            sequence: u32::MAX,
            lock_time: 0,
            outputs: outputs
                .map(|(output, address)| sdk::CoinbaseOutput {
                    value: output.value.to_sat(),
                    script: output.script_pubkey.to_bytes(),
                    address: address.clone(),
                })
                .collect(),
            weight: coinbase.weight,
            sigops: coinbase.sigops,
        }
    }
    fn discrepancies(&self) -> Vec<sdk::Discrepancy> {
        Vec::new()
    }
    fn fees(&self, start: u32, count: u32) -> Vec<u64> {
        Self::rows(&self.inputs.template.facts.fees, start, count)
    }
    fn weights(&self, start: u32, count: u32) -> Vec<u32> {
        Self::rows(&self.inputs.template.facts.weights, start, count)
    }
    fn sigops(&self, start: u32, count: u32) -> Vec<u32> {
        Self::rows(&self.inputs.template.facts.sigops, start, count)
    }
    fn traits(&self, start: u32, count: u32) -> Vec<u32> {
        Self::rows(&self.inputs.template.facts.traits, start, count)
    }
    fn txids(&self, start: u32, count: u32) -> Vec<u8> {
        let txids = Self::rows(&self.inputs.template.facts.txids, start, count);
        txids.into_iter().flat_map(|txid| txid.to_byte_array()).collect()
    }
    fn known(&self, start: u32, count: u32) -> Vec<u8> {
        let known = self.inputs.context.known.as_deref().unwrap_or_default();
        Self::rows(known, start, count).into_iter().map(u8::from).collect()
    }
    fn raw_transaction(&self, index: u32) -> Vec<u8> {
        let transaction = self.inputs.template.transactions.get(index as usize);
        transaction.map(bitcoin::consensus::serialize).unwrap_or_default()
    }
}
