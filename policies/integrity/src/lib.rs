//! Refuses block templates that break the rules of the network, or are not what was declared.
//!
//! The gateway derives facts from a template's bytes and lists where they differ from what was declared,
//! or from what a block may be (the contract's discrepancies). This policy turns each kind into a code,
//! and checks the rest itself: what the template builds on, its version and time, its coinbase.
//!
//! Who asks for the discrepancies judges all kinds, so none can slip between two policies: a fee that
//! is not the declared one is refused here as well, although `revenue-guard` has the better word for it.

use reservegrid_policy_sdk::{
    ChainTip, Context, Discrepancy, DiscrepancyKind as Kind, Policy, Provenance, Rejection, Settings,
    Template, Verdict, block_hash, export_policy,
};

/// How a coinbase output with the witness commitment begins, and its least length, bytes (BIP 141).
const COMMITMENT_PREFIX: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
const COMMITMENT_LENGTH: usize = 38;

/// The policy with its settings.
#[derive(Clone, Debug)]
pub struct Integrity {
    unknown_tip: UnknownTip,
    min_version: u64,
    version_mask: u64,
    version_bits: u64,
    max_future_seconds: u64,
}

/// Which templates pass while the tip of the chain is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UnknownTip {
    AcceptOwn,
    Accept,
    Reject,
}

impl Policy for Integrity {
    const NAME: &'static str = "integrity";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str =
        "Refuses templates that break the rules of the network, or are not what was declared.";
    const CODES: &'static [(&'static str, &'static str)] = &[
        (
            "invalid_previous_hash",
            "It builds on no block that the operator's nodes stand on, or the tip is unknown and the settings \
             refuse that.",
        ),
        ("stale_previous_hash", "It builds on a block that is no longer the tip."),
        ("bits_mismatch", "Its target is not the declared one, or not the one of the next block."),
        ("version_not_allowed", "Its version is one that the network or the settings do not allow."),
        ("ntime_out_of_range", "Its time is before the smallest allowed, or too far ahead of the clock."),
        ("merkle_root_mismatch", "The declared merkle path or ids are not those of its transactions."),
        (
            "witness_commitment_missing",
            "It has transactions with witness data and no commitment to them (BIP 141).",
        ),
        ("witness_commitment_mismatch", "The witness commitment is not that of its transactions."),
        ("coinbase_height_mismatch", "The coinbase does not begin with the height of the block (BIP 34)."),
        ("coinbase_script_length_invalid", "The scriptSig of the coinbase is not 2 to 100 bytes long."),
        (
            "coinbase_value_mismatch",
            "The declared coinbase value is not subsidy and fees, or not what the coinbase pays out.",
        ),
        ("duplicate_transaction", "A transaction is in it twice."),
        ("double_spend_in_template", "Two of its transactions spend the same output."),
        ("transaction_order_invalid", "A transaction stands before one whose output it spends."),
        ("transaction_not_final", "The lock time of a transaction does not allow it in this block."),
        ("transaction_count_mismatch", "Another number of transactions was declared than came."),
        ("template_weight_mismatch", "The declared weight of a transaction is not its weight."),
        ("template_sigops_mismatch", "The declared sigop cost of a transaction is not one it can have."),
    ];

    fn configure(settings: &mut Settings) -> Self {
        let any = 0..=u64::from(u32::MAX);
        let policy = Self {
            unknown_tip: settings.choice(
                "unknown_tip",
                "Which templates pass while the tip is unknown: those of the operator's own node (which \
                 builds on its tip by nature), all, or none.",
                &[
                    ("accept_own", UnknownTip::AcceptOwn),
                    ("accept", UnknownTip::Accept),
                    ("reject", UnknownTip::Reject),
                ],
            ),
            min_version: settings.integer(
                "min_version",
                "Smallest block version. The network accepts none below 4 (BIP 65).",
                1..=0x7fff_ffff,
                Some(4),
            ),
            version_mask: settings.integer(
                "version_mask",
                "Which bits of the version `version_bits` prescribes; 0 prescribes none, 3758096384 the \
                 three of BIP 9.",
                any.clone(),
                Some(0),
            ),
            version_bits: settings.integer(
                "version_bits",
                "What those bits must be; 536870912 for BIP 9.",
                any,
                Some(0),
            ),
            max_future_seconds: settings.integer(
                "max_future_seconds",
                "How far the template's time may be ahead of the gateway's clock, seconds. The network \
                 accepts two hours.",
                0..=7200,
                Some(7200),
            ),
        };
        if policy.version_bits & !policy.version_mask != 0 {
            settings.fault("version_bits", "has bits that version_mask does not cover");
        }
        policy
    }

    fn evaluate(&self, template: &Template, context: &Context) -> Verdict {
        self.check_tip(template, context)?;
        self.check_version(template)?;
        self.check_time(template, context)?;
        check_discrepancies(template)?;
        check_coinbase(template)
    }
}

