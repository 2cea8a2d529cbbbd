//! Who may ask, and how often; what was refused is counted and, not too often, logged.
//!
//! A peer has a rate for all its requests and a far lower one for wrong tokens. Peers are remembered by
//! address, a bounded number of them: when there are more, the new ones share one rate.

use super::{
    ANSWER_TIMEOUT, Surface,
    access::{Access, May},
    answer::{Error, Refusal},
};
use crate::{config, metrics::Meters, miner::Bucket, reason::Reason};
use arc_swap::ArcSwap;
use axum::{
    Extension,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::Response,
};
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};
use tokio::{sync::watch, time::timeout};

/// Requests of one address at once, and how many a second later.
const REQUESTS: (f64, f64) = (200.0, 50.0);
/// Wrong tokens of one address at once, and how many a second later.
const WRONG: (f64, f64) = (10.0, 0.2);
/// Addresses that are remembered.
const MAX_PEERS: usize = 4_096;
/// Refusals that are logged at once, and how many a second later.
const LOGGED: (f64, f64) = (20.0, 1.0);

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) IpAddr);

pub(super) struct Guard {
    access: ArcSwap<Access>,
    /// Counts the changes of tokens.
    changes: watch::Sender<u64>,
    meters: Arc<Meters>,
    rates: Mutex<Rates>,
}

struct Rates {
    peers: HashMap<IpAddr, (Bucket, Bucket)>,
    logged: Bucket,
    not_logged: u64,
}

impl Guard {
    pub(super) fn new(config: &config::Api, meters: Arc<Meters>) -> Self {
        let logged = Bucket::new(LOGGED.0, LOGGED.1, Instant::now());
        let rates = Mutex::new(Rates { peers: HashMap::new(), logged, not_logged: 0 });
        let access = ArcSwap::from_pointee(Access::of(config));
        Self { access, changes: watch::Sender::new(0), meters, rates }
    }

    /// Other tokens from now on. Whoever follows events with one that is none any more has to come again.
    pub(super) fn set_tokens(&self, config: &config::Api) {
        self.access.store(Arc::new(Access::of(config)));
        self.changes.send_modify(|count| *count += 1);
    }

    /// Is told of changes of the tokens.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn allows(&self, peer: IpAddr, request: &Request, may: May, now: Instant) -> Result<(), Error> {
        let too_many = |what: &str| {
            let detail = format!("too many {what} from {peer}; wait a little");
            Error::new(StatusCode::TOO_MANY_REQUESTS, Reason::ApiRateLimited, detail)
        };
        self.with_rates(peer, now, |(requests, _)| requests.take(now))
            .then_some(())
            .ok_or_else(|| too_many("requests"))?;
        let Err(denied) = self.access.load().check(request.headers(), may) else { return Ok(()) };
        let counts = denied.reason == Reason::ApiUnauthorized;
        if counts && !self.with_rates(peer, now, |(_, wrong)| wrong.take(now)) {
            return Err(too_many("requests that may not ask"));
        }
        let status = if counts { StatusCode::UNAUTHORIZED } else { StatusCode::FORBIDDEN };
        Err(Error::new(status, denied.reason, denied.detail))
    }

    fn with_rates<T>(&self, peer: IpAddr, now: Instant, read: impl FnOnce(&mut (Bucket, Bucket)) -> T) -> T {
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || (Bucket::new(REQUESTS.0, REQUESTS.1, now), Bucket::new(WRONG.0, WRONG.1, now));
        if rates.peers.len() >= MAX_PEERS && !rates.peers.contains_key(&peer) {
            // Whoever has its full rates again is as good as new.
            rates.peers.retain(|_, (requests, wrong)| !(requests.is_full(now) && wrong.is_full(now)));
        }
        let full = rates.peers.len() >= MAX_PEERS && !rates.peers.contains_key(&peer);
        let shared = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        read(rates.peers.entry(if full { shared } else { peer }).or_insert_with(new))
    }

    /// Counts what went out, and says what was refused.
    fn note(&self, peer: IpAddr, path: &str, response: &Response) {
        match response.extensions().get::<Refusal>() {
            Some(Refusal { reason, detail }) => self.refused(peer, path, *reason, detail),
            None => _ = self.meters.http_answered.inc(),
        }
    }

    /// Counts a refusal, and says it unless there are many.
    pub(super) fn refused(&self, peer: IpAddr, path: &str, reason: Reason, detail: &str) {
        self.meters.http_refused.add(reason);
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        if rates.logged.take(Instant::now()) {
            let silent = std::mem::take(&mut rates.not_logged);
            let path: String = path.chars().take(100).collect();
            tracing::warn!(%peer, %path, code = %reason, not_logged = silent, "[api] refused: {detail}");
        } else {
            rates.not_logged += 1;
        }
    }
}

