//! `reservegrid:policy@0.1.0`: the template as the functions of its interfaces show it.

use self::reservegrid::policy::{context, log, template, types};
use super::{Guest, Instance, State, Unknown};
use crate::template::{DiscrepancyKind, Provenance, facts::Facts};
use bitcoin::{consensus::encode::serialize, hashes::Hash};
use std::sync::Arc;
use wasmtime::{
    Engine, Store, StoreContextMut,
    component::{Component, HasSelf, Linker, Lower},
};

wasmtime::component::bindgen!({
    path: "../wit/policy-0.1.0",
    world: "template-policy",
    imports: { default: trappable },
});

/// A linker with the imports of this version and nothing else. Columns of numbers take the place of the generated
/// functions: those want a vector, which would be one more copy of what may be a whole block.
pub(super) fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    TemplatePolicy::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
    linker.allow_shadowing(true);
    column(&mut linker, "fees", fees)?;
    column(&mut linker, "weights", |facts| Ok(&facts.weights))?;
    column(&mut linker, "sigops", |facts| Ok(&facts.sigops))?;
    column(&mut linker, "traits", |facts| Ok(&facts.traits))?;
    linker.allow_shadowing(false);
    Ok(linker)
}

fn column<T>(
    linker: &mut Linker<State>,
    name: &str,
    of: impl Fn(&Facts) -> Result<&Arc<[T]>, Unknown> + Copy + Send + Sync + 'static,
) -> wasmtime::Result<()>
where
    T: Clone + Send + Sync + 'static,
    [T]: Lower,
{
    let rows = move |mut store: StoreContextMut<'_, State>, (start, count): (u32, u32)| {
        Ok((store.data_mut().column(start, count, of)?,))
    };
    linker.instance("reservegrid:policy/template@0.1.0")?.func_wrap(name, rows)
}

/// The contract has no word for an unknown fee, and any number would be a guess.
fn fees(facts: &Facts) -> Result<&Arc<[u64]>, Unknown> {
    match facts.unknown_fees {
        0 => Ok(&facts.fees),
        _ => Err(Unknown("the fees of single transactions")),
    }
}

pub(super) fn link(linker: &Linker<State>, component: &Component) -> wasmtime::Result<Box<dyn Guest>> {
    Ok(Box::new(TemplatePolicyPre::new(linker.instantiate_pre(component)?)?))
}

impl Guest for TemplatePolicyPre<State> {
    fn instantiate(&self, store: &mut Store<State>) -> wasmtime::Result<Box<dyn Instance>> {
        Ok(Box::new(TemplatePolicyPre::instantiate(self, store)?))
    }
}

impl Instance for TemplatePolicy {
    fn metadata(&self, store: &mut Store<State>) -> wasmtime::Result<types::PolicyMetadata> {
        self.call_metadata(store)
    }

    fn validate_settings(
        &self,
        store: &mut Store<State>,
        settings: &str,
    ) -> wasmtime::Result<Result<(), Vec<types::SettingsFault>>> {
        self.call_validate_settings(store, settings)
    }

    fn evaluate(&self, store: &mut Store<State>, settings: &str) -> wasmtime::Result<types::Verdict> {
        self.call_evaluate(store, settings)
    }
}

impl types::Host for State {}

