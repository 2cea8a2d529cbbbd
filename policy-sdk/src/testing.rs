//! Unit tests of a policy without wasm: templates made of plain values.

use crate::{
    Context, Policy, Provenance, Rows, Settings, SettingsFault, Template, TemplateSummary, Verdict,
    template::Traits,
};

/// Judges a template with a policy, as the gateway would.
///
/// # Panics
/// When the policy does not accept the settings; the message lists why.
pub fn judge<P: Policy>(settings: &str, template: &TestTemplate, context: &Context) -> Verdict {
    match Settings::read(settings, P::configure) {
        Ok(policy) => policy.evaluate(&Template::new(template, template.summary()), context),
        Err(faults) => panic!("the settings have faults: {faults:#?}"),
    }
}

/// What a policy has against settings; empty when nothing.
pub fn settings_faults<P: Policy>(settings: &str) -> Vec<SettingsFault> {
    Settings::read(settings, P::configure).err().unwrap_or_default()
}

/// The JSON Schema of a policy's settings.
pub fn settings_schema<P: Policy>() -> String {
    Settings::schema(|settings| drop(P::configure(settings)))
}

/// A template for tests. Totals are computed from the transactions.
#[derive(Clone, Debug)]
pub struct TestTemplate {
    /// Height of the block it would become.
    pub height: u32,
    /// Block subsidy, satoshi.
    pub subsidy: u64,
    /// Who made it.
    pub provenance: Provenance,
    /// Its transactions, without coinbase.
    pub transactions: Vec<TestTransaction>,
}

/// A transaction for tests.
#[derive(Clone, Debug, Default)]
pub struct TestTransaction {
    /// Fee, satoshi.
    pub fee: u64,
    /// Weight, weight units.
    pub weight: u32,
    /// Sigop cost.
    pub sigops: u32,
    /// What kind it is.
    pub traits: Traits,
    /// Its id, internal byte order.
    pub txid: [u8; 32],
    /// Its network serialization.
    pub raw: Vec<u8>,
}

impl TestTemplate {
    /// A template whose transactions have these fees and are otherwise ordinary (561 weight units, a
    /// payment with one input and two outputs).
    pub fn with_fees(fees: impl IntoIterator<Item = u64>) -> Self {
        let transactions =
            fees.into_iter().map(|fee| TestTransaction { fee, weight: 561, ..Default::default() });
        Self {
            height: 900_000,
            subsidy: 312_500_000,
            provenance: Provenance::Node,
            transactions: transactions.collect(),
        }
    }

    fn summary(&self) -> TemplateSummary {
        let total_fees = self.transactions.iter().map(|tx| tx.fee).sum();
        TemplateSummary {
            height: self.height,
            version: 0x2000_0000,
            previous_block_hash: vec![0; 32],
            bits: 0x1703_4219,
            min_time: 1_750_000_000,
            current_time: 1_750_000_600,
            transaction_count: self.transactions.len().try_into().unwrap_or(u32::MAX),
            total_fees,
            total_weight: self.transactions.iter().map(|tx| u64::from(tx.weight)).sum(),
            total_sigops: self.transactions.iter().map(|tx| u64::from(tx.sigops)).sum(),
            coinbase_value: self.subsidy + total_fees,
            subsidy: self.subsidy,
            provenance: self.provenance,
        }
    }

    fn rows<T>(&self, start: u32, count: u32, column: impl Fn(&TestTransaction) -> T) -> Vec<T> {
        self.transactions.iter().skip(start as usize).take(count as usize).map(column).collect()
    }
}

impl Rows for TestTemplate {
    fn fees(&self, start: u32, count: u32) -> Vec<u64> {
        self.rows(start, count, |tx| tx.fee)
    }
    fn weights(&self, start: u32, count: u32) -> Vec<u32> {
        self.rows(start, count, |tx| tx.weight)
    }
    fn sigops(&self, start: u32, count: u32) -> Vec<u32> {
        self.rows(start, count, |tx| tx.sigops)
    }
    fn traits(&self, start: u32, count: u32) -> Vec<u32> {
        self.rows(start, count, |tx| tx.traits.0)
    }
    fn txids(&self, start: u32, count: u32) -> Vec<u8> {
        self.rows(start, count, |tx| tx.txid).concat()
    }
    fn raw_transaction(&self, index: u32) -> Vec<u8> {
        self.transactions.get(index as usize).map(|tx| tx.raw.clone()).unwrap_or_default()
    }
}
