//! Refuses block templates that earn less than they should.
//!
//! Two questions. Does the template bring about as much as the best one that the operator's nodes made
//! on the same block? And is what the coinbase may pay out the subsidy and the fees of the
//! transactions, no more and no less? A declared fee that is not what the transaction pays (the
//! discrepancy `fee`) is answered here as well.

use reservegrid_policy_sdk::{
    Context, Discrepancy, DiscrepancyKind, Policy, Rejection, Settings, Template, Verdict, export_policy,
};

/// The policy with its settings.
#[derive(Clone, Debug)]
pub struct RevenueGuard {
    tolerance_permille: u64,
}

impl Policy for RevenueGuard {
    const NAME: &'static str = "revenue-guard";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Refuses templates that earn less than they should.";
    const CODES: &'static [(&'static str, &'static str)] = &[
        (
            "template_value_below_best",
            "The template brings less than the best one known on the same block, tolerance considered.",
        ),
        (
            "fee_sum_mismatch",
            "What the coinbase may pay out is not subsidy and fees, or the template does not pay the fees that \
             were declared, or is not what was declared in another way (`integrity` says which).",
        ),
    ];

    fn configure(settings: &mut Settings) -> Self {
        Self {
            tolerance_permille: settings.integer(
                "tolerance_permille",
                "How much less than the best known template one may bring, in thousandths of that one.",
                0..=1000,
                Some(10),
            ),
        }
    }

    fn evaluate(&self, template: &Template, context: &Context) -> Verdict {
        if let Some(found) = template.discrepancy(DiscrepancyKind::Fee) {
            return not_as_declared("fee", found);
        }
        check_fees(template)?;
        // Who asks for discrepancies answers for all of them; and fees of a template that is not what
        // was declared say nothing.
        if let Some(found) = template.discrepancies().first() {
            return not_as_declared("derived", found);
        }
        self.check_value(template.summary().coinbase_value, context.best_template_value)
    }
}

export_policy!(RevenueGuard);

impl RevenueGuard {
    /// Where no best value is known, nothing better is known.
    fn check_value(&self, value: u64, best: Option<u64>) -> Verdict {
        let Some(best) = best else {
            return Ok(());
        };
        // In thousandths, so that nothing is rounded away; 21 million bitcoin leave room for that.
        let least = best.saturating_mul(1000 - self.tolerance_permille);
        if value.saturating_mul(1000) >= least {
            return Ok(());
        }
        let least = least.div_ceil(1000);
        let detail = format!("coinbase_value={value} < min_coinbase_value={least}");
        Err(Rejection::new("template_value_below_best", detail)
            .with("best_template_value", best)
            .with("min_coinbase_value", least)
            .with("tolerance_permille", self.tolerance_permille))
    }
}

/// What was declared and is not so.
fn not_as_declared(name: &str, found: &Discrepancy) -> Verdict {
    let detail = format!("{name}={} != declared={}", found.derived, found.declared);
    let rejection = Rejection::new("fee_sum_mismatch", detail);
    Err(match found.transaction {
        Some(index) => rejection.with("transaction_index", index),
        None => rejection,
    })
}

fn check_fees(template: &Template) -> Verdict {
    let summary = template.summary();
    // The sum alone: a source may say it without the single fees.
    let fees = summary.total_fees;
    let expected = summary.subsidy.saturating_add(fees);
    if summary.coinbase_value == expected {
        return Ok(());
    }
    let detail = format!("coinbase_value={} != subsidy_and_fees={expected}", summary.coinbase_value);
    Err(Rejection::new("fee_sum_mismatch", detail).with("subsidy", summary.subsidy).with("fees", fees))
}

#[cfg(test)]
mod tests;
