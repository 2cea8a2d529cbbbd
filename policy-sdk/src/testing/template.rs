//! A template made of plain values.

use crate::{
    CoinbaseOutput, CoinbaseTransaction, Discrepancy, DiscrepancyKind, Provenance, Rows, TemplateSummary,
    Traits,
};

/// A template for tests. Totals are computed from the transactions; everything else is as it stands
/// here, so that a test can make any one thing wrong:
/// `TestTemplate { height: 5, ..TestTemplate::with_fees([1000]) }`.
#[derive(Clone, Debug)]
pub struct TestTemplate {
    /// Height of the block it would become.
    pub height: u32,
    /// Block version.
    pub version: u32,
    /// Hash of the block it builds on, internal byte order.
    pub previous_block_hash: [u8; 32],
    /// Compact target.
    pub bits: u32,
    /// Smallest header time, Unix seconds.
    pub min_time: u32,
    /// The source's clock, Unix seconds.
    pub current_time: u32,
    /// What the coinbase may pay out, as declared, satoshi.
    pub coinbase_value: u64,
    /// Block subsidy, satoshi.
    pub subsidy: u64,
    /// Who made it.
    pub provenance: Provenance,
    /// Its transactions, without coinbase.
    pub transactions: Vec<TestTransaction>,
    /// Its coinbase.
    pub coinbase: CoinbaseTransaction,
    /// What is wrong with it.
    pub discrepancies: Vec<Discrepancy>,
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
    /// Whether the operator's nodes know it; the template has the column when all transactions say.
    pub known: Option<bool>,
    /// Its network serialization.
    pub raw: Vec<u8>,
}

impl Default for TestTemplate {
    /// A template without transactions.
    fn default() -> Self {
        Self::with_fees([])
    }
}

impl TestTemplate {
    /// A template in which all is well. Its transactions have these fees and are otherwise ordinary
    /// (561 weight units, a payment with one input and two outputs); its coinbase begins with the
    /// height, carries the tag `/test/`, pays subsidy and fees to one address, and ends with the witness
    /// commitment.
    pub fn with_fees(fees: impl IntoIterator<Item = u64>) -> Self {
        let (height, subsidy) = (900_000, 312_500_000);
        let transactions: Vec<_> = fees
            .into_iter()
            .map(|fee| TestTransaction {
                fee,
                weight: 561,
                traits: Traits::from_bits(1),
                ..Default::default()
            })
            .collect();
        let coinbase_value = subsidy + transactions.iter().map(|tx| tx.fee).sum::<u64>();
        Self {
            height,
            version: 0x2000_0000,
            previous_block_hash: [7; 32],
            bits: 0x1703_4219,
            min_time: 1_750_000_000,
            current_time: 1_750_000_600,
            coinbase_value,
            subsidy,
            provenance: Provenance::Node,
            transactions,
            coinbase: coinbase(height, coinbase_value),
            discrepancies: Vec::new(),
        }
    }

    /// This template with one discrepancy of a kind, found at the first transaction.
    #[must_use]
    pub fn with_discrepancy(mut self, kind: DiscrepancyKind) -> Self {
        let (declared, derived) = ("what was said".to_owned(), "what is".to_owned());
        self.discrepancies.push(Discrepancy { kind, transaction: Some(0), declared, derived });
        self
    }

    pub(super) fn summary(&self) -> TemplateSummary {
        TemplateSummary {
            height: self.height,
            version: self.version,
            previous_block_hash: self.previous_block_hash.to_vec(),
            bits: self.bits,
            min_time: self.min_time,
            current_time: self.current_time,
            transaction_count: self.transactions.len().try_into().unwrap_or(u32::MAX),
            total_fees: self.transactions.iter().map(|tx| tx.fee).sum(),
            total_weight: self.transactions.iter().map(|tx| u64::from(tx.weight)).sum(),
            total_sigops: self.transactions.iter().map(|tx| u64::from(tx.sigops)).sum(),
            coinbase_value: self.coinbase_value,
            subsidy: self.subsidy,
            provenance: self.provenance,
        }
    }

    fn rows<T>(&self, start: u32, count: u32, column: impl Fn(&TestTransaction) -> T) -> Vec<T> {
        self.transactions.iter().skip(start as usize).take(count as usize).map(column).collect()
    }
}

fn coinbase(height: u32, value: u64) -> CoinbaseTransaction {
    let mut script = vec![3];
    script.extend_from_slice(&height.to_le_bytes()[..3]);
    script.extend_from_slice(b"\x06/test/");
    script.extend_from_slice(&[0; 20]);
    let payout = CoinbaseOutput {
        value,
        script: [[0x00, 0x14].as_slice(), &[5; 20]].concat(),
        address: Some("bc1qq5zs2pg9q5zs2pg9q5zs2pg9q5zs2pg9sypnwp".to_owned()),
    };
    let commitment = [[0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed].as_slice(), &[3; 32]].concat();
    let commitment = CoinbaseOutput { value: 0, script: commitment, address: None };
    CoinbaseTransaction {
        version: 2,
        script,
        height: Some(height),
        sequence: u32::MAX,
        lock_time: 0,
        outputs: vec![payout, commitment],
        weight: 720,
        sigops: 0,
    }
}

impl Rows for TestTemplate {
    fn coinbase(&self) -> CoinbaseTransaction {
        self.coinbase.clone()
    }
    fn discrepancies(&self) -> Vec<Discrepancy> {
        self.discrepancies.clone()
    }
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
        self.rows(start, count, |tx| tx.traits.bits())
    }
    fn txids(&self, start: u32, count: u32) -> Vec<u8> {
        self.rows(start, count, |tx| tx.txid).concat()
    }
    fn known(&self, start: u32, count: u32) -> Vec<u8> {
        let known: Option<Vec<u8>> = self.transactions.iter().map(|tx| tx.known.map(u8::from)).collect();
        let rows = known.unwrap_or_default().into_iter().skip(start as usize);
        rows.take(count as usize).collect()
    }
    fn raw_transaction(&self, index: u32) -> Vec<u8> {
        self.transactions.get(index as usize).map(|tx| tx.raw.clone()).unwrap_or_default()
    }
}
