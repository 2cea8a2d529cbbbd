//! How a key's text becomes a value: one small impl for each type that occurs in the configuration.
//!
//! A value of the file and one of an environment variable go the same way. In the file the TOML type
//! must fit too (a number is not written in quotes); a variable is text and needs no quotes. An error
//! is the end of a sentence that begins with the value itself: `"50"` + ` is not a duration; …`.

use super::secret::Secret;
use crate::{
    miner::Elsewhere,
    noise::{AuthorityPublicKey, KeyTextError},
    template::node::Endpoint,
};
use bitcoin::{Address, CompactTarget, Network, address::NetworkUnchecked};
use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// The TOML type a value was written with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A string in quotes.
    Text,
    /// An integer; the text is decimal.
    Integer,
    /// A float.
    Float,
    /// A table; the text is JSON.
    Table,
    /// Anything else, which no key takes.
    Other,
    /// Not TOML but an environment variable, which may stand for any form but a table.
    Variable,
}

/// A type that a key of the configuration can have.
pub(super) trait Value: Sized {
    /// The forms in which it may be written in the file.
    const FORMS: &'static [Form] = &[Form::Text];

    /// What is expected, for a value of the wrong form: `is not …`.
    const EXPECTED: &'static str;

    /// Reads it from text; the error ends a sentence that begins with the text.
    fn read(text: &str) -> Result<Self, String>;

    /// Lets a relative path of the file begin at the file's folder.
    fn based(self, _folder: &Path) -> Self {
        self
    }

    /// The general error.
    fn unexpected() -> String {
        format!("is not {}", Self::EXPECTED)
    }
}

impl Value for String {
    const EXPECTED: &'static str = "text in quotes";
    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            Err("is empty; write something or leave the key out".into())
        } else {
            Ok(text.into())
        }
    }
}

impl Value for Elsewhere {
    const EXPECTED: &'static str = r#"a host and its port in quotes, e.g. "pool.example:34254""#;
    fn read(text: &str) -> Result<Self, String> {
        let (host, port) = text.rsplit_once(':').ok_or_else(Self::unexpected)?;
        // An address of IPv6 stands in brackets here and without them in the message.
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = port.parse().map_err(|_| Self::unexpected())?;
        let printable = host.bytes().all(|byte| byte.is_ascii_graphic());
        match host.len() {
            1..=255 if printable && port > 0 => Ok(Self { host: host.into(), port }),
            _ => Err(Self::unexpected()),
        }
    }
}

impl Value for AuthorityPublicKey {
    const EXPECTED: &'static str = "a public authority key in quotes";
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error: KeyTextError| format!("is no authority key: {error}"))
    }
}

impl Value for Endpoint {
    const EXPECTED: &'static str = r#"a ZMQ address; write e.g. "tcp://127.0.0.1:28332""#;
    fn read(text: &str) -> Result<Self, String> {
        Self::parse(text).ok_or_else(Self::unexpected)
    }
}

impl Value for PathBuf {
    const EXPECTED: &'static str = "a path in quotes";
    fn read(text: &str) -> Result<Self, String> {
        String::read(text).map(PathBuf::from)
    }
    fn based(self, folder: &Path) -> Self {
        folder.join(self)
    }
}

impl Value for Secret {
    const EXPECTED: &'static str = "a secret";
    fn read(text: &str) -> Result<Self, String> {
        let secret = Secret::new(text);
        if secret.expose().is_empty() { Err("is empty".into()) } else { Ok(secret) }
    }
}

impl Value for u32 {
    const FORMS: &'static [Form] = &[Form::Integer];
    const EXPECTED: &'static str = "a whole number from 0 to 4294967295 without quotes, e.g. 512";
    fn read(text: &str) -> Result<Self, String> {
        text.replace('_', "").parse().map_err(|_| Self::unexpected())
    }
}

impl Value for u64 {
    const FORMS: &'static [Form] = &[Form::Integer];
    const EXPECTED: &'static str = "a whole number from 0 without quotes, e.g. 100_000_000";
    fn read(text: &str) -> Result<Self, String> {
        text.replace('_', "").parse().map_err(|_| Self::unexpected())
    }
}

impl Value for f64 {
    const FORMS: &'static [Form] = &[Form::Integer, Form::Float];
    const EXPECTED: &'static str = "a number without quotes, e.g. 6 or 7.5";
    fn read(text: &str) -> Result<Self, String> {
        text.parse().ok().filter(|number: &f64| number.is_finite()).ok_or_else(Self::unexpected)
    }
}

/// The units a duration is written in, with their milliseconds.
const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

/// Reads `50ms`, `5s`, `2m`, `1h`: a whole number and a unit, nothing between.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, millis) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(millis).map(Duration::from_millis)
}

