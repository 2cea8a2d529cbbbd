//! Who may ask: a token where there is one, and never a foreign web page.
//!
//! There are two tokens: one may look and change, the other only look. A page in a browser on this machine
//! can send requests to a loopback address. It cannot hide it: a browser says where a POST comes from
//! (`Origin`), and under which name it reached us (`Host`), which gives away a foreign name that was pointed
//! at 127.0.0.1 (DNS rebinding). The gateway's own page comes from where the request goes to.

use crate::{
    config::{self, Secret},
    reason::Reason,
};
use axum::http::{HeaderMap, HeaderName, header};
use sha2::{Digest, Sha256};
use std::net::IpAddr;
use subtle::ConstantTimeEq;

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum May {
    /// Everybody may: it shows nothing of the gateway.
    Anybody,
    /// It looks.
    Look,
    /// It changes something.
    Change,
}

/// What requests are checked against. Of the tokens only the hashes are kept.
pub(super) struct Access {
    token: Option<[u8; 32]>,
    read_token: Option<[u8; 32]>,
}

/// Why a request may not come further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Denied {
    pub(super) reason: Reason,
    pub(super) detail: &'static str,
}

const fn unauthorized(detail: &'static str) -> Denied {
    Denied { reason: Reason::ApiUnauthorized, detail }
}

impl Access {
    pub(super) fn of(config: &config::Api) -> Self {
        Self::new(config.token.as_ref(), config.read_token.as_ref())
    }

    fn new(token: Option<&Secret>, read_token: Option<&Secret>) -> Self {
        let hash = |token: &Secret| Sha256::digest(token.expose()).into();
        Self { token: token.map(hash), read_token: read_token.map(hash) }
    }

    /// Whether a request with these headers may come further.
    pub(super) fn check(&self, headers: &HeaderMap, may: May) -> Result<(), Denied> {
        if may == May::Anybody {
            return Ok(());
        }
        let Some(token) = self.token else { return no_web_page(headers) };
        let given = text(headers, header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
        let given =
            given.ok_or(unauthorized("the request carries no token; send Authorization: Bearer TOKEN"))?;
        // Hashes of equal length, compared in the same time wherever they differ; both, whichever fits.
        let given: [u8; 32] = Sha256::digest(given.trim()).into();
        let changes: bool = given.ct_eq(&token).into();
        let looks: bool = given.ct_eq(&self.read_token.unwrap_or(token)).into();
        match (changes, looks, may) {
            (true, ..) | (_, true, May::Look | May::Anybody) => Ok(()),
            (false, true, May::Change) => Err(Denied {
                reason: Reason::ApiForbidden,
                detail: "this token may only look; a change needs the other one",
            }),
            (false, false, _) => Err(unauthorized("the token is none of those that the gateway has")),
        }
    }
}

fn no_web_page(headers: &HeaderMap) -> Result<(), Denied> {
    let host = text(headers, header::HOST).unwrap_or_default();
    if !is_local(host) {
        return Err(unauthorized(
            "the request names another host than an address or localhost; those need the token that [api] can have",
        ));
    }
    match headers.get(header::ORIGIN) {
        None => Ok(()),
        Some(origin) if origin.as_bytes() == format!("http://{host}").as_bytes() => Ok(()),
        Some(_) => Err(unauthorized(
            "the request comes from a foreign web page; those need the token that [api] can have",
        )),
    }
}

fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn with_a_token_nothing_else_counts() {
        let access = Access::new(Some(&Secret::new("0123456789abcdef\n")), None);
        let with = |value| access.check(&headers(&[(header::AUTHORIZATION, value)]), May::Change);
        assert_eq!(with("Bearer 0123456789abcdef"), Ok(()));
        for bad in ["Bearer 0123456789abcdeF", "Bearer ", "Bearer 0123456789abcdef0", "0123456789abcdef", ""]
        {
            assert_eq!(with(bad).unwrap_err().reason, Reason::ApiUnauthorized, "{bad}");
        }
        assert!(access.check(&headers(&[(header::HOST, "127.0.0.1:1")]), May::Look).is_err());
        assert_eq!(access.check(&headers(&[]), May::Anybody), Ok(()));
    }

    #[test]
    fn the_token_for_looking_changes_nothing() {
        let tokens = [Secret::new("0123456789abcdef"), Secret::new("fedcba9876543210")];
        let access = Access::new(Some(&tokens[0]), Some(&tokens[1]));
        let with = |value, may| access.check(&headers(&[(header::AUTHORIZATION, value)]), may);
        assert_eq!(with("Bearer fedcba9876543210", May::Look), Ok(()));
        assert_eq!(with("Bearer fedcba9876543210", May::Change).unwrap_err().reason, Reason::ApiForbidden);
        assert_eq!(with("Bearer 0123456789abcdef", May::Look), Ok(()));
        assert_eq!(with("Bearer 0123456789abcdef", May::Change), Ok(()));
        assert_eq!(with("Bearer 0123456789abcdeg", May::Look).unwrap_err().reason, Reason::ApiUnauthorized);
    }

    #[test]
    fn without_a_token_programs_and_our_own_page_may_ask_and_foreign_web_pages_may_not() {
        let access = Access::new(None, None);
        let check = |pairs: &[(HeaderName, &'static str)]| access.check(&headers(pairs), May::Change);
        for host in ["127.0.0.1:8080", "127.0.0.1", "[::1]:8080", "[::1]", "localhost:80", "LOCALHOST"] {
            assert_eq!(check(&[(header::HOST, host)]), Ok(()), "{host}");
        }
        for host in ["", "evil.example", "evil.example:8080", "127.0.0.1.evil.example:80", "localhost.evil"] {
            assert!(check(&[(header::HOST, host)]).is_err(), "{host}");
        }
        let from = |origin| check(&[(header::HOST, "127.0.0.1:1"), (header::ORIGIN, origin)]);
        assert_eq!(from("http://127.0.0.1:1"), Ok(()));
        for origin in ["http://evil.example", "null", "http://127.0.0.1:2", "https://127.0.0.1:1", ""] {
            assert!(from(origin).is_err(), "{origin}");
        }
        let rebound = [(header::HOST, "evil.example"), (header::ORIGIN, "http://evil.example")];
        assert!(check(&rebound).is_err());
    }
}
