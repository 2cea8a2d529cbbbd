//! The HTTP surface for operators: what runs, and the things that can be asked of it.
//!
//! | request                                  | answer                                                    |
//! |------------------------------------------|-----------------------------------------------------------|
//! | `GET /v1/health`                         | the process answers; the one request without a token      |
//! | `GET /v1/policies`                       | the running set, policy by policy, and the set before     |
//! | `POST /v1/policies/swap[?dry_run=true]`  | the configuration file is read again; what is different   |
//! | `POST /v1/policies/rollback`             | the set before runs again                                 |
//! | `GET /v1/gate`                           | mode, phase, tip, and the job that miners have            |
//! | `POST /v1/mode`, `{"mode":"observe"}`    | observe or inline is in force                             |
//!
//! It decides nothing: it hands requests to [`Swaps`] and shows what comes back. An error is
//! `{ "reason_code", "detail", "faults" }`. A connection carries one request, has a few seconds for its
//! head and its body, and counts among a few at most; more wait in the kernel's queue. Whoever can reach
//! a loopback address is an operator of this machine, except for web pages in its browser, which are
//! told apart by what browsers send; anything beyond needs the token.
//!
//! - `access`: who may ask
//! - [`client`]: the other side, `reservegrid policy swap | rollback | status` and `reservegrid mode`

mod access;
pub mod client;

use crate::{
    config::Secret,
    event::schema::{SwapFault, Trigger},
    gate::Mode,
    reason::Reason,
    swap::{Refused, Swaps},
    words::printable,
};
use access::Access;
use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Request, State, rejection::BytesRejection},
    http::{StatusCode, Uri},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

/// Requests at the same time.
const MAX_CONNECTIONS: usize = 16;
/// The one body that there is names a mode.
const MAX_BODY: usize = 1024;
/// Characters of a wrong mode that are shown.
const MAX_SHOWN: usize = 40;
/// For the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// For the answer, a swap with its replay included.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// For a connection as a whole.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(90);
/// After an error that accepting again at once would only repeat (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The listening surface.
pub struct Api {
    listener: TcpListener,
    address: SocketAddr,
    router: Router,
}

