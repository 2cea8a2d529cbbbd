//! Refuses block templates whose coinbase does not pay whom it should.
//!
//! The operator lists the payouts; each names an address or a script and what it must get at least.
//! Nothing else may be paid, and data may stand in the coinbase only where a listed prefix says so, or
//! as the witness commitment. A tag in the scriptSig can be asked for as well.

use reservegrid_policy_sdk::{
    CoinbaseOutput, CoinbaseTransaction, Context, Policy, Rejection, Settings, Template, Verdict,
    export_policy, hex,
};

/// All the satoshi there can be.
const MAX_MONEY: u64 = 2_100_000_000_000_000;

/// How an output with the witness commitment begins; 32 bytes of hash follow, and nothing else should (BIP 141).
const COMMITMENT_PREFIX: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];

/// The policy with its settings.
#[derive(Clone, Debug)]
pub struct CoinbaseGuard {
    payouts: Vec<Payout>,
    any_payout: bool,
    accept_other_outputs: bool,
    data_prefixes: Vec<Vec<u8>>,
    tag: String,
}

/// Somebody who is to be paid.
#[derive(Clone, Debug)]
struct Payout {
    to: Recipient,
    min_value: u64,
    min_permille: u64,
}

#[derive(Clone, Debug)]
enum Recipient {
    Address(String),
    Script(Vec<u8>),
}

impl Policy for CoinbaseGuard {
    const NAME: &'static str = "coinbase-guard";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Refuses templates whose coinbase does not pay whom it should.";
    const CODES: &'static [(&'static str, &'static str)] = &[
        ("coinbase_payout_missing", "The coinbase does not pay somebody whom it must pay."),
        ("coinbase_payout_too_low", "A payout is smaller than the settings demand."),
        (
            "coinbase_output_unexpected",
            "The coinbase pays somebody who is not listed, or carries data that is not allowed.",
        ),
        ("coinbase_tag_missing", "The scriptSig of the coinbase does not contain the tag."),
    ];

    fn configure(settings: &mut Settings) -> Self {
        let policy = Self {
            payouts: settings.list("payouts", "Who is to be paid.", 64, Payout::configure),
            any_payout: settings.choice(
                "require",
                "Whether all payouts must be there, or at least one of them.",
                &[("all", false), ("any", true)],
            ),
            accept_other_outputs: settings.choice(
                "other_outputs",
                "What to do about outputs that are not listed, where payouts are.",
                &[("reject", false), ("accept", true)],
            ),
            data_prefixes: settings.hex_list(
                "data_prefixes",
                "How scripts of outputs without value may begin, besides the witness commitment; for \
                 example those of merge mining.",
                64,
                100,
            ),
            tag: settings.text("tag", "Text that the scriptSig must contain; empty for none.", 100, Some("")),
        };
        let names: Vec<String> = policy.payouts.iter().map(Payout::name).collect();
        let twice = |index: usize| !names[index].is_empty() && names[..index].contains(&names[index]);
        if (1..names.len()).any(twice) {
            settings.fault("payouts", "names somebody twice; one amount would count for both");
        }
        if policy.payouts.is_empty() && policy.tag.is_empty() {
            settings.fault("payouts", "there is nothing to check: list a payout or give a tag");
        }
        policy
    }

    fn evaluate(&self, template: &Template, _: &Context) -> Verdict {
        let coinbase = template.coinbase();
        self.check_tag(&coinbase.script)?;
        if self.payouts.is_empty() {
            return Ok(());
        }
        self.check_payouts(coinbase, template.summary().coinbase_value)?;
        self.check_others(&coinbase.outputs)
    }
}

export_policy!(CoinbaseGuard);

impl Payout {
    fn configure(settings: &mut Settings) -> Self {
        let address = settings.text("address", "Whom it pays; or give `script`.", 100, Some(""));
        let script = settings.hex("script", "Whom it pays, as a scriptPubKey; or give `address`.", 10_000);
        if address.is_empty() == script.is_empty() {
            settings.fault("address", "give an address or a script, one of the two");
        }
        Self {
            to: if script.is_empty() {
                Recipient::Address(canonical(address))
            } else {
                Recipient::Script(script)
            },
            min_value: settings.integer("min_value", "Least amount, satoshi.", 0..=MAX_MONEY, Some(0)),
            min_permille: settings.integer(
                "min_permille",
                "Least share of the coinbase value, thousandths.",
                0..=1000,
                Some(0),
            ),
        }
    }

