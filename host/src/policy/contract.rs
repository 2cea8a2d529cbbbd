//! The WIT contract, and the template as its functions show it.
//!
//! The host keeps the template; the guest pulls what it needs, a range of rows a call. Nothing here
//! parses or hashes: the facts were derived once, in the template room. Each call is charged to a
//! budget of bytes, because wasmtime counts neither the host's work nor its copies as fuel.

use self::reservegrid::policy::{context, log, template};
use super::engine::{EngineLimits, Exceeded, Limiter};
use crate::template::{Context, Provenance, Template};
use bitcoin::{Transaction, consensus::encode::serialize, hashes::Hash};
use std::{ops::Range, sync::Arc};
use wasmtime::component::{HasSelf, Linker};

wasmtime::component::bindgen!({
    path: "../wit/policy-0.1.0",
    world: "template-policy",
    imports: { default: trappable },
});

pub(super) use self::reservegrid::policy::types;

/// What may be imported: anything else is refused when a module is loaded.
pub(super) const IMPORTS: &str = "reservegrid:policy/";
/// The version of the contract that this gateway serves, as it stands in import names.
pub(super) const VERSION: &str = "@0.1.0";

/// Most rows of a column in one call.
const MAX_ROWS: usize = 16_384;
/// What one evaluation may be given in all, bytes.
const MAX_BYTES: usize = 64 << 20;
/// What a call costs on top of the bytes that it copies.
const CALL_COST: usize = 64;
/// Lines and bytes a line that `log` keeps.
const MAX_LOG_LINES: u32 = 64;
const MAX_LOG_LINE: usize = 512;

/// The inputs of a verdict.
#[derive(Clone)]
pub(super) struct Inputs {
    pub(super) template: Arc<Template>,
    pub(super) context: Context,
}

/// What the store of one instance holds.
pub(super) struct State {
    /// `None` while a module is loaded: there is nothing to look at yet.
    inputs: Option<Inputs>,
    pub(super) limiter: Limiter,
    bytes_left: usize,
    log_lines: u32,
}

impl State {
    pub(super) fn new(limits: &EngineLimits, inputs: Option<Inputs>) -> Self {
        Self { inputs, limiter: Limiter::new(limits), bytes_left: MAX_BYTES, log_lines: 0 }
    }

    fn inputs(&self) -> wasmtime::Result<&Inputs> {
        self.inputs.as_ref().ok_or_else(|| wasmtime::Error::msg("there is a template in `evaluate` alone"))
    }

    fn charge(&mut self, bytes: usize) -> wasmtime::Result<()> {
        match self.bytes_left.checked_sub(bytes.saturating_add(CALL_COST)) {
            Some(left) => self.bytes_left = left,
            None => return Err(Exceeded { limit: MAX_BYTES, unit: "bytes of template data" }.into()),
        }
        Ok(())
    }

    /// The asked-for rows that exist, charged at `width` bytes each.
    fn rows(&mut self, start: u32, count: u32, width: usize) -> wasmtime::Result<(&Template, Range<usize>)> {
        let total = self.inputs()?.template.transactions.len();
        let start = (start as usize).min(total);
        let rows = start..total.min(start + (count as usize).min(MAX_ROWS));
        self.charge(rows.len() * width)?;
        Ok((&self.inputs()?.template, rows))
    }
}

/// Gives a linker the contract's imports and nothing else.
pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    TemplatePolicy::add_to_linker::<_, HasSelf<_>>(linker, |state| state)
}

impl types::Host for State {}

impl template::Host for State {
    fn summary(&mut self) -> wasmtime::Result<template::TemplateSummary> {
        self.charge(128)?;
        let template = &self.inputs()?.template;
        Ok(template::TemplateSummary {
            height: template.height,
            version: template.version.to_consensus().cast_unsigned(),
            previous_block_hash: template.previous_block_hash.to_byte_array().to_vec(),
            bits: template.bits.to_consensus(),
            min_time: template.min_time,
            current_time: template.current_time,
            transaction_count: u32::try_from(template.transactions.len())?,
            total_fees: template.facts.total_fees,
            total_weight: template.facts.total_weight,
            total_sigops: template.facts.total_sigops,
            coinbase_value: template.coinbase_value,
            subsidy: template.subsidy,
            provenance: match template.provenance {
                Provenance::Node => template::Provenance::Node,
                Provenance::Declared => template::Provenance::Declared,
            },
        })
    }

    fn fees(&mut self, start: u32, count: u32) -> wasmtime::Result<Vec<u64>> {
        let (template, rows) = self.rows(start, count, 8)?;
        Ok(template.facts.fees[rows].to_vec())
    }

    fn weights(&mut self, start: u32, count: u32) -> wasmtime::Result<Vec<u32>> {
        let (template, rows) = self.rows(start, count, 4)?;
        Ok(template.facts.weights[rows].to_vec())
    }

    fn sigops(&mut self, start: u32, count: u32) -> wasmtime::Result<Vec<u32>> {
        let (template, rows) = self.rows(start, count, 4)?;
        Ok(template.facts.sigops[rows].to_vec())
    }

    fn traits(&mut self, start: u32, count: u32) -> wasmtime::Result<Vec<u32>> {
        let (template, rows) = self.rows(start, count, 4)?;
        Ok(template.transactions[rows].iter().map(traits).collect())
    }

    fn txids(&mut self, start: u32, count: u32) -> wasmtime::Result<Vec<u8>> {
        let (template, rows) = self.rows(start, count, 32)?;
        Ok(template.facts.txids[rows].iter().flat_map(|txid| txid.to_byte_array()).collect())
    }

    fn raw_transaction(&mut self, index: u32) -> wasmtime::Result<Vec<u8>> {
        let Some(transaction) = self.inputs()?.template.transactions.get(index as usize) else {
            self.charge(0)?;
            return Ok(Vec::new());
        };
        let bytes = transaction.total_size();
        self.charge(bytes)?;
        Ok(self.inputs()?.template.transactions.get(index as usize).map(serialize).unwrap_or_default())
    }
}

impl context::Host for State {
    fn mempool(&mut self) -> wasmtime::Result<Option<context::MempoolState>> {
        self.charge(0)?;
        Ok(self.inputs()?.context.mempool.map(|mempool| context::MempoolState {
            transaction_count: mempool.transaction_count,
            total_vsize: mempool.total_vsize,
            total_fees: mempool.total_fees,
        }))
    }
}

impl log::Host for State {
    fn debug(&mut self, message: String) -> wasmtime::Result<()> {
        self.charge(message.len())?;
        if self.log_lines < MAX_LOG_LINES {
            self.log_lines += 1;
            let end = message.floor_char_boundary(MAX_LOG_LINE);
            tracing::debug!(target: "reservegrid::policy::guest", "{:?}", &message[..end]);
        }
        Ok(())
    }
}

/// The bits of the `traits` column.
fn traits(transaction: &Transaction) -> u32 {
    let inputs = || transaction.input.iter();
    let outputs = || transaction.output.iter();
    u32::from(inputs().any(|input| !input.witness.is_empty()))
        | u32::from(outputs().any(|output| output.script_pubkey.is_p2tr())) << 1
        | u32::from(inputs().any(|input| input.sequence.is_rbf())) << 2
        | u32::from(outputs().any(|output| output.script_pubkey.is_op_return())) << 3
}