impl Value for Duration {
    const EXPECTED: &'static str = r#"a duration; write e.g. "50ms", "5s", "2m" or "1h""#;
    fn read(text: &str) -> Result<Self, String> {
        duration(text).ok_or_else(|| {
            // A bare number is the usual mistake: answer with that number.
            let bare = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            if bare { format!(r#"is not a duration; write e.g. "{text}ms""#) } else { Self::unexpected() }
        })
    }
}

/// A number of bytes, written with a binary unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// The units a size is written in, with their bytes.
const SIZES: [(&str, u64); 3] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = SIZES.iter().rev().find(|(_, bytes)| self.0 >= *bytes && self.0.is_multiple_of(*bytes));
        match unit {
            Some((name, bytes)) => write!(f, "{}{name}", self.0 / bytes),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

impl Value for ByteSize {
    const EXPECTED: &'static str = r#"a size; write e.g. "512KiB", "64MiB" or "1GiB""#;
    fn read(text: &str) -> Result<Self, String> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(Self::unexpected)?;
        let (number, unit) = text.split_at(digits);
        let size = SIZES.into_iter().find(|(name, _)| *name == unit);
        let bytes = size.and_then(|(_, bytes)| number.parse::<u64>().ok()?.checked_mul(bytes));
        bytes.map(Self).ok_or_else(Self::unexpected)
    }
}

impl Value for SocketAddr {
    const EXPECTED: &'static str = r#"an address and port; write e.g. "0.0.0.0:34255""#;
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| Self::unexpected())
    }
}

impl Value for reqwest::Url {
    const EXPECTED: &'static str = r#"a URL; write e.g. "http://127.0.0.1:8332""#;
    fn read(text: &str) -> Result<Self, String> {
        let url: Self = text.parse().map_err(|_| Self::unexpected())?;
        match url.scheme() {
            "http" => {}
            "https" => {
                return Err("asks for https, which the gateway does not speak; put a local proxy before \
                            the other side and write http://"
                    .into());
            }
            _ => return Err("does not begin with http://".into()),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("carries credentials; they have keys of their own".into());
        }
        Ok(url)
    }
}

impl Value for Network {
    const EXPECTED: &'static str = r#"a network; write "mainnet", "testnet4", "signet" or "regtest""#;
    fn read(text: &str) -> Result<Self, String> {
        Ok(match text {
            "mainnet" => Network::Bitcoin,
            "testnet4" => Network::Testnet4,
            "signet" => Network::Signet,
            "regtest" => Network::Regtest,
            _ => return Err(Self::unexpected()),
        })
    }
}

impl Value for Address<NetworkUnchecked> {
    const EXPECTED: &'static str = "a Bitcoin address in quotes";
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "is not a Bitcoin address; was it copied whole?".into())
    }
}

impl Value for CompactTarget {
    const EXPECTED: &'static str = r#"a compact target of eight hexadecimal digits; write e.g. "207fffff""#;
    fn read(text: &str) -> Result<Self, String> {
        let hex = text.len() == 8 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let bits = hex.then(|| u32::from_str_radix(text, 16).ok()).flatten().ok_or_else(Self::unexpected)?;
        let target = bitcoin::Target::from_compact(CompactTarget::from_consensus(bits));
        if target == bitcoin::Target::ZERO {
            Err("is a target that no block can meet".into())
        } else {
            Ok(Self::from_consensus(bits))
        }
    }
}

/// The SHA-256 of a file.
impl Value for [u8; 32] {
    const EXPECTED: &'static str = "a SHA-256 of 64 hexadecimal digits";
    fn read(text: &str) -> Result<Self, String> {
        let mut digest = [0; 32];
        hex::decode_to_slice(text, &mut digest).map_err(|_| Self::unexpected())?;
        Ok(digest)
    }
}

/// A free table, e.g. the settings of a policy.
impl Value for serde_json::Value {
    const FORMS: &'static [Form] = &[Form::Table];
    const EXPECTED: &'static str = "a table; write e.g. settings = { strict = true }";
    fn read(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|_| Self::unexpected())
    }
}

/// Impls [`Value`] for an enum of names by its `FromStr`.
macro_rules! named {
    ($kind:ty, $expected:literal) => {
        impl Value for $kind {
            const EXPECTED: &'static str = $expected;
            fn read(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| Self::unexpected())
            }
        }
    };
}
pub(super) use named;

named!(crate::gate::mode::Mode, r#"a mode; write "shadow", "observe" or "inline""#);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_whole_number_with_a_unit() {
        for (text, millis) in [("50ms", 50), ("5s", 5_000), ("2m", 120_000), ("1h", 3_600_000), ("0s", 0)] {
            assert_eq!(duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for bad in [
            "",
            "50",
            "ms",
            "5 s",
            "1.5s",
            "-1s",
            "5S",
            "1d",
            "5s ",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert_eq!(duration(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_bare_number_is_answered_with_the_unit_it_lacks() {
        assert_eq!(Duration::read("50"), Err(r#"is not a duration; write e.g. "50ms""#.into()));
    }

    #[test]
    fn urls_that_cannot_work_are_refused_with_their_reason() {
        for (text, part) in [
            ("https://pool.example/shares", "https"),
            ("ftp://pool.example", "http://"),
            ("127.0.0.1:8332", "URL"),
            ("http://user:pass@127.0.0.1:8332", "credentials"),
        ] {
            let error = reqwest::Url::read(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_target_that_no_block_can_meet_is_refused() {
        assert!(CompactTarget::read("207fffff").is_ok());
        for bad in ["", "7fffff", "0x207fffff", "+07fffff", "00000000", "20000000"] {
            assert!(CompactTarget::read(bad).is_err(), "{bad}");
        }
    }
}