    fn is_paid_by(&self, output: &CoinbaseOutput) -> bool {
        match &self.to {
            Recipient::Address(address) => output.address.as_ref() == Some(address),
            Recipient::Script(script) => output.script == *script,
        }
    }

    /// What all its outputs pay together, satoshi; none when it has no output of value.
    fn paid(&self, outputs: &[CoinbaseOutput]) -> Option<u64> {
        let paid = outputs.iter().filter(|output| self.is_paid_by(output)).map(|output| output.value);
        Some(paid.fold(0, u64::saturating_add)).filter(|paid| *paid > 0)
    }

    fn name(&self) -> String {
        match &self.to {
            Recipient::Address(address) => address.clone(),
            Recipient::Script(script) => hex(script),
        }
    }
}

/// Bech32 addresses mean the same in upper case (BIP 173), but only there.
fn canonical(address: String) -> String {
    let lower = address.to_ascii_lowercase();
    let bech32 = ["bc1", "tb1", "bcrt1"].iter().any(|prefix| lower.starts_with(prefix));
    if bech32 { lower } else { address }
}

impl CoinbaseGuard {
    fn check_tag(&self, script: &[u8]) -> Verdict {
        let tag = self.tag.as_bytes();
        if tag.is_empty() || script.windows(tag.len()).any(|window| window == tag) {
            return Ok(());
        }
        let detail = format!("script={} != tag={}", hex(script), self.tag);
        Err(Rejection::new("coinbase_tag_missing", detail).with("tag", self.tag.as_str()))
    }

    fn check_payouts(&self, coinbase: &CoinbaseTransaction, coinbase_value: u64) -> Verdict {
        let mut found = 0;
        for payout in &self.payouts {
            match payout.paid(&coinbase.outputs) {
                Some(paid) => check_amount(payout, paid, coinbase_value)?,
                None if self.any_payout => continue,
                None => return Err(missing(&payout.name(), found, self.payouts.len())),
            }
            found += 1;
        }
        if found == 0 { Err(missing("any", 0, 1)) } else { Ok(()) }
    }

    fn check_others(&self, outputs: &[CoinbaseOutput]) -> Verdict {
        if self.accept_other_outputs {
            return Ok(());
        }
        let listed = |script: &[u8]| self.data_prefixes.iter().any(|prefix| script.starts_with(prefix));
        // Only the last one counts (BIP 141), so a second could carry anything.
        let commitment = outputs.iter().rposition(|output| is_commitment(&output.script));
        let expected = |(index, output): (usize, &CoinbaseOutput)| {
            self.payouts.iter().any(|payout| payout.is_paid_by(output))
                || (output.value == 0 && (Some(index) == commitment || listed(&output.script)))
        };
        let Some(index) = outputs.iter().enumerate().position(|output| !expected(output)) else {
            return Ok(());
        };
        let CoinbaseOutput { value, script, address } = &outputs[index];
        let script = hex(script);
        let to = address.as_deref().unwrap_or(&script);
        let detail = format!("output={index} value={value} to={to}, other_outputs=reject");
        Err(Rejection::new("coinbase_output_unexpected", detail)
            .with("output_index", index as u64)
            .with("output_value", *value)
            .with("output_script", script))
    }
}

fn is_commitment(script: &[u8]) -> bool {
    script.len() == COMMITMENT_PREFIX.len() + 32 && script.starts_with(&COMMITMENT_PREFIX)
}

fn missing(payout: &str, found: usize, required: usize) -> Rejection {
    let detail = format!("payouts_found={found} < payouts_required={required}");
    Rejection::new("coinbase_payout_missing", detail).with("payout", payout)
}

fn check_amount(payout: &Payout, paid: u64, coinbase_value: u64) -> Verdict {
    // Rounded up: what is a thousandth short is short. 21 million bitcoin leave room for thousandths.
    let share = coinbase_value.saturating_mul(payout.min_permille).div_ceil(1000);
    let least = share.max(payout.min_value);
    if paid >= least {
        return Ok(());
    }
    let detail = format!("payout={paid} < min_payout={least}");
    Err(Rejection::new("coinbase_payout_too_low", detail)
        .with("payout", payout.name())
        .with("min_payout", least))
}

#[cfg(test)]
mod tests;
