//! Refuses block templates that pay too little.
//!
//! Three floors, each switched off by 0: the average fee of a transaction, the sum of all fees, and
//! the fee rate of every single transaction. What the average must reach depends on how full the
//! mempool is: a template that is fine on a quiet Sunday is poor when thousands of better-paying
//! transactions wait. The mempool's virtual size picks one of three tiers; what to do when the mempool
//! is unknown is the operator's choice.
//!
//! A template without transactions has an average and a sum of 0, unless `accept_empty` lets it pass:
//! right after a new block, empty templates can be all there is.

use reservegrid_policy_sdk::{
    Context, Policy, Rejection, Settings, Template, Verdict, columns, export_policy,
};

/// All the satoshi there can be.
const MAX_MONEY: u64 = 2_100_000_000_000_000;

/// The highest fee rate that can be asked for, satoshi per 1,000 vbytes: a hundredth of a bitcoin a
/// vbyte. Times the largest weight it still fits 64 bits.
const MAX_RATE: u64 = 1_000_000_000;

/// The policy with its settings.
#[derive(Clone, Debug)]
pub struct FeeFloor {
    min_avg_fee: PerTier,
    min_total_fees: u64,
    min_fee_rate: u64,
    mid_from_vsize: u64,
    high_from_vsize: u64,
    /// `None` rejects.
    unknown_mempool: Option<Tier>,
    accept_empty: bool,
}

/// How full the mempool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tier {
    Low,
    Mid,
    High,
}

impl Tier {
    fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Mid => "mid",
            Self::High => "high",
        }
    }
}

/// One amount for each tier.
#[derive(Clone, Copy, Debug)]
struct PerTier {
    low: u64,
    mid: u64,
    high: u64,
}

impl PerTier {
    fn get(self, tier: Tier) -> u64 {
        match tier {
            Tier::Low => self.low,
            Tier::Mid => self.mid,
            Tier::High => self.high,
        }
    }
}

impl Policy for FeeFloor {
    const NAME: &'static str = "fee-floor";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Refuses templates whose transactions pay too little.";
    const CODES: &'static [(&'static str, &'static str)] = &[
        (
            "avg_fee_below_minimum",
            "The average fee of a transaction is below the floor of the mempool's tier.",
        ),
        ("total_fees_below_minimum", "The fees of all transactions together are below the floor."),
        ("transaction_fee_rate_below_minimum", "A transaction pays a lower fee rate than the floor."),
        (
            "mempool_context_unavailable",
            "The mempool's state is unknown and the settings say to reject then.",
        ),
    ];

    fn configure(settings: &mut Settings) -> Self {
        let amount = 0..=MAX_MONEY;
        let vsize = 0..=1_000_000_000_000;
        let min_avg_fee = settings.object(
            "min_avg_fee",
            "Least average fee of a transaction, satoshi, by tier.",
            |tiers| PerTier {
                low: tiers.integer("low", "While the mempool is quiet.", amount.clone(), Some(0)),
                mid: tiers.integer("mid", "From `mid_from_vsize` on.", amount.clone(), None),
                high: tiers.integer("high", "From `high_from_vsize` on.", amount.clone(), None),
            },
        );
        let (mid_from_vsize, high_from_vsize) = settings.object(
            "tiers",
            "Virtual size of the mempool at which a tier begins, vbytes.",
            |tiers| {
                let mid = tiers.integer("mid_from_vsize", "About one block.", vsize.clone(), Some(1_000_000));
                let high = tiers.integer("high_from_vsize", "About ten blocks.", vsize, Some(10_000_000));
                if high < mid {
                    tiers.fault(
                        "high_from_vsize",
                        format!("must not be below mid_from_vsize, which is {mid}"),
                    );
                }
                (mid, high)
            },
        );
        Self {
            min_avg_fee,
            mid_from_vsize,
            high_from_vsize,
            min_total_fees: settings.integer(
                "min_total_fees",
                "Least sum of all fees, satoshi.",
                amount,
                Some(0),
            ),
            min_fee_rate: settings.integer(
                "min_fee_rate",
                "Least fee rate of every transaction, satoshi per 1,000 vbytes. A parent that its child pays for \
                 is judged alone.",
                0..=MAX_RATE,
                Some(0),
            ),
            unknown_mempool: settings.choice(
                "unknown_mempool",
                "Which tier holds when the state of the mempool is unknown.",
                &[
                    ("reject", None),
                    ("low", Some(Tier::Low)),
                    ("mid", Some(Tier::Mid)),
                    ("high", Some(Tier::High)),
                ],
            ),
            accept_empty: settings.boolean(
                "accept_empty",
                "Whether a template without transactions passes, whatever the floors say.",
                Some(false),
            ),
        }
    }

    fn evaluate(&self, template: &Template, context: &Context) -> Verdict {
        let summary = template.summary();
        if summary.transaction_count == 0 && self.accept_empty {
            return Ok(());
        }
        self.check_average(summary.total_fees, summary.transaction_count, context)?;
        self.check_total(summary.total_fees)?;
        self.check_rates(template)
    }
}

