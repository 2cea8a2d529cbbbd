//! The template as a policy sees it: scalars, the coinbase, discrepancies, and columns of rows.
//!
//! Columns are fetched from the gateway many thousand rows at a time, so a walk through all transactions
//! costs a call or two. Two ways to walk: the iterators
//! ([`Template::fees`] and its like) read best; [`Template::chunks`] hands out plain slices, and a loop
//! over slices is several times faster in wasm. Take it where every transaction is looked at.

use crate::{CoinbaseTransaction, Discrepancy, DiscrepancyKind, TemplateSummary};
use std::cell::OnceCell;

/// Rows in one call: as many as the contract allows, which is a whole block.
const CHUNK: u32 = 16_384;

/// Where a template's data comes from: the gateway, or a test. Each column function gives the rows
/// `[start, start + count)` that exist; units are those of the iterators of [`Template`].
pub trait Rows {
    /// The coinbase.
    fn coinbase(&self) -> CoinbaseTransaction;
    /// Differences between what was declared and what is.
    fn discrepancies(&self) -> Vec<Discrepancy>;
    /// Fees, satoshi.
    fn fees(&self, start: u32, count: u32) -> Vec<u64>;
    /// Weights, weight units.
    fn weights(&self, start: u32, count: u32) -> Vec<u32>;
    /// Sigop costs.
    fn sigops(&self, start: u32, count: u32) -> Vec<u32>;
    /// Bit sets, see [`Traits`].
    fn traits(&self, start: u32, count: u32) -> Vec<u32>;
    /// Transaction ids, 32 bytes a row.
    fn txids(&self, start: u32, count: u32) -> Vec<u8>;
    /// Whether the operator's nodes know the transaction, 1 or 0; no rows when that is not known.
    fn known(&self, start: u32, count: u32) -> Vec<u8>;
    /// One transaction as the network serializes it; empty when there is none.
    fn raw_transaction(&self, index: u32) -> Vec<u8>;
}

/// The block template being judged. Transactions are without the coinbase and in block order.
pub struct Template<'a> {
    rows: &'a dyn Rows,
    summary: TemplateSummary,
    coinbase: OnceCell<CoinbaseTransaction>,
    discrepancies: OnceCell<Vec<Discrepancy>>,
}

impl<'a> Template<'a> {
    /// A template whose data come from `rows`. In a policy the gateway makes it; for tests there is
    /// [`TestTemplate`](crate::testing::TestTemplate).
    pub fn new(rows: &'a dyn Rows, summary: TemplateSummary) -> Self {
        Self { rows, summary, coinbase: OnceCell::new(), discrepancies: OnceCell::new() }
    }

    /// Height, totals and the other scalars.
    pub fn summary(&self) -> &TemplateSummary {
        &self.summary
    }

    /// The coinbase as it will be mined, except for the extranonce.
    pub fn coinbase(&self) -> &CoinbaseTransaction {
        self.coinbase.get_or_init(|| self.rows.coinbase())
    }

    /// In what the template differs from what was declared about it, or from what a block may be; every
    /// kind there is, at most 16 of each. The gateway refuses a template that has any when no enforcing
    /// policy asks for them: who asks, judges all kinds.
    pub fn discrepancies(&self) -> &[Discrepancy] {
        self.discrepancies.get_or_init(|| self.rows.discrepancies())
    }

    /// The first discrepancy of a kind.
    pub fn discrepancy(&self, kind: DiscrepancyKind) -> Option<&Discrepancy> {
        self.discrepancies().iter().find(|discrepancy| discrepancy.kind == kind)
    }

    /// The transactions, some thousand at a time, each column a plain vector. For walks through all of
    /// them: a loop over slices is the fastest that there is.
    pub fn chunks(&self) -> impl Iterator<Item = Chunk<'a>> + use<'a> {
        let (rows, count) = (self.rows, self.summary.transaction_count);
        (0..count).step_by(CHUNK as usize).map(move |start| Chunk { rows, start })
    }

    /// Fee of each transaction, satoshi.
    pub fn fees(&self) -> impl Iterator<Item = u64> {
        self.chunks().flat_map(|chunk| chunk.fees())
    }

    /// Weight of each transaction, weight units (BIP 141).
    pub fn weights(&self) -> impl Iterator<Item = u32> {
        self.chunks().flat_map(|chunk| chunk.weights())
    }

    /// Sigop cost of each transaction (BIP 141).
    pub fn sigops(&self) -> impl Iterator<Item = u32> {
        self.chunks().flat_map(|chunk| chunk.sigops())
    }

    /// Kind of each transaction.
    pub fn traits(&self) -> impl Iterator<Item = Traits> {
        self.chunks().flat_map(|chunk| chunk.traits())
    }

    /// Id of each transaction, internal byte order.
    pub fn txids(&self) -> impl Iterator<Item = [u8; 32]> {
        self.chunks().flat_map(|chunk| chunk.txids())
    }

    /// Whether the operator's nodes know each transaction; nothing when that is not known, which is when
    /// the context's `unknown_transactions` is none.
    pub fn known(&self) -> impl Iterator<Item = bool> {
        self.chunks().flat_map(|chunk| chunk.known())
    }

