//! Bounds and forms of single values. An error is the end of a sentence that begins with the value.

#![expect(clippy::ptr_arg, reason = "a check gets a reference to the type of its key")]

use super::{secret::Secret, value::duration};
use crate::ledger::{chain::Keys, secret::SigningKey};
use std::{fmt::Display, time::Duration};

pub(super) fn between<T: PartialOrd + Display + Copy>(min: T, max: T) -> impl Fn(&T) -> Result<(), String> {
    move |value| {
        if (min..=max).contains(value) { Ok(()) } else { Err(format!("is not between {min} and {max}")) }
    }
}

pub(super) fn within(min: &'static str, max: &'static str) -> impl Fn(&Duration) -> Result<(), String> {
    move |value| {
        let inside =
            duration(min).is_some_and(|min| *value >= min) && duration(max).is_some_and(|max| *value <= max);
        if inside { Ok(()) } else { Err(format!("is not between {min} and {max}")) }
    }
}

pub(super) fn printable_tag(text: &String) -> Result<(), String> {
    let printable = text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    if printable && text.len() <= 32 {
        Ok(())
    } else {
        Err("is not a tag of at most 32 printable ASCII characters".into())
    }
}

pub(super) fn plain_name(text: &String) -> Result<(), String> {
    let begins = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    let rest = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if begins && rest && text.len() <= 64 {
        Ok(())
    } else {
        Err(r#"is not a name of lower case letters, digits and dashes; write e.g. "fee-floor""#.into())
    }
}

pub(super) fn header_text(text: &String) -> Result<(), String> {
    let fits = text.bytes().all(|b| b.is_ascii_graphic()) && text.len() <= 128;
    if fits {
        Ok(())
    } else {
        Err("goes into an HTTP header: at most 128 printable ASCII characters without spaces".into())
    }
}

pub(super) fn signing_key(secret: &Secret) -> Result<(), String> {
    let len = secret.expose().lines().next().unwrap_or_default().trim().len();
    if len < 16 {
        return Err(format!("has {len} bytes; at least 16 are needed"));
    }
    SigningKey::parse(secret.expose(), "").map(|_| ())
}

pub(super) fn chain_keys(keys: &Option<Secret>) -> Result<(), String> {
    let parsed = keys.as_ref().map(|keys| Keys::parse(keys.expose())).transpose();
    parsed.map(|_| ()).map_err(|error| format!("cannot be used: {error}"))
}

pub(super) fn bearer_token(token: &Option<Secret>) -> Result<(), String> {
    let fits = |token: &Secret| {
        (16..=256).contains(&token.expose().len()) && token.expose().bytes().all(|b| b.is_ascii_graphic())
    };
    if token.as_ref().is_none_or(fits) {
        Ok(())
    } else {
        Err("is not a token of 16 to 256 printable ASCII characters without spaces".into())
    }
}

pub(super) fn log_levels(levels: &String) -> Result<(), String> {
    // A word that is no level would be a part of which everything is logged, and nothing else.
    let words = ["off", "error", "warn", "info", "debug", "trace"];
    let known = |part: &str| part.contains('=') || words.contains(&part.trim().to_lowercase().as_str());
    if levels.split(',').all(known) && tracing_subscriber::EnvFilter::try_new(levels).is_ok() {
        Ok(())
    } else {
        Err("names no levels; write e.g. warn,reservegrid::miner=debug".into())
    }
}

pub(super) fn authority_key(secret: &Secret) -> Result<(), String> {
    let key = bitcoin::base58::decode_check(secret.expose()).is_ok_and(|bytes| bytes.len() == 32);
    if key { Ok(()) } else { Err("is not an authority key; `reservegrid keys generate` makes one".into()) }
}