export_policy!(Integrity);

impl Integrity {
    fn check_tip(&self, template: &Template, context: &Context) -> Verdict {
        let summary = template.summary();
        let previous = &summary.previous_block_hash;
        if previous.iter().all(|byte| *byte == 0) {
            return Err(Rejection::new("invalid_previous_hash", "previous_block_hash=0 != tip"));
        }
        let Some(tip) = &context.tip else {
            return self.check_unknown_tip(summary.provenance);
        };
        if *previous == tip.hash {
            return check_next(summary.height, summary.bits, tip);
        }
        let code = if summary.height <= tip.height { "stale_previous_hash" } else { "invalid_previous_hash" };
        let detail = format!("previous_block_hash={} != tip={}", block_hash(previous), block_hash(&tip.hash));
        Err(Rejection::new(code, detail).with("height", summary.height).with("tip_height", tip.height))
    }

    fn check_unknown_tip(&self, provenance: Provenance) -> Verdict {
        let word = match (self.unknown_tip, provenance) {
            (UnknownTip::Accept, _) | (UnknownTip::AcceptOwn, Provenance::Node) => return Ok(()),
            (UnknownTip::AcceptOwn, Provenance::Declared) => "accept_own",
            (UnknownTip::Reject, _) => "reject",
        };
        let detail = format!("tip=unknown, unknown_tip={word}");
        Err(Rejection::new("invalid_previous_hash", detail).with("unknown_tip", word))
    }

    /// Versions are signed: with the uppermost bit set they are negative, and below every minimum.
    fn check_version(&self, template: &Template) -> Verdict {
        let version = template.summary().version;
        if i64::from(version.cast_signed()) < self.min_version.cast_signed() {
            let detail = format!("version={version:#010x} < min_version={}", self.min_version);
            return Err(Rejection::new("version_not_allowed", detail).with("min_version", self.min_version));
        }
        let found = u64::from(version) & self.version_mask;
        if found == self.version_bits {
            return Ok(());
        }
        let detail = format!("version_bits={found:#010x} != required={:#010x}", self.version_bits);
        Err(Rejection::new("version_not_allowed", detail)
            .with("version", version)
            .with("version_mask", self.version_mask))
    }

    fn check_time(&self, template: &Template, context: &Context) -> Verdict {
        let summary = template.summary();
        let time = u64::from(summary.current_time);
        if summary.current_time < summary.min_time {
            let detail = format!("current_time={time} < min_time={}", summary.min_time);
            return Err(Rejection::new("ntime_out_of_range", detail).with("min_time", summary.min_time));
        }
        let latest = context.taken_at.saturating_add(self.max_future_seconds);
        if time <= latest {
            return Ok(());
        }
        let detail = format!("current_time={time} > max_time={latest}");
        Err(Rejection::new("ntime_out_of_range", detail)
            .with("taken_at", context.taken_at)
            .with("max_future_seconds", self.max_future_seconds))
    }
}

/// A template on the tip is for the block after it, at that block's target where the node said it.
fn check_next(height: u32, bits: u32, tip: &ChainTip) -> Verdict {
    let next = u64::from(tip.height) + 1;
    if u64::from(height) != next {
        let detail = format!("height={height} != next_height={next}");
        return Err(Rejection::new("coinbase_height_mismatch", detail).with("tip_height", tip.height));
    }
    match tip.next_bits {
        Some(next_bits) if next_bits != bits => {
            let detail = format!("bits={bits:#010x} != next_bits={next_bits:#010x}");
            Err(Rejection::new("bits_mismatch", detail).with("next_bits", next_bits))
        }
        _ => Ok(()),
    }
}

