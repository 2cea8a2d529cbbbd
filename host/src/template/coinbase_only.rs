//! Templates without transactions, made by the gateway itself where the operator wants them.
//!
//! A block needs nothing from a mempool: height, target and smallest time follow from the chain. So there can
//! be one on a tip whose templates were all refused, or cannot be used; and, in advance, one on the tip after
//! this, whatever block that will be. They are declared, assembled, judged and recorded like any other, with
//! [`Provenance::Gateway`]; what they leave on the table is for policies to judge.

use super::{
    ChainTip, CoinbaseParts, CoinbaseSpec, Context, Declared, NextBlock, Provenance, Sourced, Template,
    TemplateError, facts, future_tip,
};
use bitcoin::{BlockHash, Network, Target, block::Version};

/// The version of a block that signals nothing (BIP 9).
const VERSION: i32 = 0x2000_0000;

/// Makes them.
#[derive(Clone, Debug)]
pub struct CoinbaseOnly {
    /// The network they are for.
    pub network: Network,
    /// What their coinbase is like.
    pub coinbase: CoinbaseSpec,
}

impl CoinbaseOnly {
    /// One on the tip of a template, where that has none of its own to give.
    ///
    /// # Errors
    /// When the coinbase cannot be planned.
    pub fn beside(&self, template: &Template, context: &Context) -> Result<Sourced, TemplateError> {
        let next = NextBlock { height: template.height, bits: template.bits, min_time: template.min_time };
        self.make(template.previous_block_hash, next, template.version, template.current_time, context)
    }

    /// One on a tip of which there is no template; `now` in Unix seconds.
    ///
    /// # Errors
    /// When the source says what no block of the network may be like.
    pub fn on(&self, tip: BlockHash, next: NextBlock, now: u32) -> Result<Sourced, TemplateError> {
        self.make(tip, next, Version::from_consensus(VERSION), now, &Context::default())
    }

    /// One on the tip after a template's: the block that comes may be anybody's. Its target is the present
    /// one, its smallest time a lower bound (the median of eleven times never falls). If the next block needs
    /// another target, it becomes nothing.
    ///
    /// # Errors
    /// As [`beside`](Self::beside).
    pub fn after(&self, template: &Template, context: &Context) -> Result<Sourced, TemplateError> {
        let height = template.height.saturating_add(1);
        let next = NextBlock { height, bits: template.bits, min_time: template.min_time };
        self.make(future_tip(), next, template.version, template.current_time, context)
    }

    fn make(
        &self,
        tip: BlockHash,
        NextBlock { height, bits, min_time }: NextBlock,
        version: Version,
        now: u32,
        context: &Context,
    ) -> Result<Sourced, TemplateError> {
        let declared = Declared {
            network: self.network,
            provenance: Provenance::Gateway,
            height,
            version,
            previous_block_hash: tip,
            bits,
            target: Some(Target::from_compact(bits).to_be_bytes()),
            min_time,
            current_time: now.max(min_time),
            coinbase_value: facts::subsidy(height, self.network),
            coinbase: CoinbaseParts::Planned(self.coinbase.clone()),
            merkle_path: None,
            transaction_count: Some(0),
            witness_commitment_script: Some(facts::witness_commitment_script(&[])),
            transactions: Vec::new(),
        };
        let template = facts::assemble(&declared)?;
        // The tip of a future template is not known: policies are told so.
        let known = (!template.is_future()).then(|| ChainTip {
            hash: tip,
            height: height.saturating_sub(1),
            next_bits: Some(bits),
        });
        let context = Context { tip: known, known: Some([].into()), ..context.clone() };
        Ok(Sourced::new(declared, template, context))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::template::synthetic::{self, ContextTable, TemplateTable};
    use bitcoin::{ScriptBuf, hashes::Hash};

    fn maker() -> CoinbaseOnly {
        let coinbase = CoinbaseSpec { payout: ScriptBuf::from_bytes(vec![0x51]).into(), tag: "/t/".into() };
        CoinbaseOnly { network: Network::Regtest, coinbase }
    }

    fn template(height: u32) -> Template {
        let table = TemplateTable { height, ..TemplateTable::default() };
        let (declared, _) = synthetic::build(&table, &ContextTable::default()).unwrap();
        facts::assemble(&Declared { network: Network::Regtest, ..declared }).unwrap()
    }

    #[test]
    fn one_beside_a_template_is_on_its_tip_pays_the_subsidy_and_is_what_it_says() {
        let full = template(200);
        let made = maker().beside(&full, &Context::default()).unwrap().template;
        assert_eq!(made.previous_block_hash, full.previous_block_hash);
        assert_eq!((made.height, made.bits, made.min_time), (full.height, full.bits, full.min_time));
        assert_eq!((made.coinbase_value, made.transactions.len()), (made.subsidy, 0));
        assert!(made.discrepancies.is_empty() && made.is_coinbase_only() && !full.is_coinbase_only());
    }

    #[test]
    fn what_was_made_ahead_becomes_the_one_on_its_tip_whatever_block_that_is() {
        let (now, then) = (template(200), template(201));
        let (maker, context) = (maker(), Context::default());
        let ahead = maker.after(&now, &context).unwrap();
        assert!(ahead.template.is_future() && ahead.context.tip.is_none());
        let became = maker.beside(&then, &context).unwrap().template;
        assert!(became.activates(&ahead.template));
        let tip = BlockHash::from_byte_array([9; 32]);
        let next = NextBlock { height: 201, bits: then.bits, min_time: then.min_time + 77 };
        assert!(maker.on(tip, next, then.current_time + 99).unwrap().template.activates(&ahead.template));
    }

    #[test]
    fn nothing_else_becomes_it() {
        let (maker, context) = (maker(), Context::default());
        let ahead = maker.after(&template(200), &context).unwrap().template;
        let tip = BlockHash::from_byte_array([9; 32]);
        let next = NextBlock { height: 201, bits: ahead.bits, min_time: ahead.min_time };
        let becomes = |maker: &CoinbaseOnly, next| {
            maker.on(tip, next, ahead.current_time).unwrap().template.activates(&ahead)
        };
        assert!(becomes(&maker, next));
        assert!(!becomes(&maker, NextBlock { height: 202, ..next }), "another height");
        let harder = bitcoin::CompactTarget::from_consensus(0x1f00_ffff);
        assert!(!becomes(&maker, NextBlock { bits: harder, ..next }), "another target");
        let mut other = maker.clone();
        other.coinbase.tag = "/u/".into();
        assert!(!becomes(&other, next), "another coinbase");
        assert!(!ahead.activates(&ahead), "it is itself a future one");
        assert!(!template(201).activates(&ahead), "one of another maker");
    }
}
