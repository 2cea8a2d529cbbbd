//! What each transaction of a template spends, and what follows from it: order, double spends, fees and
//! sigops, as far as the outputs spent are known.

use super::{
    Declared, DeclaredTransaction, TemplateError,
    discrepancy::{DiscrepancyKind, Found},
    sigops,
};
use bitcoin::{Amount, OutPoint, Transaction, TxOut, Txid};
use foldhash::fast::RandomState;
use std::collections::{HashMap, hash_map::Entry};

/// Fees and sigop costs, in block order.
pub(super) struct Costs {
    /// 0 for what nobody says.
    pub(super) fees: Vec<u64>,
    /// Transactions whose fee nobody says.
    pub(super) unknown_fees: u32,
    pub(super) sigops: Vec<u32>,
}

/// Follows what each transaction spends, in block order.
pub(super) fn follow(
    declared: &Declared,
    parsed: &[Transaction],
    txids: &[Txid],
    found: &mut Found,
) -> Result<Costs, TemplateError> {
    let mut positions = HashMap::with_capacity_and_hasher(txids.len(), RandomState::default());
    let mut repeated = vec![false; txids.len()];
    for (row, txid) in txids.iter().enumerate() {
        match positions.entry(*txid) {
            Entry::Vacant(entry) => _ = entry.insert(row),
            Entry::Occupied(first) => {
                repeated[row] = true;
                let derived = format!("{txid} in row {} too", first.get());
                found.add(DiscrepancyKind::DuplicateTransaction, Some(row), "once", derived);
            }
        }
    }
    let inputs = parsed.iter().map(|tx| tx.input.len()).sum();
    let mut spends = Spends {
        parsed,
        positions: &positions,
        taken: HashMap::with_capacity_and_hasher(inputs, RandomState::default()),
        spent: Vec::new(),
    };
    let mut costs = Costs {
        fees: Vec::with_capacity(parsed.len()),
        unknown_fees: 0,
        sigops: Vec::with_capacity(parsed.len()),
    };
    // A source that says some fees and not others has forgotten them.
    let says_fees = declared.transactions.iter().any(|entry| entry.fee.is_some());
    for (row, entry) in declared.transactions.iter().enumerate() {
        // All that a repeated transaction spends is spent already.
        spends.outputs(row, entry.spent.as_deref(), repeated[row], found)?;
        costs.sigops.push(sigop_cost(row, entry, &parsed[row], &spends.spent, found));
        let fee = fee(row, entry, &parsed[row], &spends.spent, found)?;
        if fee.is_none() && says_fees {
            let detail =
                "is not declared, and cannot be computed without the outputs that the transaction spends";
            return Err(TemplateError::impossible(format!("transactions[{row}].fee"), detail));
        }
        costs.unknown_fees += u32::from(fee.is_none());
        costs.fees.push(fee.unwrap_or(0));
    }
    Ok(costs)
}

struct Spends<'a> {
    parsed: &'a [Transaction],
    /// Where each transaction stands first.
    positions: &'a HashMap<Txid, usize, RandomState>,
    /// Which row spends an output first.
    taken: HashMap<OutPoint, usize, RandomState>,
    /// What the transaction in hand spends, in input order, as far as it is known.
    spent: Vec<Option<&'a TxOut>>,
}

impl<'a> Spends<'a> {
    fn outputs(
        &mut self,
        row: usize,
        given: Option<&'a [TxOut]>,
        repeated: bool,
        found: &mut Found,
    ) -> Result<(), TemplateError> {
        let inputs = &self.parsed[row].input;
        let impossible =
            |detail: String| Err(TemplateError::impossible(format!("transactions[{row}]"), detail));
        if let Some(given) = given.filter(|given| given.len() != inputs.len()) {
            return impossible(format!("{} spent outputs given for {} inputs", given.len(), inputs.len()));
        }
        self.spent.clear();
        let mut too_early = false;
        for (i, input) in inputs.iter().enumerate() {
            let outpoint = input.previous_output;
            if outpoint.is_null() {
                return impossible("is a coinbase".to_owned());
            }
            if !repeated {
                match self.taken.entry(outpoint) {
                    Entry::Vacant(entry) => _ = entry.insert(row),
                    Entry::Occupied(first) => {
                        let derived = format!("in row {} too", first.get());
                        let declared = format!("{outpoint} spent once");
                        found.add(DiscrepancyKind::DoubleSpend, Some(row), declared, derived);
                    }
                }
            }
            let created_here = match self.positions.get(&outpoint.txid) {
                Some(&parent) => {
                    if parent > row && !too_early {
                        too_early = true;
                        let declared = format!("behind row {parent}");
                        let derived = format!("spends its output {}", outpoint.vout);
                        found.add(DiscrepancyKind::TransactionOrder, Some(row), declared, derived);
                    }
                    match self.parsed[parent].output.get(outpoint.vout as usize) {
                        Some(output) => Some(output),
                        None => {
                            return impossible(format!("spends {outpoint}, which its parent does not have"));
                        }
                    }
                }
                None => None,
            };
            self.spent.push(created_here.or_else(|| given.map(|given| &given[i])));
        }
        Ok(())
    }
}

fn sigop_cost(
    row: usize,
    entry: &DeclaredTransaction,
    tx: &Transaction,
    spent: &[Option<&TxOut>],
    found: &mut Found,
) -> u32 {
    let cost = sigops::cost(tx, |input| spent[input]);
    let kept = match entry.sigops {
        Some(declared) if declared < cost.low || declared > cost.high => {
            let derived = match cost.low == cost.high {
                true => cost.low.to_string(),
                false => format!("{} to {}", cost.low, cost.high),
            };
            found.add(DiscrepancyKind::Sigops, Some(row), declared, derived);
            cost.likely
        }
        Some(declared) => declared,
        None => cost.likely,
    };
    u32::try_from(kept).unwrap_or(u32::MAX)
}

/// The fee, if anybody says it: the bytes, or else the source.
fn fee(
    row: usize,
    entry: &DeclaredTransaction,
    tx: &Transaction,
    spent: &[Option<&TxOut>],
    found: &mut Found,
) -> Result<Option<u64>, TemplateError> {
    let field = || format!("transactions[{row}].fee");
    let paid = sum(field, tx.output.iter().map(|output| output.value.to_sat()))?;
    if spent.contains(&None) {
        return Ok(entry.fee);
    }
    let available = sum(field, spent.iter().flatten().map(|output| output.value.to_sat()))?;
    let Some(fee) = available.checked_sub(paid) else {
        let detail = format!("the outputs pay {paid} sat, the inputs bring {available}");
        return Err(TemplateError::impossible(field(), detail));
    };
    found.compare(DiscrepancyKind::Fee, Some(row), entry.fee, fee);
    Ok(Some(fee))
}

/// Adds satoshis; more than there can ever be is an error, which also keeps later sums from overflowing.
pub(super) fn sum(
    field: impl FnOnce() -> String,
    mut values: impl Iterator<Item = u64>,
) -> Result<u64, TemplateError> {
    values
        .try_fold(0u64, |total, value| {
            total.checked_add(value).filter(|total| *total <= Amount::MAX_MONEY.to_sat())
        })
        .ok_or_else(|| TemplateError::impossible(field(), "comes to more than 21 million bitcoin"))
}
