//! Who is paid by a block: one address, or several that share.
//!
//! `payout_address = "bc1q…"`, or `payouts = { "bc1q…" = 985, "bc1p…" = 15 }`, each with its parts of the whole.

use super::{
    Config, Source,
    reader::Reader,
    sections::{Coinbase, CoinbaseKeys},
    value::{Form, Value},
};
use crate::template::{CoinbaseSpec, Payout, RESERVED_SIGOPS, RESERVED_WEIGHT, Share, network_name};
use bitcoin::{Address, ScriptBuf, address::NetworkUnchecked};
use std::{cmp::Reverse, collections::BTreeMap, fmt, str::FromStr};

/// Who is paid, and how many parts of the whole each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Payouts(pub(super) Vec<(PayTo, u32)>);

/// Where a payout goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PayTo {
    /// To an address, of a network that is still to be checked.
    Address(Address<NetworkUnchecked>),
    /// To a script, as hex.
    Script(ScriptBuf),
}

impl fmt::Display for PayTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{}", address.assume_checked_ref()),
            Self::Script(script) => write!(f, "script:{}", script.to_hex_string()),
        }
    }
}

impl FromStr for PayTo {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let said = || format!("has {text:?} in it, which is neither a Bitcoin address nor script:HEX");
        match text.strip_prefix("script:") {
            Some(hex) => match ScriptBuf::from_hex(hex) {
                Ok(script) if !script.is_empty() => Ok(Self::Script(script)),
                _ => Err(said()),
            },
            None => text.parse().map(Self::Address).map_err(|_| said()),
        }
    }
}

/// A table in the file, `ADDRESS=PARTS,ADDRESS=PARTS` as text.
impl Value for Payouts {
    const FORMS: &'static [Form] = &[Form::Table, Form::Text];
    const EXPECTED: &'static str =
        r#"a table of addresses with the parts of each; write e.g. { "bc1q…" = 985, "bc1p…" = 15 }"#;
    fn read(text: &str) -> Result<Self, String> {
        let pairs: Vec<(String, String)> = if text.starts_with('{') {
            let table: BTreeMap<String, serde_json::Value> =
                serde_json::from_str(text).map_err(|_| Self::unexpected())?;
            table.into_iter().map(|(to, parts)| (to, parts.to_string())).collect()
        } else {
            let pairs = text.split(',').map(|pair| pair.split_once('='));
            let pairs: Option<Vec<_>> = pairs.collect();
            let pairs = pairs.ok_or_else(Self::unexpected)?;
            pairs.into_iter().map(|(to, parts)| (to.trim().into(), parts.trim().into())).collect()
        };
        if pairs.is_empty() {
            return Err("names nobody; give at least one address".into());
        }
        let mut payouts = Vec::with_capacity(pairs.len());
        for (to, parts) in pairs {
            let parts = parts.parse().ok().filter(|parts| (1..=1_000_000).contains(parts));
            let parts =
                parts.ok_or_else(|| format!("gives {to:?} no whole number of parts from 1 to 1000000"))?;
            payouts.push((to.parse()?, parts));
        }
        // The same order whatever way it was written: the largest first, which gets what rounding leaves.
        payouts.sort_by_key(|(to, parts): &(PayTo, u32)| (Reverse(*parts), to.to_string()));
        Ok(Self(payouts))
    }
}

