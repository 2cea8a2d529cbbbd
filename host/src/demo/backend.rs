//! A small pool backend: checks each signature, and pays each share once.

use crate::{event::unix_ms, ledger::sign};
use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::HashSet,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::net::TcpListener;

/// How far a signature's time may be from ours, seconds: older requests may be replays.
const MAX_AGE: u64 = 300;

/// The running backend.
pub(super) struct Backend {
    address: SocketAddr,
    books: Arc<Books>,
}

struct Books {
    secret: String,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    paid: HashSet<String>,
    difficulty: f64,
    again: usize,
    forged: usize,
}

#[derive(Deserialize)]
struct Batch {
    shares: Vec<Share>,
}

#[derive(Deserialize)]
struct Share {
    share_id: String,
    difficulty: f64,
}

impl Backend {
    pub(super) async fn start(secret: String) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let books = Arc::new(Books { secret, inner: Mutex::default() });
        let app = Router::new().route("/shares", post(take)).with_state(books.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(Self { address, books })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/shares", self.address)
    }

    pub(super) fn summary(&self) -> String {
        let books = self.books.inner.lock().unwrap_or_else(PoisonError::into_inner);
        format!(
            "{} shares paid (difficulty {:.4} in all), {} sent twice and paid once, {} requests with a bad signature",
            books.paid.len(),
            books.difficulty,
            books.again,
            books.forged
        )
    }
}

async fn take(
    State(books): State<Arc<Books>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, StatusCode> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let timestamp = header(sign::TIMESTAMP_HEADER);
    let fresh = timestamp.parse::<u64>().is_ok_and(|at| at.abs_diff(unix_ms() / 1000) <= MAX_AGE);
    let genuine = sign::verify(books.secret.as_bytes(), timestamp, &body, header(sign::SIGNATURE_HEADER));
    let mut inner = books.inner.lock().unwrap_or_else(PoisonError::into_inner);
    if !fresh || !genuine {
        inner.forged += 1;
        return Err(StatusCode::UNAUTHORIZED);
    }
    let batch: Batch = serde_json::from_slice(&body).map_err(|_| StatusCode::BAD_REQUEST)?;
    let mut results = Vec::with_capacity(batch.shares.len());
    for share in batch.shares {
        // The share id is the key against paying twice; a share that comes again is still "accepted".
        if inner.paid.insert(share.share_id.clone()) {
            inner.difficulty += share.difficulty;
        } else {
            inner.again += 1;
        }
        results.push(json!({ "share_id": share.share_id, "accepted": true }));
    }
    Ok(Json(json!({ "results": results })))
}
