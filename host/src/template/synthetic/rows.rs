//! The rows of a synthetic template as transactions.
//!
//! Every row has one input. What it spends is made for it: a kind of output that gives the sigops asked
//! for, with the value that pays outputs and fee, so that fee and sigops are in the bytes and nothing
//! has to be believed. The weight is reached by padding the input: its witness a byte (one weight unit)
//! at a time, or without witness its script (four).
//!
//! Three passes: who spends what (`plan`), how large everything is (`Shape`), then the bytes, parents
//! before their children wherever they stand.

use super::{
    SyntheticError,
    shape::{Kind, PAYMENT, Shape},
};
use crate::template::DeclaredTransaction;
use bitcoin::{
    Amount, OutPoint, Transaction, TxOut, Txid, Wtxid,
    consensus::encode,
    hashes::{Hash, sha256},
};
use serde::Deserialize;

/// Most rows of one template: a block has room for fewer.
const MAX_ROWS: usize = 100_000;
/// Most sigops of a row, cost.
const MAX_SIGOPS: u64 = 1_000_000;

/// Some transactions of a case.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RowTable {
    /// How many of them.
    pub count: u32,
    /// Fee of each, satoshi.
    pub fee: u64,
    /// Weight of each, WU; as small as it gets, but at least an ordinary payment, where left out.
    pub weight: Option<u64>,
    /// Sigop cost of each; 1 with a witness and 0 without where left out.
    pub sigops: Option<u64>,
    /// Has witness data.
    pub segwit: bool,
    /// Pays to a taproot output.
    pub taproot: bool,
    /// Signals replaceability (BIP 125).
    pub rbf: bool,
    /// Data of an OP_RETURN output, hex.
    #[serde(deserialize_with = "hex_bytes")]
    pub data: Option<Vec<u8>>,
    /// nLockTime; it counts, unless `sequence` is final.
    pub lock_time: u32,
    /// Sequence number of the input.
    pub sequence: Option<u32>,
    /// Spends an output of that row.
    pub spends: Option<usize>,
    /// Spends what that row spends.
    pub double_spends: Option<usize>,
    /// Is the transaction of that row again; all other keys but `declared` and `unknown` are not read.
    pub repeats: Option<usize>,
    /// Not known to our nodes.
    pub unknown: bool,
    /// What is declared about each, rightly or wrongly.
    pub declared: DeclaredRow,
}

impl Default for RowTable {
    fn default() -> Self {
        Self {
            count: 1,
            fee: 1_000,
            weight: None,
            sigops: None,
            segwit: true,
            taproot: false,
            rbf: false,
            data: None,
            lock_time: 0,
            sequence: None,
            spends: None,
            double_spends: None,
            repeats: None,
            unknown: false,
            declared: DeclaredRow::default(),
        }
    }
}

/// What is declared about a transaction; only the fee is declared (rightly) where nothing is said.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "as in DeclaredTransaction")]
pub struct DeclaredRow {
    pub txid: Option<Txid>,
    pub wtxid: Option<Wtxid>,
    pub weight: Option<u64>,
    pub sigops: Option<u64>,
    pub fee: Option<u64>,
}

fn hex_bytes<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Vec<u8>>, D::Error> {
    let text = String::deserialize(from)?;
    let bytes = hex::decode(&text);
    bytes.map(Some).map_err(|error| serde::de::Error::custom(format_args!("{text:?} is not hex: {error}")))
}

pub(super) fn wrong<T>(row: usize, problem: impl Into<String>) -> Result<T, SyntheticError> {
    Err(SyntheticError::Row { row, problem: problem.into() })
}

/// What a row spends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spent {
    /// An output outside the template, made for this row.
    Outside(usize),
    /// An output of a row, the how-manieth.
    Inside(usize, usize),
}

/// The transactions, and which of them our nodes do not know.
pub(super) fn build(tables: &[RowTable]) -> Result<(Vec<DeclaredTransaction>, Vec<bool>), SyntheticError> {
    let mut rows: Vec<&RowTable> = Vec::new();
    for table in tables {
        let room = MAX_ROWS - rows.len();
        if table.count as usize > room {
            return wrong(rows.len(), format!("with `count` there are more than {MAX_ROWS} transactions"));
        }
        if table.sigops.is_some_and(|sigops| sigops > MAX_SIGOPS) {
            return wrong(rows.len(), format!("more than {MAX_SIGOPS} sigops; a block may have 80000"));
        }
        rows.extend(std::iter::repeat_n(table, table.count as usize));
    }
    let plan = Plan::new(&rows)?;
    let shapes = (0..rows.len()).map(|row| Shape::new(row, &rows, &plan)).collect::<Result<Vec<_>, _>>()?;
    let values = plan.values(&rows, &shapes);
    let mut made: Vec<Option<(Transaction, TxOut)>> = vec![None; rows.len()];
    for &row in &plan.order {
        let (previous_output, spent) = match plan.spent[row] {
            Spent::Outside(first) => {
                let id = sha256::Hash::hash(format!("reservegrid synthetic {first}").as_bytes());
                let spent = TxOut {
                    value: Amount::from_sat(values.outside[first]),
                    script_pubkey: plan.kinds[row].script_pubkey(),
                };
                (OutPoint::new(Txid::from_byte_array(id.to_byte_array()), 0), spent)
            }
            Spent::Inside(parent, at) => {
                let Some((parent, _)) = &made[parent] else { return wrong(row, "its parent is missing") };
                let vout = u32::try_from(at).unwrap_or(u32::MAX);
                (OutPoint::new(parent.compute_txid(), vout), parent.output[at].clone())
            }
        };
        let mut transaction = shapes[row].transaction(row, rows[row], &plan);
        transaction.input[0].previous_output = previous_output;
        for (output, value) in transaction.output.iter_mut().zip(&values.inside[row]) {
            output.value = Amount::from_sat(*value);
        }
        // What others that spend the same need more than this row goes into its first payment.
        let paid = transaction.output.iter().map(|output| output.value.to_sat()).fold(0, u64::saturating_add);
        let rest = spent.value.to_sat().saturating_sub(rows[row].fee.saturating_add(paid));
        if let Some(first) = transaction.output.get_mut(values.inside[row].len()) {
            first.value = Amount::from_sat(first.value.to_sat().saturating_add(rest));
        }
        made[row] = Some((transaction, spent));
    }
    let declared = rows.iter().enumerate().map(|(row, table)| {
        let original = table.repeats.unwrap_or(row);
        let Some((transaction, spent)) = &made[original] else { return wrong(row, "it repeats nothing") };
        let DeclaredRow { txid, wtxid, weight, sigops, fee } = table.declared.clone();
        Ok(DeclaredTransaction {
            bytes: encode::serialize(transaction),
            txid,
            wtxid,
            weight,
            sigops,
            fee: fee.or(Some(rows[original].fee)),
            spent: Some(vec![spent.clone()]),
        })
    });
    Ok((declared.collect::<Result<_, _>>()?, rows.iter().map(|table| table.unknown).collect()))
}

