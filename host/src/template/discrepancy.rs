//! Differences between what was declared about a template and what its bytes say, and what keeps it
//! from being a block as it stands. They refuse nothing by themselves: policies judge them.

use serde::Serialize;
use std::fmt::{self, Display};

/// Differences of one kind that are kept.
const MAX_OF_A_KIND: u8 = 16;
/// Characters of a value that are kept.
const MAX_WORDS: usize = 160;

/// In what a template differs from what was declared about it, or from what a block may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DiscrepancyKind {
    /// The declared target is not the one that the compact target says.
    Target,
    /// The declared coinbase value is not subsidy and fees together.
    CoinbaseValue,
    /// The declared merkle path of the coinbase is not that of the transactions.
    MerklePath,
    /// There are transactions with witness data, and no witness commitment was declared (BIP 141).
    WitnessCommitmentMissing,
    /// The declared witness commitment is not that of the transactions.
    WitnessCommitment,
    /// Another number of transactions was declared than came.
    TransactionCount,
    /// A transaction has another id than declared.
    Txid,
    /// A transaction has another witness id than declared.
    Wtxid,
    /// A transaction has another weight than declared.
    Weight,
    /// The declared sigop cost of a transaction is not one that its bytes allow.
    Sigops,
    /// A transaction pays another fee than declared, where all that it spends is known.
    Fee,
    /// A transaction stands in the template twice.
    DuplicateTransaction,
    /// Two transactions spend the same output, or one spends it twice.
    DoubleSpend,
    /// A transaction stands before one whose output it spends.
    TransactionOrder,
    /// A transaction's lock time does not allow it in this block.
    TransactionNotFinal,
}

/// The name as in the contract: lower case, with dashes.
impl fmt::Display for DiscrepancyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Target => "target",
            Self::CoinbaseValue => "coinbase-value",
            Self::MerklePath => "merkle-path",
            Self::WitnessCommitmentMissing => "witness-commitment-missing",
            Self::WitnessCommitment => "witness-commitment",
            Self::TransactionCount => "transaction-count",
            Self::Txid => "txid",
            Self::Wtxid => "wtxid",
            Self::Weight => "weight",
            Self::Sigops => "sigops",
            Self::Fee => "fee",
            Self::DuplicateTransaction => "duplicate-transaction",
            Self::DoubleSpend => "double-spend",
            Self::TransactionOrder => "transaction-order",
            Self::TransactionNotFinal => "transaction-not-final",
        })
    }
}

impl DiscrepancyKind {
    const COUNT: usize = Self::TransactionNotFinal as usize + 1;
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Discrepancy {
    /// What differs.
    pub kind: DiscrepancyKind,
    /// Row of the transaction that it was found at; `None` when it is of the template as a whole.
    pub transaction: Option<u32>,
    /// What was declared, or must hold; short printable ASCII.
    pub declared: String,
    /// What the bytes say; short printable ASCII.
    pub derived: String,
}

/// Collects differences, the first few of each kind.
#[derive(Default)]
pub(super) struct Found {
    list: Vec<Discrepancy>,
    counts: [u8; DiscrepancyKind::COUNT],
}

impl Found {
    pub(super) fn add(
        &mut self,
        kind: DiscrepancyKind,
        row: Option<usize>,
        declared: impl Display,
        derived: impl Display,
    ) {
        let count = &mut self.counts[kind as usize];
        if *count == MAX_OF_A_KIND {
            return;
        }
        *count += 1;
        let cut = |value: &dyn Display| value.to_string().chars().take(MAX_WORDS).collect();
        self.list.push(Discrepancy {
            kind,
            transaction: row.map(|row| u32::try_from(row).unwrap_or(u32::MAX)),
            declared: cut(&declared),
            derived: cut(&derived),
        });
    }

    /// Notes a declared value that is not the derived one.
    pub(super) fn compare<T: PartialEq + Display>(
        &mut self,
        kind: DiscrepancyKind,
        row: Option<usize>,
        declared: Option<T>,
        derived: T,
    ) {
        if let Some(declared) = declared.filter(|declared| *declared != derived) {
            self.add(kind, row, declared, derived);
        }
    }

    /// Those of the template as a whole, then in block order.
    pub(super) fn into_list(mut self) -> Vec<Discrepancy> {
        self.list.sort_by_key(|discrepancy| (discrepancy.transaction, discrepancy.kind));
        self.list
    }
}
