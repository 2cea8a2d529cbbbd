//! A pool backend: checks the signature of every request, records every share, misbehaves on demand.
//!
//! The wire format, as the gateway's ledger writes it: `POST` of `{"shares":[{"share_id":…,…}]}` with the
//! headers `X-ReserveGrid-Key-Id`, `X-ReserveGrid-Timestamp` (Unix seconds) and `X-ReserveGrid-Signature`
//! (hex HMAC-SHA256 of `timestamp "." body`). The answer has one result for each share.

use crate::wait;
use anyhow::{Context, Result};
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{net::TcpListener, task::JoinHandle};

/// How far the time of a request may be off, seconds.
const CLOCK_SKEW: u64 = 300;

/// What the backend does with a request whose signature is right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Behaviour {
    /// Take every share.
    #[default]
    Accept,
    /// Refuse every share, with this reason, in an answer 200.
    RejectShares(String),
    /// Answer 500.
    ServerError,
    /// Answer 400.
    BadRequest,
    /// Answer 401, as if the signature were wrong.
    RefuseSignature,
    /// Answer 200 with something that is not JSON.
    Nonsense,
    /// Record the shares, but never answer.
    Hang,
    /// Take every share, and say so twice.
    Repeat,
    /// Answer 429, and ask for so many seconds of patience.
    TooMany(u32),
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The status of the answer.
    pub status: u16,
    /// The ids of its shares; none when the signature was wrong.
    pub shares: Vec<String>,
}

/// A share with everything the backend knows of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Share {
    /// As it was last delivered.
    pub share: Value,
    /// How many signed requests held it.
    pub deliveries: u32,
    /// What the backend answered, one for each answer 200.
    pub answers: Vec<bool>,
}

#[derive(Debug, Default)]
struct Record {
    behaviour: Behaviour,
    requests: Vec<Request>,
    shares: BTreeMap<String, Share>,
    bad_signatures: u32,
}

#[derive(Debug)]
struct Shared {
    key_id: String,
    secret: String,
    record: Mutex<Record>,
}

/// A running backend; it ends with this handle.
#[derive(Debug)]
pub struct Backend {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

impl Backend {
    /// Starts a backend on a free port of the loopback interface.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start(key_id: &str, secret: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let record = Mutex::default();
        let shared = Arc::new(Shared { key_id: key_id.into(), secret: secret.into(), record });
        let app = Router::new().route("/shares", post(receive)).with_state(shared.clone());
        let server = tokio::spawn(async move {
            // It serves until the task is aborted.
            let _ = axum::serve(listener, app).await;
        });
        Ok(Self { address, shared, server })
    }

    /// Where shares are posted to.
    pub fn url(&self) -> String {
        format!("http://{}/shares", self.address)
    }

    /// The name of its key.
    pub fn key_id(&self) -> &str {
        &self.shared.key_id
    }

    /// Its secret.
    pub fn secret(&self) -> &str {
        &self.shared.secret
    }

    /// Changes what it does, from the next request on.
    pub fn behave(&self, behaviour: Behaviour) {
        self.shared.record().behaviour = behaviour;
    }

    /// The shares by id.
    pub fn shares(&self) -> BTreeMap<String, Share> {
        self.shared.record().shares.clone()
    }