/// Who spends what.
pub(super) struct Plan {
    /// Of each row.
    spent: Vec<Spent>,
    /// The kind of it.
    pub(super) kinds: Vec<Kind>,
    /// The rows that spend an output of each row; the first to spend one gives its kind.
    pub(super) children: Vec<Vec<Vec<usize>>>,
    /// Whether others spend the same.
    pub(super) shared: Vec<bool>,
    /// The rows that are transactions of their own, parents first.
    order: Vec<usize>,
}

impl Plan {
    fn new(rows: &[&RowTable]) -> Result<Self, SyntheticError> {
        let mut plan = Self {
            spent: (0..rows.len()).map(Spent::Outside).collect(),
            kinds: rows.iter().map(|row| Kind::of(row)).collect(),
            children: vec![Vec::new(); rows.len()],
            shared: vec![false; rows.len()],
            order: Vec::new(),
        };
        for (row, table) in rows.iter().enumerate() {
            let links = [table.spends, table.double_spends, table.repeats];
            if links.iter().flatten().count() > 1 {
                return wrong(row, "it can have one of `spends`, `double_spends` and `repeats`, not more");
            }
            for other in links.into_iter().flatten() {
                if other >= rows.len() || other == row {
                    let problem = format!("there is no other row {other}; rows are 0 to {}", rows.len() - 1);
                    return wrong(row, problem);
                }
                if rows[other].repeats.is_some() {
                    return wrong(row, format!("row {other} repeats another; name the original"));
                }
            }
            if let Some(parent) = table.spends {
                plan.spent[row] = Spent::Inside(parent, plan.children[parent].len());
                plan.children[parent].push(vec![row]);
            }
        }
        for (row, table) in rows.iter().enumerate() {
            let Some(other) = table.double_spends else { continue };
            if rows[other].double_spends.is_some() {
                return wrong(row, format!("row {other} is a double spend itself; name the row it doubles"));
            }
            (plan.shared[row], plan.shared[other]) = (true, true);
            (plan.spent[row], plan.kinds[row]) = (plan.spent[other], plan.kinds[other].clone());
            if let Spent::Inside(parent, at) = plan.spent[row] {
                plan.children[parent][at].push(row);
            }
        }
        plan.order(rows)?;
        Ok(plan)
    }

    fn order(&mut self, rows: &[&RowTable]) -> Result<(), SyntheticError> {
        let own = |row: &usize| rows[*row].repeats.is_none();
        let roots = (0..rows.len()).filter(|row| matches!(self.spent[*row], Spent::Outside(_)));
        self.order = roots.filter(own).collect();
        let mut next = 0;
        while let Some(&row) = self.order.get(next) {
            self.order.extend(self.children[row].iter().flatten().copied());
            next += 1;
        }
        let mut reached = vec![false; rows.len()];
        for &row in &self.order {
            reached[row] = true;
        }
        match (0..rows.len()).filter(own).find(|row| !reached[*row]) {
            Some(row) => wrong(row, "it spends, over other rows, its own output; no transaction can"),
            None => Ok(()),
        }
    }

    fn values(&self, rows: &[&RowTable], shapes: &[Shape]) -> Values {
        let mut values = Values {
            outside: vec![0; rows.len()],
            inside: self.children.iter().map(|slots| vec![0; slots.len()]).collect(),
        };
        for &row in self.order.iter().rev() {
            let children: u64 = values.inside[row].iter().fold(0, |sum, value| sum.saturating_add(*value));
            let payments = PAYMENT * shapes[row].payments as u64;
            let needed = rows[row].fee.saturating_add(payments).saturating_add(children);
            let value = values.of(self.spent[row]);
            *value = needed.max(*value);
        }
        values
    }
}

/// What each output that is spent is worth, satoshi: enough for the most needy of those that spend it.
struct Values {
    outside: Vec<u64>,
    inside: Vec<Vec<u64>>,
}

impl Values {
    fn of(&mut self, spent: Spent) -> &mut u64 {
        match spent {
            Spent::Outside(row) => &mut self.outside[row],
            Spent::Inside(row, at) => &mut self.inside[row][at],
        }
    }
}
