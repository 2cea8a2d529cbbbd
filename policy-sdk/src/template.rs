//! The template as a policy sees it: scalars, and columns to iterate over.
//!
//! Columns are fetched from the gateway some thousand rows at a time, so a walk through all
//! transactions costs a few calls and little memory.

use crate::TemplateSummary;

/// Rows in one call. Large enough to make the call itself negligible, small enough for the guest's
/// memory; the contract allows 16,384.
const CHUNK: u32 = 4096;

/// Where rows come from: the gateway, or a test's template. Each function gives the rows
/// `[start, start + count)` that exist; units are those of the iterators of [`Template`].
pub trait Rows {
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
    /// One transaction as the network serializes it; empty when there is none.
    fn raw_transaction(&self, index: u32) -> Vec<u8>;
}

/// The block template being judged. Transactions are without the coinbase and in block order.
pub struct Template<'a> {
    rows: &'a dyn Rows,
    summary: TemplateSummary,
}

impl<'a> Template<'a> {
    pub(crate) fn new(rows: &'a dyn Rows, summary: TemplateSummary) -> Self {
        Self { rows, summary }
    }

    /// Height, totals and the other scalars.
    pub fn summary(&self) -> &TemplateSummary {
        &self.summary
    }

    /// Fee of each transaction, satoshi.
    pub fn fees(&self) -> impl Iterator<Item = u64> {
        self.column(|start| self.rows.fees(start, CHUNK))
    }

    /// Weight of each transaction, weight units (BIP 141).
    pub fn weights(&self) -> impl Iterator<Item = u32> {
        self.column(|start| self.rows.weights(start, CHUNK))
    }

    /// Sigop cost of each transaction (BIP 141).
    pub fn sigops(&self) -> impl Iterator<Item = u32> {
        self.column(|start| self.rows.sigops(start, CHUNK))
    }

    /// Kind of each transaction.
    pub fn traits(&self) -> impl Iterator<Item = Traits> {
        self.column(|start| self.rows.traits(start, CHUNK)).map(Traits)
    }

    /// Id of each transaction, internal byte order.
    pub fn txids(&self) -> impl Iterator<Item = [u8; 32]> {
        self.column(|start| self.rows.txids(start, CHUNK).as_chunks().0.to_vec())
    }

    /// One transaction as the network serializes it, with its witness; `None` when there is no such
    /// row. For a closer look at a few, not for a walk through all.
    pub fn raw_transaction(&self, index: u32) -> Option<Vec<u8>> {
        Some(self.rows.raw_transaction(index)).filter(|bytes| !bytes.is_empty())
    }

    fn column<T>(&self, fetch: impl Fn(u32) -> Vec<T>) -> impl Iterator<Item = T> {
        (0..self.summary.transaction_count).step_by(CHUNK as usize).flat_map(fetch)
    }
}

/// What kind of transaction one is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traits(pub(crate) u32);

impl Traits {
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
