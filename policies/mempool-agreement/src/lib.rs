//! Refuses block templates with transactions that the operator's nodes do not know.
//!
//! A block full of transactions that nobody has seen travels slowly, for every node must fetch them
//! first, and it can hold what nodes would not have relayed. A few unknown ones are normal: mempools
//! never agree to the last transaction. So there are two limits, an absolute one and a share of the
//! template, and a template must stay within both.
//!
//! Where the gateway cannot say which transactions are known, a template of the operator's own node
//! passes, for that node knows what it put there; for a declared one the operator chooses.

use reservegrid_policy_sdk::{
    Context, Policy, Provenance, Rejection, Settings, Template, Verdict, block_hash, export_policy,
};

const CODE: &str = "unknown_transactions_exceeded";

/// The policy with its settings.
#[derive(Clone, Debug)]
pub struct MempoolAgreement {
    max_unknown: u64,
    max_unknown_permille: u64,
    accept_when_unknown: bool,
}

impl Policy for MempoolAgreement {
    const NAME: &'static str = "mempool-agreement";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Refuses templates with too many transactions that our nodes do not know.";
    const CODES: &'static [(&'static str, &'static str)] = &[(
        CODE,
        "More transactions than allowed are unknown to the operator's nodes, or it is not known how many.",
    )];

    fn configure(settings: &mut Settings) -> Self {
        Self {
            max_unknown: settings.integer(
                "max_unknown",
                "Most unknown transactions.",
                0..=100_000,
                Some(100),
            ),
            max_unknown_permille: settings.integer(
                "max_unknown_permille",
                "Most unknown transactions, in thousandths of the template's transactions.",
                0..=1000,
                Some(50),
            ),
            accept_when_unknown: settings.choice(
                "when_unknown",
                "What holds for a declared template when it is not known which transactions are known.",
                &[("reject", false), ("accept", true)],
            ),
        }
    }

    fn evaluate(&self, template: &Template, context: &Context) -> Verdict {
        let summary = template.summary();
        let Some(unknown) = context.unknown_transactions else {
            if self.accept_when_unknown || summary.provenance == Provenance::Node {
                return Ok(());
            }
            let detail = "unknown_transactions=unknown, when_unknown=reject";
            return Err(Rejection::new(CODE, detail).with("when_unknown", "reject"));
        };
        let (unknown, count) = (u64::from(unknown), u64::from(summary.transaction_count));
        self.check(unknown, count).map_err(|rejection| name_first(rejection, template))
    }
}

export_policy!(MempoolAgreement);

impl MempoolAgreement {
    /// The smaller of the two limits holds.
    fn check(&self, unknown: u64, count: u64) -> Verdict {
        let limit = self.max_unknown.min(count * self.max_unknown_permille / 1000);
        if unknown <= limit {
            return Ok(());
        }
        let detail = format!("unknown_transactions={unknown} > max_unknown_used={limit}");
        Err(Rejection::new(CODE, detail).with("max_unknown_used", limit))
    }
}

/// Says which is the first of the unknown ones: where to begin looking.
fn name_first(rejection: Rejection, template: &Template) -> Rejection {
    let mut rows = template.known().zip(template.txids()).enumerate();
    match rows.find(|(_, (known, _))| !known) {
        Some((index, (_, txid))) => {
            rejection.with("first_unknown_index", index as u64).with("first_unknown_txid", block_hash(&txid))
        }
        None => rejection,
    }
}

#[cfg(test)]
mod tests;
