//! Refuses block templates that are too large, too heavy or too old.
//!
//! The limits on block weight and signature operations are the network's by default (BIP 141): a block
//! beyond them is invalid, and the work on it lost. The coinbase counts: a template that fits without
//! it can be a block that does not. The others are taste, and switched off by default as far as a
//! quiet network or the first seconds after a block would trip over them.

use reservegrid_policy_sdk::{
    Context, Policy, Rejection, Settings, Template, TemplateSummary, Verdict, export_policy,
};

/// Most weight that a block may have, weight units, and most signature operation cost (BIP 141).
const CONSENSUS_WEIGHT: u64 = 4_000_000;
const CONSENSUS_SIGOPS: u64 = 80_000;
/// Signature operation cost that nodes reserve for the coinbase when they make a template.
const RESERVED_SIGOPS: u64 = 400;

/// The policy with its settings.
#[derive(Clone, Debug)]
pub struct Limits {
    accept_empty: bool,
    max_transactions: u64,
    max_block_weight: u64,
    max_block_sigops: u64,
    max_coinbase_sigops: u64,
    max_transaction_weight: u64,
    max_template_age_ms: u64,
}

impl Policy for Limits {
    const NAME: &'static str = "limits";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Refuses templates that are too large, too heavy or too old.";
    const CODES: &'static [(&'static str, &'static str)] = &[
        ("template_empty", "The template has no transactions, and the settings say to refuse that."),
        ("transaction_count_above_limit", "The template has more transactions than allowed."),
        (
            "block_weight_above_limit",
            "The block would weigh more than allowed, coinbase and header included.",
        ),
        ("block_sigops_above_limit", "The block would have more signature operations than allowed."),
        ("coinbase_sigops_above_limit", "The coinbase has more signature operations than allowed."),
        ("transaction_weight_above_limit", "A transaction weighs more than allowed."),
        ("template_age_above_limit", "The template was made too long ago."),
    ];

    fn configure(settings: &mut Settings) -> Self {
        Self {
            accept_empty: settings.boolean(
                "accept_empty",
                "Whether a template without transactions passes.",
                Some(true),
            ),
            max_transactions: settings.integer(
                "max_transactions",
                "Most transactions, without the coinbase. More than 16,666 of the smallest fit no block.",
                0..=100_000,
                Some(16_666),
            ),
            max_block_weight: settings.integer(
                "max_block_weight",
                "Most weight of the block, weight units: transactions, coinbase, header and their count.",
                0..=CONSENSUS_WEIGHT,
                Some(CONSENSUS_WEIGHT),
            ),
            max_block_sigops: settings.integer(
                "max_block_sigops",
                "Most signature operation cost of the block, coinbase included.",
                0..=CONSENSUS_SIGOPS,
                Some(CONSENSUS_SIGOPS),
            ),
            max_coinbase_sigops: settings.integer(
                "max_coinbase_sigops",
                "Most signature operation cost of the coinbase. Nodes reserve 400 for it.",
                0..=CONSENSUS_SIGOPS,
                Some(RESERVED_SIGOPS),
            ),
            max_transaction_weight: settings.integer(
                "max_transaction_weight",
                "Most weight of one transaction, weight units. Nodes relay up to 400,000.",
                0..=CONSENSUS_WEIGHT,
                Some(CONSENSUS_WEIGHT),
            ),
            max_template_age_ms: settings.integer(
                "max_template_age_ms",
                "Most time since the gateway got the template, milliseconds.",
                0..=86_400_000,
                Some(120_000),
            ),
        }
    }

    fn evaluate(&self, template: &Template, context: &Context) -> Verdict {
        let summary = template.summary();
        self.check_count(summary.transaction_count)?;
        at_most(
            "template_age_above_limit",
            "template_age_ms",
            context.template_age_ms,
            self.max_template_age_ms,
        )?;
        self.check_block(summary, template)?;
        self.check_transactions(template)
    }
}

export_policy!(Limits);

impl Limits {
    fn check_count(&self, count: u32) -> Verdict {
        if count == 0 && !self.accept_empty {
            return Err(Rejection::new("template_empty", "transaction_count=0, accept_empty=false"));
        }
        at_most("transaction_count_above_limit", "transactions", count.into(), self.max_transactions)
    }

    fn check_block(&self, summary: &TemplateSummary, template: &Template) -> Verdict {
        let coinbase = template.coinbase();
        let sigops = u64::from(coinbase.sigops);
        at_most("coinbase_sigops_above_limit", "coinbase_sigops", sigops, self.max_coinbase_sigops)?;
        let sigops = summary.total_sigops.saturating_add(sigops);
        at_most("block_sigops_above_limit", "block_sigops", sigops, self.max_block_sigops)?;
        let weight = frame_weight(summary.transaction_count)
            .saturating_add(coinbase.weight.into())
            .saturating_add(summary.total_weight);
        at_most("block_weight_above_limit", "block_weight", weight, self.max_block_weight)
    }

    /// No transaction weighs more than all together, so most templates need no closer look.
    fn check_transactions(&self, template: &Template) -> Verdict {
        let limit = self.max_transaction_weight;
        if template.summary().total_weight <= limit {
            return Ok(());
        }
        for chunk in template.chunks() {
            let weights = chunk.weights();
            let heaviest = weights.iter().copied().max().unwrap_or(0);
            if u64::from(heaviest) <= limit {
                continue;
            }
            let at = weights.iter().position(|weight| u64::from(*weight) > limit).unwrap_or(0);
            let weight = u64::from(weights[at]);
            return at_most("transaction_weight_above_limit", "transaction_weight", weight, limit).map_err(
                |rejection| rejection.with("transaction_index", u64::from(chunk.start()) + at as u64),
            );
        }
        Ok(())
    }
}

/// Weight of the header and of the number of transactions that follows it (80 bytes, and a compact size
/// that counts the coinbase; none of them is witness data).
fn frame_weight(transactions: u32) -> u64 {
    let count_bytes = match u64::from(transactions) + 1 {
        0..=0xfc => 1,
        0xfd..=0xffff => 3,
        _ => 5,
    };
    4 * (80 + count_bytes)
}

/// Refuses what is above its limit, with both in the detail and the limit in the context.
fn at_most(code: &str, name: &str, measured: u64, limit: u64) -> Verdict {
    if measured <= limit {
        return Ok(());
    }
    let detail = format!("{name}={measured} > max_{name}={limit}");
    Err(Rejection::new(code, detail).with(&format!("max_{name}"), limit))
}

#[cfg(test)]
mod tests;
