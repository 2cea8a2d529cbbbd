//! What the operator's own nodes could have earned: the best coinbase value for each of the last tips.
//!
//! It tells a policy how much a template leaves on the table. Sans-IO: templates go in as they arrive.

use super::{Provenance, Template};
use bitcoin::BlockHash;
use std::collections::VecDeque;

/// Tips that are remembered: the current one, and a few that a reorganisation may bring back.
const MAX_TIPS: usize = 4;

/// What a template earns: what a node declares beyond subsidy and fees is nothing that anybody could earn.
fn value(template: &Template) -> u64 {
    template.coinbase_value.min(template.subsidy + template.facts.total_fees)
}

/// The best coinbase values seen, newest tip last.
#[derive(Debug, Default)]
pub struct BestValues {
    tips: VecDeque<(BlockHash, u64)>,
}

impl BestValues {
    /// Notes a template, and says which coinbase value is the largest of all templates of our nodes on
    /// the same previous block, satoshi. `None` when there was none yet.
    pub fn note(&mut self, template: &Template) -> Option<u64> {
        if template.is_future() {
            // On a block that is not known yet: others of its kind may have been for another.
            return (template.provenance == Provenance::Node).then(|| value(template));
        }
        let tip = template.previous_block_hash;
        let known = self.tips.iter().position(|(hash, _)| *hash == tip);
        let best = known.map(|position| self.tips[position].1);
        if template.provenance != Provenance::Node {
            return best;
        }
        let value = value(template);
        let best = best.map_or(value, |best| best.max(value));
        if let Some(position) = known {
            self.tips.remove(position);
        }
        self.tips.push_back((tip, best));
        if self.tips.len() > MAX_TIPS {
            self.tips.pop_front();
        }
        Some(best)
    }
}