    /// One transaction as the network serializes it, with its witness; `None` when there is no such
    /// row. For a closer look at a few, not for a walk through all.
    pub fn raw_transaction(&self, index: u32) -> Option<Vec<u8>> {
        Some(self.rows.raw_transaction(index)).filter(|bytes| !bytes.is_empty())
    }
}

/// Some thousand transactions in a row. Each function fetches one column of them; units are those of
/// the iterators of [`Template`].
#[derive(Clone, Copy)]
pub struct Chunk<'a> {
    rows: &'a dyn Rows,
    start: u32,
}

impl Chunk<'_> {
    /// Index of its first transaction in the template.
    pub fn start(&self) -> u32 {
        self.start
    }

    /// Fees, satoshi.
    pub fn fees(&self) -> Vec<u64> {
        self.rows.fees(self.start, CHUNK)
    }

    /// Weights, weight units.
    pub fn weights(&self) -> Vec<u32> {
        self.rows.weights(self.start, CHUNK)
    }

    /// Sigop costs.
    pub fn sigops(&self) -> Vec<u32> {
        self.rows.sigops(self.start, CHUNK)
    }

    /// Kinds of transaction.
    pub fn traits(&self) -> Vec<Traits> {
        self.rows.traits(self.start, CHUNK).into_iter().map(Traits::from_bits).collect()
    }

    /// Transaction ids, internal byte order.
    pub fn txids(&self) -> Vec<[u8; 32]> {
        self.rows.txids(self.start, CHUNK).as_chunks().0.to_vec()
    }

    /// Whether the operator's nodes know each; empty when that is not known.
    pub fn known(&self) -> Vec<bool> {
        self.rows.known(self.start, CHUNK).into_iter().map(|known| known != 0).collect()
    }
}

/// What kind of transaction one is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traits(u32);

impl Traits {
    /// From the bit set of the contract's `traits` column.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
    /// The bit set.
    pub const fn bits(self) -> u32 {
        self.0
    }
    /// It has witness data.
    pub fn segwit(self) -> bool {
        self.0 & 1 != 0
    }
    /// It pays to a taproot output.
    pub fn pays_taproot(self) -> bool {
        self.0 & 2 != 0
    }
    /// It signals replaceability (BIP 125).
    pub fn replaceable(self) -> bool {
        self.0 & 4 != 0
    }
    /// It has an output that carries data (OP_RETURN).
    pub fn data_carrier(self) -> bool {
        self.0 & 8 != 0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use crate::{
        Context, Discrepancy, DiscrepancyKind, Policy, Settings, Template, Verdict,
        testing::{TestTemplate, judge},
    };

    /// Looks at everything that a template shows, and compares the ways to look.
    struct Looks;

    impl Policy for Looks {
        const NAME: &'static str = "looks";
        const VERSION: &'static str = "0.1.0";
        const SUMMARY: &'static str = "Looks.";
        const CODES: &'static [(&'static str, &'static str)] = &[];

        fn configure(_: &mut Settings) -> Self {
            Self
        }

        fn evaluate(&self, template: &Template, _: &Context) -> Verdict {
            assert_eq!(template.chunks().map(|chunk| chunk.start()).collect::<Vec<_>>(), [0, 16_384, 32_768]);
            let fees: Vec<u64> = template.chunks().flat_map(|chunk| chunk.fees()).collect();
            assert_eq!(fees, (0..40_000).collect::<Vec<_>>());
            assert!(template.fees().eq(fees));
            let ids: Vec<[u8; 32]> = template.txids().collect();
            assert_eq!((ids.len(), ids[39_999]), (40_000, [0x3f; 32]));
            assert_eq!(template.known().filter(|known| !known).count(), 1);
            assert_eq!((template.weights().count(), template.sigops().count()), (40_000, 40_000));
            assert!(template.traits().all(|traits| traits.segwit() && !traits.replaceable()));
            assert_eq!(
                template.discrepancy(DiscrepancyKind::Fee).and_then(|found| found.transaction),
                Some(1)
            );
            assert_eq!(template.discrepancy(DiscrepancyKind::Txid), None);
            assert_eq!(template.coinbase().height, Some(template.summary().height));
            assert_eq!(
                (template.raw_transaction(0), template.raw_transaction(40_000)),
                (Some(vec![1]), None)
            );
            Ok(())
        }
    }

    #[test]
    fn every_way_to_look_at_a_template_shows_the_same_rows() {
        let mut template = TestTemplate::with_fees(0..40_000).with_discrepancy(DiscrepancyKind::Weight);
        for transaction in [1, 2] {
            let (declared, derived) = (String::new(), String::new());
            let fee =
                Discrepancy { kind: DiscrepancyKind::Fee, transaction: Some(transaction), declared, derived };
            template.discrepancies.push(fee);
        }
        for (index, transaction) in template.transactions.iter_mut().enumerate() {
            transaction.txid = [u8::try_from(index % 256).unwrap(); 32];
            transaction.known = Some(index != 5000);
        }
        template.transactions[0].raw = vec![1];
        judge::<Looks>("{}", &template, &Context::default()).unwrap();
    }
}
