//! Who may ask: the token where there is one, and never a web page.
//!
//! A page in a browser on this machine can send requests to a loopback address. It cannot hide it: a
//! browser says where a POST comes from (`Origin`), and under which name it reached us (`Host`), which
//! gives away a foreign name that was pointed at 127.0.0.1 (DNS rebinding).

use crate::config::Secret;
use axum::http::{HeaderMap, HeaderName, header};
use sha2::{Digest, Sha256};
use std::net::IpAddr;
use subtle::ConstantTimeEq;

/// What requests are checked against. Of the token only the hash is kept.
pub(super) struct Access {
    token: Option<[u8; 32]>,
}

impl Access {
    pub(super) fn new(token: Option<&Secret>) -> Self {
        Self { token: token.map(|token| Sha256::digest(token.expose()).into()) }
    }

    /// Whether a request with these headers may come further; the error says why not.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), &'static str> {
        let Some(token) = self.token else { return no_web_page(headers) };
        let given = text(headers, header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
        let given = given.ok_or("the request carries no token; send Authorization: Bearer TOKEN")?;
        // Hashes of equal length, compared in the same time wherever they differ.
        let same: bool = Sha256::digest(given.trim()).as_slice().ct_eq(&token).into();
        if same { Ok(()) } else { Err("the token is not the one that the gateway was started with") }
    }
}

fn no_web_page(headers: &HeaderMap) -> Result<(), &'static str> {
    if headers.contains_key(header::ORIGIN) {
        return Err("the request comes from a web page; those need the token that [api] can have");
    }
    let host = text(headers, header::HOST).unwrap_or_default();
    if is_local(host) {
        Ok(())
    } else {
        Err(
            "the request names another host than an address or localhost; those need the token that [api] can have",
        )
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
    use super::*;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn with_a_token_nothing_else_counts() {
        let access = Access::new(Some(&Secret::new("0123456789abcdef\n")));
        let with = |value| access.check(&headers(&[(header::AUTHORIZATION, value)]));
        assert_eq!(with("Bearer 0123456789abcdef"), Ok(()));
        for bad in ["Bearer 0123456789abcdeF", "Bearer ", "Bearer 0123456789abcdef0", "0123456789abcdef", ""]
        {
            assert!(with(bad).is_err(), "{bad}");
        }
        assert!(access.check(&headers(&[(header::HOST, "127.0.0.1:1")])).is_err());
    }

    #[test]
    fn without_a_token_programs_may_ask_and_web_pages_may_not() {
        let access = Access::new(None);
        let check = |pairs: &[(HeaderName, &'static str)]| access.check(&headers(pairs));
        for host in ["127.0.0.1:8080", "127.0.0.1", "[::1]:8080", "[::1]", "localhost:80", "LOCALHOST"] {
            assert_eq!(check(&[(header::HOST, host)]), Ok(()), "{host}");
        }
        for host in ["", "evil.example", "evil.example:8080", "127.0.0.1.evil.example:80", "localhost.evil"] {
            assert!(check(&[(header::HOST, host)]).is_err(), "{host}");
        }
        assert!(check(&[(header::HOST, "127.0.0.1:1"), (header::ORIGIN, "http://evil.example")]).is_err());
        assert!(check(&[(header::HOST, "127.0.0.1:1"), (header::ORIGIN, "null")]).is_err());
    }
}