    /// Every request, in order.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.record().requests.clone()
    }

    /// Requests whose key id, time or signature was wrong.
    pub fn bad_signatures(&self) -> u32 {
        self.shared.record().bad_signatures
    }

    /// Waits until something holds of the shares.
    ///
    /// # Errors
    /// When it does not within the deadline.
    pub async fn wait_for(
        &self,
        what: &str,
        deadline: Duration,
        condition: impl Fn(&BTreeMap<String, Share>) -> bool,
    ) -> Result<()> {
        let waited =
            wait::until(what, deadline, async || Ok(condition(&self.shared.record().shares).then_some(())));
        waited.await.with_context(|| {
            let record = self.shared.record();
            format!(
                "the backend has {} shares of {} requests, {} with a bad signature",
                record.shares.len(),
                record.requests.len(),
                record.bad_signatures
            )
        })
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shared {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signed(&self, headers: &HeaderMap, body: &[u8]) -> bool {
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let (Some(key_id), Some(timestamp), Some(signature)) = (
            header("X-ReserveGrid-Key-Id"),
            header("X-ReserveGrid-Timestamp"),
            header("X-ReserveGrid-Signature"),
        ) else {
            return false;
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let timely = timestamp.parse().is_ok_and(|time: u64| time.abs_diff(now) <= CLOCK_SKEW);
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.secret.as_bytes()) else { return false };
        mac.update(timestamp.as_bytes());
        mac.update(b".");
        mac.update(body);
        let right = hex::decode(signature).is_ok_and(|bytes| mac.verify_slice(&bytes).is_ok());
        key_id == self.key_id && timely && right
    }

    /// Answers a request and records it; `None` means no answer at all.
    fn answer(&self, headers: &HeaderMap, body: &[u8]) -> Option<Answer> {
        let signed = self.signed(headers, body);
        let mut record = self.record();
        if !signed {
            record.bad_signatures += 1;
            record.requests.push(Request { status: 401, shares: Vec::new() });
            return Some(answer(StatusCode::UNAUTHORIZED, "bad signature"));
        }
        let shares = serde_json::from_slice(body).ok().and_then(|body: Value| match body.get("shares") {
            Some(Value::Array(shares)) => shares
                .iter()
                .map(|share| Some((share.get("share_id")?.as_str()?.to_owned(), share.clone())))
                .collect::<Option<Vec<_>>>(),
            _ => None,
        });
        let Some(shares) = shares else {
            record.requests.push(Request { status: 400, shares: Vec::new() });
            return Some(answer(StatusCode::BAD_REQUEST, "not a list of shares with ids"));
        };
        let behaviour = record.behaviour.clone();
        let (status, verdict) = match &behaviour {
            Behaviour::Accept | Behaviour::Repeat => (StatusCode::OK, Some(true)),
            Behaviour::TooMany(_) => (StatusCode::TOO_MANY_REQUESTS, None),
            Behaviour::RejectShares(_) => (StatusCode::OK, Some(false)),
            Behaviour::Nonsense | Behaviour::Hang => (StatusCode::OK, None),
            Behaviour::ServerError => (StatusCode::INTERNAL_SERVER_ERROR, None),
            Behaviour::BadRequest => (StatusCode::BAD_REQUEST, None),
            Behaviour::RefuseSignature => (StatusCode::UNAUTHORIZED, None),
        };
        let ids: Vec<_> = shares.iter().map(|(id, _)| id.clone()).collect();
        for (id, share) in shares {
            let known = record.shares.entry(id).or_insert(Share {
                share: Value::Null,
                deliveries: 0,
                answers: vec![],
            });
            known.share = share;
            known.deliveries += 1;
            known.answers.extend(verdict);
        }
        let times = if behaviour == Behaviour::Repeat { 2 } else { 1 };
        let results: Vec<_> = ids
            .iter()
            .flat_map(|id| std::iter::repeat_n(id, times))
            .map(|id| match &behaviour {
                Behaviour::RejectShares(why) => json!({ "share_id": id, "accepted": false, "reason": why }),
                _ => json!({ "share_id": id, "accepted": true }),
            })
            .collect();
        record.requests.push(Request { status: status.as_u16(), shares: ids });
        match behaviour {
            Behaviour::Hang => None,
            Behaviour::TooMany(seconds) => {
                let mut answer = answer(status, "slowly");
                answer.1.insert("retry-after", seconds.into());
                Some(answer)
            }
            _ if verdict.is_some() => Some(answer(status, json!({ "results": results }).to_string())),
            _ => Some(answer(status, "<not json>")),
        }
    }
}

type Answer = (StatusCode, HeaderMap, String);

fn answer(status: StatusCode, body: impl Into<String>) -> Answer {
    (status, HeaderMap::new(), body.into())
}

async fn receive(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Answer {
    match shared.answer(&headers, &body) {
        Some(answer) => answer,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Posts a body, signed with openssl-checked bytes of the same rule the gateway follows.
    async fn post(backend: &Backend, secret: &str, body: &str, at: u64) -> (u16, String) {
        let timestamp = at.to_string();
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(format!("{timestamp}.{body}").as_bytes());
        let signature = hex::encode(mac.finalize().into_bytes());
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client
            .post(backend.url())
            .header("X-ReserveGrid-Key-Id", backend.key_id())
            .header("X-ReserveGrid-Timestamp", timestamp)
            .header("X-ReserveGrid-Signature", signature)
            .body(body.to_owned());
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    fn now() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
    }

    const BODY: &str = r#"{"shares":[{"share_id":"a","difficulty":1.0},{"share_id":"b"}]}"#;

    #[tokio::test]
    async fn a_signed_request_is_recorded_and_answered_share_by_share() {
        let backend = Backend::start("k", "a secret of the pool").await.unwrap();
        let (status, text) = post(&backend, "a secret of the pool", BODY, now()).await;
        assert_eq!(status, 200);
        let expected = json!({ "results": [{ "share_id": "a", "accepted": true }, { "share_id": "b", "accepted": true }] });
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
        let a = &backend.shares()["a"];
        assert_eq!((a.deliveries, &a.answers[..], &a.share["difficulty"]), (1, &[true][..], &json!(1.0)));
        assert_eq!(backend.requests(), [Request { status: 200, shares: vec!["a".into(), "b".into()] }]);
    }

    #[tokio::test]
    async fn a_wrong_key_or_an_old_request_is_refused_and_records_no_share() {
        let backend = Backend::start("k", "a secret of the pool").await.unwrap();
        assert_eq!(post(&backend, "another", BODY, now()).await.0, 401);
        assert_eq!(post(&backend, "a secret of the pool", BODY, now() - 2 * CLOCK_SKEW).await.0, 401);
        assert_eq!((backend.bad_signatures(), backend.shares().len()), (2, 0));
    }

    #[tokio::test]
    async fn it_misbehaves_as_told() {
        let backend = Backend::start("k", "a secret of the pool").await.unwrap();
        for (behaviour, status) in [
            (Behaviour::ServerError, 500),
            (Behaviour::BadRequest, 400),
            (Behaviour::RefuseSignature, 401),
            (Behaviour::Nonsense, 200),
            (Behaviour::RejectShares("unknown job".into()), 200),
        ] {
            backend.behave(behaviour.clone());
            let (got, text) = post(&backend, "a secret of the pool", BODY, now()).await;
            assert_eq!(got, status, "{behaviour:?}");
            assert_eq!(text.contains("unknown job"), matches!(behaviour, Behaviour::RejectShares(_)));
        }
        let a = &backend.shares()["a"];
        assert_eq!((a.deliveries, &a.answers[..]), (5, &[false][..]), "one answer for five deliveries");
    }
}