/// Reads `[coinbase]`: addresses must be of the source's network, and the whole must fit into a block.
pub(super) fn read(reader: &mut Reader, source: Option<&Source>) -> Option<Coinbase> {
    const SECTION: &str = "coinbase";
    let CoinbaseKeys { payout_address, payouts, tag } = CoinbaseKeys::read(reader, SECTION)?;
    let (key, payouts) = match (payout_address, payouts) {
        (Some(_), Some(_)) => {
            reader.fault(SECTION, "payouts", "stands beside payout_address; give one of the two ways");
            return None;
        }
        (Some(address), None) => ("payout_address", vec![(PayTo::Address(address), 1)]),
        (None, Some(Payouts(payouts))) => ("payouts", payouts),
        (None, None) => {
            if let Some(Source::Node(_) | Source::Provider(_)) = source {
                reader.missing(SECTION, "payout_address", "give the address that blocks pay to, or payouts");
            }
            // The coins of the embedded chain are worth nothing, and a replay has its coinbases already.
            return matches!(source, Some(Source::Embedded(_) | Source::Replay(_)))
                .then(|| Coinbase { payout: Config::anyone_can_spend().into(), tag });
        }
    };
    let network = source?.network();
    let mut shares = Vec::with_capacity(payouts.len());
    for (to, parts) in payouts {
        let written = to.to_string();
        let script = match to {
            PayTo::Script(script) => Some(script),
            PayTo::Address(address) => address.require_network(network).ok().map(|a| a.script_pubkey()),
        };
        let Some(script) = script else {
            let name = network_name(network);
            let message = "is an address of another network than";
            reader.fault(SECTION, key, format!("{written:?} {message} {name}, where the source is"));
            return None;
        };
        shares.push(Share { script, parts });
    }
    let payout = match &shares[..] {
        [alone] => Payout::All(alone.script.clone()),
        _ => Payout::Shared(shares),
    };
    let spec = CoinbaseSpec { payout, tag };
    match spec.cost() {
        Ok((weight, sigops)) if weight <= RESERVED_WEIGHT && sigops <= RESERVED_SIGOPS => {}
        Ok((weight, sigops)) => {
            let message = format!(
                "makes a coinbase of {weight} WU that costs {sigops} signature operations; nodes leave \
                 {RESERVED_WEIGHT} WU and {RESERVED_SIGOPS} for it: pay fewer, or let them be paid later"
            );
            reader.fault(SECTION, key, message);
        }
        Err(error) => reader.fault(SECTION, "tag", error.to_string()),
    }
    Some(Coinbase { payout: spec.payout, tag: spec.tag })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use bitcoin::Amount;
    use std::path::Path;

    const ONE: &str = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4";
    const OTHER: &str = "bc1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qccfmv3";
    const TESTNET: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";

    /// The outputs of 312,500,001 satoshi, or what is wrong.
    fn paid(keys: &str, variable: Option<&str>) -> Result<Vec<u64>, String> {
        let text = format!(
            "mode = \"shadow\"\n[[policy]]\nname = \"a\"\nmodule = \"a\"\n[source]\nkind = \"node\"\n\
             url = \"http://n:1\"\nnetwork = \"mainnet\"\ncookie_file = \"c\"\n[coinbase]\n{keys}\n"
        );
        let variables = variable.map(|text| ("RESERVEGRID_COINBASE__PAYOUTS".to_owned(), text.to_owned()));
        let config = Config::parse(&text, Path::new("g.toml"), &variables.into_iter().collect());
        let outputs = config.map_err(|faults| faults.to_string())?.coinbase.payout;
        let outputs = outputs.outputs(Amount::from_sat(312_500_001));
        Ok(outputs.iter().map(|output| output.value.to_sat()).collect())
    }

    #[test]
    fn one_address_takes_all_and_several_share_to_the_last_satoshi() {
        assert_eq!(paid(&format!("payout_address = \"{ONE}\""), None), Ok(vec![312_500_001]));
        let table = format!("payouts = {{ \"{ONE}\" = 15, \"{OTHER}\" = 985, \"script:51\" = 20 }}");
        let shared = vec![301_776_962, 6_127_451, 4_595_588];
        assert_eq!(shared.iter().sum::<u64>(), 312_500_001);
        assert_eq!(paid(&table, None), Ok(shared.clone()), "the largest first, with what rounding leaves");
        let variable = format!("{OTHER}=985, {ONE}=15, script:51=20");
        assert_eq!(paid("", Some(&variable)), Ok(shared));
        assert_eq!(paid(&format!("payouts = {{ \"{ONE}\" = 7 }}"), None), Ok(vec![312_500_001]));
    }

    #[test]
    fn every_mistake_is_named() {
        let many: Vec<String> = (0..40).map(|at| format!("\"script:0014{at:040x}\" = 1")).collect();
        for (keys, said) in [
            (
                format!("payout_address = \"{ONE}\"\npayouts = {{ \"{ONE}\" = 1 }}"),
                "g.toml:12:11: [coinbase] payouts: stands beside payout_address; give one of the two ways",
            ),
            (String::new(), "payout_address: is missing; give the address that blocks pay to, or payouts"),
            ("payouts = {}".into(), "a table names nobody; give at least one address"),
            ("payouts = 5".into(), "5 is not a table of addresses with the parts of each; write e.g. {"),
            (
                format!("payouts = {{ \"{TESTNET}\" = 1 }}"),
                "\"bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080\" is an address of another network than mainnet",
            ),
            (
                "payouts = { \"bc1nonsense\" = 1 }".into(),
                "has \"bc1nonsense\" in it, which is neither a Bitcoin address nor script:HEX",
            ),
            ("payouts = { \"script:\" = 1 }".into(), "has \"script:\" in it, which is neither"),
            (
                format!("payouts = {{ \"{ONE}\" = 0.5 }}"),
                "gives \"bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4\" no whole number of parts from 1 to 1000000",
            ),
            (format!("payouts = {{ \"{ONE}\" = 0 }}"), "no whole number of parts"),
            (
                format!("payouts = {{ {} }}", many.join(", ")),
                "signature operations; nodes leave 3668 WU and 400 for it: pay fewer",
            ),
        ] {
            let error = paid(&keys, None).unwrap_err();
            assert!(error.contains(said), "{keys}: {error}");
        }
    }
}