/// Only who may ask comes further.
pub(super) async fn allowed(
    State((surface, may)): State<(Arc<Surface>, May)>,
    Extension(Peer(peer)): Extension<Peer>,
    request: Request,
    next: Next,
) -> Result<Response, Error> {
    surface.guard.allows(peer, &request, may, Instant::now())?;
    // Nobody waits for ever, whoever is slow. A swap that was begun goes on to its end.
    timeout(ANSWER_TIMEOUT, next.run(request)).await.map_err(|_| {
        let detail =
            "no answer in time; a change of the policies that was begun goes on, the events say how it ends";
        Error::new(StatusCode::GATEWAY_TIMEOUT, Reason::ApiTimeout, detail)
    })
}

/// Around everything: what a browser may do with the answer, and the counting.
pub(super) async fn noted(
    State(surface): State<Arc<Surface>>,
    Extension(Peer(peer)): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    surface.guard.note(peer, &path, &response);
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static("default-src 'none'"));
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use axum::body::Body;
    use std::time::Duration;

    fn guard(token: &str) -> Guard {
        let config = config::Api { listen: None, token: Some(config::Secret::new(token)), read_token: None };
        Guard::new(&config, Arc::default())
    }

    fn request(token: &str) -> Request {
        Request::builder().header("authorization", format!("Bearer {token}")).body(Body::empty()).unwrap()
    }

    fn reason(result: Result<(), Error>) -> Option<Reason> {
        result.err().map(|error| error.reason_code)
    }

    #[test]
    fn guessing_tokens_is_slow_and_hinders_nobody_else() {
        let (guard, now) = (guard("0123456789abcdef"), Instant::now());
        let [a, b] = [1, 2].map(|last| IpAddr::from([192, 0, 2, last]));
        for _ in 0..10 {
            assert_eq!(reason(guard.allows(a, &request("x"), May::Look, now)), Some(Reason::ApiUnauthorized));
        }
        assert_eq!(reason(guard.allows(a, &request("x"), May::Look, now)), Some(Reason::ApiRateLimited));
        assert_eq!(reason(guard.allows(b, &request("0123456789abcdef"), May::Change, now)), None);
        let later = now + Duration::from_secs(5);
        assert_eq!(reason(guard.allows(a, &request("x"), May::Look, later)), Some(Reason::ApiUnauthorized));
    }

    #[test]
    fn ten_requests_a_second_are_never_too_many_and_a_flood_is() {
        let (guard, start) = (guard("0123456789abcdef"), Instant::now());
        let peer = IpAddr::from([192, 0, 2, 1]);
        for tenth in 0..600 {
            let now = start + Duration::from_millis(100 * tenth);
            assert_eq!(reason(guard.allows(peer, &request("0123456789abcdef"), May::Look, now)), None);
        }
        let now = start + Duration::from_secs(60);
        let refused = (0..1_000).filter(|_| guard.allows(peer, &request("x"), May::Look, now).is_err());
        assert!(refused.count() > 700);
    }

    #[test]
    fn many_addresses_are_not_remembered_for_ever() {
        let (guard, now) = (guard("0123456789abcdef"), Instant::now());
        for number in 0..(MAX_PEERS as u32 + 500) {
            let peer = IpAddr::from(Ipv4Addr::from(0x0a00_0000 + number));
            let _ = guard.allows(peer, &request("x"), May::Look, now);
        }
        assert!(guard.rates.lock().unwrap().peers.len() <= MAX_PEERS + 1);
    }
}