impl template::Host for State {
    fn summary(&mut self) -> wasmtime::Result<template::TemplateSummary> {
        self.charge(128)?;
        let template = self.template()?;
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
                // Nobody else's word is in what the gateway made: it is the operator's own.
                Provenance::Node | Provenance::Gateway => template::Provenance::Node,
                Provenance::Declared => template::Provenance::Declared,
            },
        })
    }

    fn coinbase(&mut self) -> wasmtime::Result<template::CoinbaseTransaction> {
        let coinbase = &self.template()?.coinbase.transaction;
        let scripts = coinbase.output.iter().map(|output| output.script_pubkey.len());
        self.charge(coinbase.total_size() + scripts.map(|len| 128 + 2 * len).sum::<usize>())?;
        let coinbase = &self.template()?.coinbase;
        let input = coinbase.transaction.input.first();
        let outputs = coinbase.transaction.output.iter().zip(&coinbase.addresses);
        Ok(template::CoinbaseTransaction {
            version: coinbase.transaction.version.0.cast_unsigned(),
            script: input.map(|input| input.script_sig.to_bytes()).unwrap_or_default(),
            height: coinbase.height,
            sequence: input.map(|input| input.sequence.0).unwrap_or_default(),
            lock_time: coinbase.transaction.lock_time.to_consensus_u32(),
            outputs: outputs
                .map(|(output, address)| template::CoinbaseOutput {
                    value: output.value.to_sat(),
                    script: output.script_pubkey.to_bytes(),
                    address: address.clone(),
                })
                .collect(),
            weight: coinbase.weight,
            sigops: coinbase.sigops,
        })
    }

    fn discrepancies(&mut self) -> wasmtime::Result<Vec<template::Discrepancy>> {
        self.asked_for_discrepancies = true;
        let found = &self.template()?.discrepancies;
        let texts = found.iter().map(|one| 32 + one.declared.len() + one.derived.len());
        self.charge(texts.sum())?;
        let found = self.template()?.discrepancies.iter();
        Ok(found
            .map(|one| template::Discrepancy {
                kind: kind(one.kind),
                transaction: one.transaction,
                declared: one.declared.clone(),
                derived: one.derived.clone(),
            })
            .collect())
    }

    // These four are answered by `column` above.

    fn fees(&mut self, start: u32, count: u32) -> wasmtime::Result<Vec<u64>> {
        Ok(self.column(start, count, fees)?.to_vec())
    }

    fn weights(&mut self, start: u32, count: u32) -> wasmtime::Result<Vec<u32>> {
        Ok(self.column(start, count, |facts| Ok(&facts.weights))?.to_vec())
    }

    fn sigops(&mut self, start: u32, count: u32) -> wasmtime::Result<Vec<u32>> {
        Ok(self.column(start, count, |facts| Ok(&facts.sigops))?.to_vec())
    }

    fn traits(&mut self, start: u32, count: u32) -> wasmtime::Result<Vec<u32>> {
        Ok(self.column(start, count, |facts| Ok(&facts.traits))?.to_vec())
    }

    fn txids(&mut self, start: u32, count: u32) -> wasmtime::Result<Vec<u8>> {
        let (inputs, rows) = self.rows(start, count, 32)?;
        Ok(inputs.template.facts.txids[rows].iter().flat_map(|txid| txid.to_byte_array()).collect())
    }

    fn raw_transaction(&mut self, index: u32) -> wasmtime::Result<Vec<u8>> {
        let Some(transaction) = self.template()?.transactions.get(index as usize) else {
            self.charge(0)?;
            return Ok(Vec::new());
        };
        let bytes = transaction.total_size();
        self.charge(bytes)?;
        Ok(self.template()?.transactions.get(index as usize).map(serialize).unwrap_or_default())
    }
}

impl context::Host for State {
    fn snapshot(&mut self) -> wasmtime::Result<context::ContextSnapshot> {
        self.charge(256)?;
        let now = self.context()?;
        Ok(context::ContextSnapshot {
            taken_at: now.taken_at,
            template_age_ms: now.template_age_ms,
            tip: now.tip.map(|tip| context::ChainTip {
                hash: tip.hash.to_byte_array().to_vec(),
                height: tip.height,
                next_bits: tip.next_bits.map(|bits| bits.to_consensus()),
            }),
            mempool: now.mempool.map(|mempool| context::MempoolState {
                transaction_count: mempool.transaction_count,
                total_vsize: mempool.total_vsize,
                total_fees: mempool.total_fees,
            }),
            fee_rates: now.fee_rates.map(|rates| context::FeeRatePercentiles {
                p10: rates.p10,
                p25: rates.p25,
                p50: rates.p50,
                p75: rates.p75,
                p90: rates.p90,
            }),
            best_template_value: now.best_template_value,
            unknown_transactions: now.unknown_transactions(),
        })
    }

    fn known(&mut self, start: u32, count: u32) -> wasmtime::Result<Vec<u8>> {
        let (inputs, rows) = self.rows(start, count, 1)?;
        let known = inputs.context.known.as_deref().and_then(|known| known.get(rows));
        Ok(known.unwrap_or_default().iter().map(|known| u8::from(*known)).collect())
    }
}

impl log::Host for State {
    fn debug(&mut self, message: String) -> wasmtime::Result<()> {
        self.log(&message)
    }
}

fn kind(kind: DiscrepancyKind) -> template::DiscrepancyKind {
    use template::DiscrepancyKind as Shown;
    match kind {
        DiscrepancyKind::Target => Shown::Target,
        DiscrepancyKind::CoinbaseValue => Shown::CoinbaseValue,
        DiscrepancyKind::MerklePath => Shown::MerklePath,
        DiscrepancyKind::WitnessCommitmentMissing => Shown::WitnessCommitmentMissing,
        DiscrepancyKind::WitnessCommitment => Shown::WitnessCommitment,
        DiscrepancyKind::TransactionCount => Shown::TransactionCount,
        DiscrepancyKind::Txid => Shown::Txid,
        DiscrepancyKind::Wtxid => Shown::Wtxid,
        DiscrepancyKind::Weight => Shown::Weight,
        DiscrepancyKind::Sigops => Shown::Sigops,
        DiscrepancyKind::Fee => Shown::Fee,
        DiscrepancyKind::DuplicateTransaction => Shown::DuplicateTransaction,
        DiscrepancyKind::DoubleSpend => Shown::DoubleSpend,
        DiscrepancyKind::TransactionOrder => Shown::TransactionOrder,
        DiscrepancyKind::TransactionNotFinal => Shown::TransactionNotFinal,
    }
}