export_policy!(FeeFloor);

impl FeeFloor {
    fn tier(&self, context: &Context) -> Result<Tier, Rejection> {
        match context.mempool {
            Some(mempool) if mempool.total_vsize >= self.high_from_vsize => Ok(Tier::High),
            Some(mempool) if mempool.total_vsize >= self.mid_from_vsize => Ok(Tier::Mid),
            Some(_) => Ok(Tier::Low),
            None => self.unknown_mempool.ok_or_else(|| {
                Rejection::new("mempool_context_unavailable", "mempool=unknown, unknown_mempool=reject")
                    .with("unknown_mempool", "reject")
            }),
        }
    }

    /// The average is rounded down, as operators write it.
    fn check_average(&self, total_fees: u64, count: u32, context: &Context) -> Verdict {
        let PerTier { low, mid, high } = self.min_avg_fee;
        if low == 0 && mid == 0 && high == 0 {
            return Ok(()); // switched off: whatever the mempool is like
        }
        let tier = self.tier(context)?;
        let (average, floor) = (total_fees / u64::from(count.max(1)), self.min_avg_fee.get(tier));
        if average >= floor {
            return Ok(());
        }
        let detail = format!("avg_fee={average} < min_avg_fee_used={floor}");
        Err(Rejection::new("avg_fee_below_minimum", detail)
            .with("fee_tier", tier.name())
            .with("min_avg_fee_used", floor))
    }

    fn check_total(&self, total_fees: u64) -> Verdict {
        let floor = self.min_total_fees;
        if total_fees >= floor {
            return Ok(());
        }
        let detail = format!("total_fees={total_fees} < min_total_fees={floor}");
        Err(Rejection::new("total_fees_below_minimum", detail).with("min_total_fees", floor))
    }

    fn check_rates(&self, template: &Template) -> Verdict {
        if self.min_fee_rate == 0 {
            return Ok(());
        }
        // Signed, because wasm compares several numbers of 64 bits at once only then.
        let poor = |fee, weight| {
            thousandfold(fee).cast_signed() < self.min_fee_rate.wrapping_mul(vsize(weight)).cast_signed()
        };
        for chunk in template.chunks() {
            let (fees, weights) = (chunk.fees(), chunk.weights());
            let Some(at) = columns::first(&fees, &weights, poor) else {
                continue;
            };
            let rate = thousandfold(fees[at]) / vsize(weights[at]).max(1);
            let detail = format!("fee_rate={rate} < min_fee_rate={}", self.min_fee_rate);
            return Err(Rejection::new("transaction_fee_rate_below_minimum", detail)
                .with("min_fee_rate", self.min_fee_rate)
                .with("transaction_index", u64::from(chunk.start()) + at as u64));
        }
        Ok(())
    }
}

/// Multiplying keeps the comparison of fee rates exact. Nothing wraps, and nothing reaches the sign: the
/// gateway lets no template through whose fees come to more than 21 million bitcoin.
fn thousandfold(fee: u64) -> u64 {
    fee.wrapping_mul(1000)
}

/// Virtual size, vbytes: a quarter of the weight, rounded up (BIP 141).
fn vsize(weight: u32) -> u64 {
    (u64::from(weight) + 3) >> 2
}

#[cfg(test)]
mod tests;
