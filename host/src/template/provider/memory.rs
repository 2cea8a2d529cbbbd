//! What is remembered of a Template Provider from one connection to the next: the tips it told, and enough of
//! its templates to hand it a block.
//!
//! A provider says no height of a tip, only the height of the block on it. So that a template for a height of
//! the past is noticed, heights are kept: a tip keeps its height for ever, and the chain does not go back
//! further than any money would survive.

use super::{
    super::{NextBlock, Place, SourceError, SourceTip, Template, merkle},
    message::{NewTip, Offer},
};
use crate::reason::Reason;
use bitcoin::{Block, BlockHash, TxOut, hashes::Hash};
use std::collections::VecDeque;

/// Tips that are remembered.
const MAX_TIPS: usize = 64;
/// Templates that are remembered; miners may work on each of them for a while.
const MAX_TEMPLATES: usize = 64;
/// Blocks by which a tip may lie below the highest one: coins of a block can be spent after so many.
const MAX_STEP_BACK: u32 = 100;

/// See the module.
#[derive(Debug, Default)]
pub struct Memory {
    /// Tips and their heights, newest last.
    tips: VecDeque<(BlockHash, u32)>,
    highest: u32,
    templates: VecDeque<Given>,
    /// The newest tip.
    pub(super) tip: Option<SourceTip>,
    /// Numbers the templates that were handed on.
    pub(super) serial: u64,
}

/// A template that was handed on, without its transactions.
#[derive(Debug)]
struct Given {
    id: u64,
    previous_block_hash: BlockHash,
    merkle_path: Vec<[u8; 32]>,
    outputs: Vec<TxOut>,
}

impl Memory {
    /// Notes a tip, for which this template was offered; gives the tip's height.
    ///
    /// # Errors
    /// `template_source_invalid` when the heights contradict what the provider said before.
    pub(super) fn moved(&mut self, tip: &NewTip, offer: &Offer) -> Result<u32, SourceError> {
        let height = offer.height.saturating_sub(1);
        let invalid = |detail| SourceError { reason: Reason::TemplateSourceInvalid, detail };
        if let Some((_, known)) = self.tips.iter().find(|(hash, known)| *hash == tip.hash && *known != height)
        {
            let detail = format!(
                "template {} is for height {}, but the block it builds on has height {known}",
                offer.id, offer.height
            );
            return Err(invalid(detail));
        }
        if height.saturating_add(MAX_STEP_BACK) < self.highest {
            let detail = format!(
                "template {} is for height {}, and the chain was at {} before; if it really went back so far, \
                 start the gateway again",
                offer.id, offer.height, self.highest
            );
            return Err(invalid(detail));
        }
        self.tips.retain(|(hash, _)| *hash != tip.hash);
        keep(&mut self.tips, (tip.hash, height), MAX_TIPS);
        self.highest = self.highest.max(height);
        let next = NextBlock { height: offer.height, bits: tip.bits, min_time: tip.time };
        self.tip = Some(SourceTip {
            hash: tip.hash,
            next: Some(next),
            place: Some(Place { hash: tip.hash, height, work: None }),
        });
        Ok(height)
    }

    /// Whether the provider has had this block as its tip.
    pub(super) fn was_tip(&self, hash: BlockHash) -> bool {
        self.tips.iter().any(|(tip, _)| *tip == hash)
    }

    /// Notes a template that is handed on under this number.
    pub(super) fn given(&mut self, id: u64, template: &Template) {
        let given = Given {
            id,
            previous_block_hash: template.previous_block_hash,
            merkle_path: template.facts.merkle_path.clone(),
            outputs: template.coinbase.transaction.output.clone(),
        };
        keep(&mut self.templates, given, MAX_TEMPLATES);
    }

    /// The number of the template that a block was made from.
    pub(super) fn template_of(&self, block: &Block) -> Option<u64> {
        let (coinbase, others) = block.txdata.split_first()?;
        let on_tip = |given: &&Given| given.previous_block_hash == block.header.prev_blockhash;
        let mut candidates = self.templates.iter().rev().filter(on_tip).peekable();
        candidates.peek()?;
        let path = merkle::path(others.iter().map(|tx| tx.compute_txid().to_byte_array()));
        let made = |given: &&Given| given.merkle_path == path && given.outputs == coinbase.output;
        candidates.find(made).map(|given| given.id)
    }
}

fn keep<T>(list: &mut VecDeque<T>, item: T, most: usize) {
    if list.len() == most {
        list.pop_front();
    }
    list.push_back(item);
}