/// The first discrepancy decides. Every kind has a code: a new one does not compile without.
fn check_discrepancies(template: &Template) -> Verdict {
    let Some(Discrepancy { kind, transaction, declared, derived }) = template.discrepancies().first() else {
        return Ok(());
    };
    let (code, what) = match kind {
        Kind::Target => ("bits_mismatch", "target"),
        Kind::CoinbaseValue => ("coinbase_value_mismatch", "coinbase_value"),
        Kind::MerklePath => ("merkle_root_mismatch", "merkle_path"),
        Kind::Txid => ("merkle_root_mismatch", "txid"),
        Kind::WitnessCommitmentMissing => ("witness_commitment_missing", "witness_commitment"),
        Kind::WitnessCommitment => ("witness_commitment_mismatch", "witness_commitment"),
        Kind::Wtxid => ("witness_commitment_mismatch", "wtxid"),
        Kind::TransactionCount => ("transaction_count_mismatch", "transaction_count"),
        Kind::Weight => ("template_weight_mismatch", "weight"),
        Kind::Sigops => ("template_sigops_mismatch", "sigops"),
        Kind::Fee => ("coinbase_value_mismatch", "fee"),
        Kind::DuplicateTransaction => ("duplicate_transaction", "transaction"),
        Kind::DoubleSpend => ("double_spend_in_template", "spend"),
        Kind::TransactionOrder => ("transaction_order_invalid", "order"),
        Kind::TransactionNotFinal => ("transaction_not_final", "lock_time"),
    };
    let rule = matches!(
        kind,
        Kind::DuplicateTransaction | Kind::DoubleSpend | Kind::TransactionOrder | Kind::TransactionNotFinal
    );
    let against = if rule { "required" } else { "declared" };
    let detail = format!("{what}={derived} != {against}={declared}");
    let rejection = Rejection::new(code, detail).with("differs", what);
    Err(match transaction {
        Some(index) => rejection.with("transaction_index", *index),
        None => rejection,
    })
}

fn check_coinbase(template: &Template) -> Verdict {
    let (summary, coinbase) = (template.summary(), template.coinbase());
    let length = coinbase.script.len() as u64;
    if !(2..=100).contains(&length) {
        let (sign, limit) = if length < 2 { ('<', 2) } else { ('>', 100) };
        let detail = format!("script_length={length} {sign} limit={limit}");
        return Err(Rejection::new("coinbase_script_length_invalid", detail).with("script_length", length));
    }
    if coinbase.height != Some(summary.height) {
        let height = coinbase.height.map_or("none".to_owned(), |height| height.to_string());
        let detail = format!("coinbase_height={height} != height={}", summary.height);
        return Err(Rejection::new("coinbase_height_mismatch", detail).with("height", summary.height));
    }
    let paid = coinbase.outputs.iter().fold(0_u64, |sum, output| sum.saturating_add(output.value));
    if paid != summary.coinbase_value {
        let detail = format!("coinbase_outputs={paid} != coinbase_value={}", summary.coinbase_value);
        return Err(
            Rejection::new("coinbase_value_mismatch", detail).with("coinbase_value", summary.coinbase_value)
        );
    }
    check_commitment(template)
}

/// Whether the coinbase carries a commitment where one is needed. That it is the right one the gateway
/// has checked: it would be a discrepancy.
fn check_commitment(template: &Template) -> Verdict {
    let commits = |script: &[u8]| script.starts_with(&COMMITMENT_PREFIX) && script.len() >= COMMITMENT_LENGTH;
    let coinbase = template.coinbase();
    if coinbase.outputs.iter().any(|output| commits(&output.script)) {
        return Ok(());
    }
    match template.traits().position(|traits| traits.segwit()) {
        Some(index) => {
            let detail = "witness_commitments=0 < required=1";
            Err(Rejection::new("witness_commitment_missing", detail).with("transaction_index", index as u64))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