impl Api {
    /// Binds the address. The token, where there is one, must be in every request but for health.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(listen: SocketAddr, token: Option<Secret>, swaps: Arc<Swaps>) -> io::Result<Self> {
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("[api] listen {listen}: {error}"));
        let listener = TcpListener::bind(listen).await.map_err(named)?;
        let access = Arc::new(Access::new(token.as_ref()));
        let guarded = Router::new()
            .route("/v1/policies", get(status))
            .route("/v1/policies/swap", post(swap))
            .route("/v1/policies/rollback", post(rollback))
            .route("/v1/gate", get(gate))
            .route("/v1/mode", post(mode))
            .with_state(swaps)
            .fallback(unknown)
            .method_not_allowed_fallback(wrong_method)
            .layer(middleware::from_fn(in_time))
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .layer(middleware::from_fn_with_state(access, allowed));
        let open = Router::new().route("/v1/health", get(health)).method_not_allowed_fallback(wrong_method);
        let router = open.merge(guarded);
        Ok(Self { address: listener.local_addr()?, listener, router })
    }

    /// The bound address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until shutdown; what is being answered then has until the gateway's drain ends.
    pub async fn run(self, mut down: watch::Receiver<bool>) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                _ = down.wait_for(|down| *down) => break,
                Some(_) = connections.join_next() => continue,
                accepted = accept(&self.listener, &places) => accepted,
            };
            match accepted {
                Ok((stream, place)) => {
                    let router = self.router.clone();
                    connections.spawn(async move {
                        let _ = timeout(CONNECTION_TIMEOUT, serve(stream, router)).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "[api] cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        while connections.join_next().await.is_some() {}
    }
}

type Place = tokio::sync::OwnedSemaphorePermit;

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> io::Result<(TcpStream, Place)> {
    let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    Ok((listener.accept().await?.0, place))
}

async fn serve(stream: TcpStream, router: Router) {
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = served.await {
        tracing::debug!(%error, "[api] a connection ended early");
    }
}

/// What a request that cannot be answered gets.
#[derive(Debug, Serialize)]
struct Error {
    #[serde(skip)]
    status: StatusCode,
    reason_code: Reason,
    detail: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    faults: Vec<SwapFault>,
}

impl Error {
    fn new(status: StatusCode, reason_code: Reason, detail: impl Into<String>) -> Self {
        Self { status, reason_code, detail: detail.into(), faults: Vec::new() }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        (self.status, Json(self)).into_response()
    }
}

impl From<Refused> for Error {
    fn from(Refused { reason_code, detail, faults }: Refused) -> Self {
        let status = match reason_code {
            Reason::PolicySwapBusy | Reason::PolicyRollbackUnavailable => StatusCode::CONFLICT,
            Reason::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
            Reason::ShutdownDrain => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self { status, reason_code, detail, faults }
    }
}

async fn health() -> impl IntoResponse {
    Json(json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") }))
}

async fn status(State(swaps): State<Arc<Swaps>>) -> impl IntoResponse {
    Json(swaps.status())
}

/// A request's body, or why it cannot be taken.
type Body = Result<Bytes, BytesRejection>;

async fn swap(State(swaps): State<Arc<Swaps>>, uri: Uri, body: Body) -> Result<Response, Error> {
    no_body(body)?;
    let dry_run = match uri.query() {
        None | Some("" | "dry_run=false") => false,
        Some("dry_run=true") => true,
        Some(_) => return Err(invalid("the query may be dry_run=true or dry_run=false and nothing else")),
    };
    Ok(Json(swaps.reload(Trigger::Http, dry_run).await?).into_response())
}

async fn rollback(State(swaps): State<Arc<Swaps>>, uri: Uri, body: Body) -> Result<Response, Error> {
    no_body(body)?;
    if uri.query().is_some_and(|query| !query.is_empty()) {
        return Err(invalid("a rollback has no query"));
    }
    Ok(Json(swaps.rollback(Trigger::Http)?).into_response())
}

async fn gate(State(swaps): State<Arc<Swaps>>) -> impl IntoResponse {
    Json(swaps.gate())
}

/// The body that asks for a mode.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedMode {
    mode: String,
}

async fn mode(State(swaps): State<Arc<Swaps>>, uri: Uri, body: Body) -> Result<Response, Error> {
    if uri.query().is_some_and(|query| !query.is_empty()) {
        return Err(invalid("a change of the mode has no query: the mode is in the body"));
    }
    let body = body.map_err(unread)?;
    let wanted: WantedMode = serde_json::from_slice(&body)
        .map_err(|error| invalid(&format!("the body must be like {{\"mode\":\"observe\"}}: {error}")))?;
    let wanted: Mode = wanted
        .mode
        .parse()
        .map_err(|error| invalid(&format!("\"{}\" {error}", printable(wanted.mode.as_bytes(), MAX_SHOWN))))?;
    Ok(Json(swaps.set_mode(Trigger::Http, wanted).await?).into_response())
}

fn no_body(body: Body) -> Result<(), Error> {
    match body {
        Ok(body) if body.is_empty() => Ok(()),
        Ok(_) => {
            Err(invalid("the request must have no body: the policies are those of the configuration file"))
        }
        Err(error) => Err(unread(error)),
    }
}

fn unread(error: BytesRejection) -> Error {
    Error::new(error.status(), Reason::ApiRequestInvalid, error.body_text())
}

fn invalid(detail: &str) -> Error {
    Error::new(StatusCode::BAD_REQUEST, Reason::ApiRequestInvalid, detail)
}

async fn unknown() -> Error {
    let detail = "there is nothing under this address; see GET /v1/policies";
    Error::new(StatusCode::NOT_FOUND, Reason::ApiRequestInvalid, detail)
}

async fn wrong_method() -> Error {
    let detail = "this address is asked with another method: GET to look, POST to change";
    Error::new(StatusCode::METHOD_NOT_ALLOWED, Reason::ApiRequestInvalid, detail)
}

/// Only who may ask comes further.
async fn allowed(State(access): State<Arc<Access>>, request: Request, next: Next) -> Result<Response, Error> {
    match access.check(request.headers()) {
        Ok(()) => Ok(next.run(request).await),
        Err(detail) => {
            tracing::warn!(path = request.uri().path(), "[api] refused: {detail}");
            Err(Error::new(StatusCode::UNAUTHORIZED, Reason::ApiUnauthorized, detail))
        }
    }
}

/// Nobody waits for ever, whoever is slow. A swap that was begun goes on to its end.
async fn in_time(request: Request, next: Next) -> Result<Response, Error> {
    let late = |_| {
        let detail =
            "no answer in time; a change of the policies that was begun goes on, the events say how it ends";
        Error::new(StatusCode::GATEWAY_TIMEOUT, Reason::ApiTimeout, detail)
    };
    timeout(ANSWER_TIMEOUT, next.run(request)).await.map_err(late)
}
