//! A pool's backend on threads of its own: it checks signatures and says yes to every share.

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, routing::post};
use reservegrid::ledger::sign;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

pub(crate) const SECRET: &str = "the secret of the bench";

pub(crate) struct Backend {
    pub(crate) url: String,
    shares: Arc<AtomicU64>,
}

impl Backend {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/shares", listener.local_addr().unwrap());
        let shares = Arc::new(AtomicU64::new(0));
        let app = Router::new().route("/shares", post(take)).with_state(shares.clone());
        let app = app.layer(axum::extract::DefaultBodyLimit::disable());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, shares }
    }

    /// Shares that it said yes to.
    pub(crate) fn shares(&self) -> u64 {
        self.shares.load(Ordering::Relaxed)
    }
}

async fn take(State(shares): State<Arc<AtomicU64>>, headers: HeaderMap, body: Bytes) -> String {
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    let signature = header(sign::SIGNATURE_HEADER);
    assert!(sign::verify(SECRET.as_bytes(), &header(sign::TIMESTAMP_HEADER), &body, &signature));
    // A pool would parse it all; this is to measure the gateway.
    const NEEDLE: &[u8] = b"\"share_id\":\"";
    let mut answer = String::from("{\"results\":[");
    let (mut at, mut count) = (0, 0);
    while let Some(found) = body[at..].windows(NEEDLE.len()).position(|window| window == NEEDLE) {
        let id = at + found + NEEDLE.len();
        answer.push_str(if count > 0 { ",{\"share_id\":\"" } else { "{\"share_id\":\"" });
        answer.push_str(std::str::from_utf8(&body[id..id + 64]).unwrap());
        answer.push_str("\",\"accepted\":true}");
        // What follows an id has a known length at least.
        at = (id + 400).min(body.len());
        count += 1;
    }
    answer.push_str("]}");
    shares.fetch_add(count, Ordering::Relaxed);
    answer
}
