//! The HTTP surface for operators: what runs, and the things that can be asked of it.
//!
//! It decides nothing: it shows what [`View`] and [`Swaps`] know, and hands requests for changes to the
//! latter. All addresses stand in `routes`, with who may ask and what comes back; the OpenAPI description
//! follows from them. An error is `{ "reason_code", "detail", "faults" }`. A connection carries one request,
//! has a few seconds for its head and its body, and counts among a few at most, of its address and of all; more
//! of all wait in the kernel's queue, more of an address are turned away. Whoever can reach a loopback address is an operator of this machine, except for foreign web pages
//! in its browser, which are told apart by what browsers send; anything beyond needs a token.
//!
//! - `routes`: every address, and the OpenAPI description; `look`, `change`: what they answer
//! - `stream`: events as they happen; `page`: the dashboard
//! - `guard`: who may ask, how often, and the counting of refusals; `access`: tokens and web pages
//! - `answer`: errors; `patient`: an end to connections that do not read
//! - [`client`]: the other side, `reservegrid policy swap | rollback | status` and `reservegrid mode`

mod access;
mod answer;
mod change;
pub mod client;
mod guard;
mod look;
mod page;
mod patient;
mod routes;
mod stream;

use crate::{
    config,
    miner::{Door, DoorLimits},
    reason::Reason,
    swap::Swaps,
    view::View,
};
use axum::{Extension, Router};
use guard::{Guard, Peer};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use patient::Patient;
pub use routes::{description, event_schema};
use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

/// Connections at the same time, those that follow events among them.
const MAX_CONNECTIONS: usize = 64;
/// Those from one address (of IPv6: one /64), so that nobody holds all of them.
const FROM_ONE: usize = 16;
/// Those from this machine, where a proxy or several programs of operators may be.
const FROM_HERE: usize = 40;
/// Readers that follow events.
const MAX_READERS: usize = 32;
/// The one body that there is names a mode.
const MAX_BODY: usize = 1024;
/// For the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// For the answer, a swap with its replay included.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// For a connection as a whole, unless it follows events.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(90);
/// For a peer that does not read to take a little more.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// After an error that accepting again at once would only repeat (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What requests are answered from.
struct Surface {
    swaps: Arc<Swaps>,
    view: Arc<View>,
    metrics: crate::metrics::Metrics,
    guard: Arc<Guard>,
    /// Places for readers that follow events.
    readers: Arc<Semaphore>,
    down: watch::Receiver<bool>,
}

/// The listening surface.
pub struct Api {
    listener: TcpListener,
    address: SocketAddr,
    router: Router,
    view: Arc<View>,
    tokens: Tokens,
}

/// What requests must carry; it may change while the surface runs.
#[derive(Clone)]
pub struct Tokens(Arc<Guard>);

impl Tokens {
    /// Those of this configuration from now on.
    pub fn set(&self, config: &config::Api) {
        self.0.set_tokens(config);
    }
}

/// A connection that follows events has no end of its own.
#[derive(Clone, Debug, Default)]
struct Follows(Arc<AtomicBool>);

impl Api {
    /// Binds the address. The tokens, where there are some, must be in every request but for health and
    /// the page.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(
        listen: SocketAddr,
        config: &config::Api,
        swaps: Arc<Swaps>,
        view: Arc<View>,
        down: watch::Receiver<bool>,
    ) -> io::Result<Self> {
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("[api] listen {listen}: {error}"));
        let listener = TcpListener::bind(listen).await.map_err(named)?;
        let guard = Arc::new(Guard::new(config, view.miners.meters.clone()));
        let surface = Arc::new(Surface {
            swaps,
            metrics: view.metrics(),
            guard: guard.clone(),
            view: view.clone(),
            readers: Arc::new(Semaphore::new(MAX_READERS)),
            down,
        });
        let router = routes::router(surface);
        Ok(Self { address: listener.local_addr()?, listener, router, view, tokens: Tokens(guard) })
    }

    /// The bound address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What requests must carry.
    pub fn tokens(&self) -> Tokens {
        self.tokens.clone()
    }

    /// Serves until shutdown; what is being answered then has until the gateway's drain ends.
    pub async fn run(self, mut down: watch::Receiver<bool>) {
        let (places, door) = (Arc::new(Semaphore::new(MAX_CONNECTIONS)), Door::new());
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                _ = down.wait_for(|down| *down) => break,
                Some(_) = connections.join_next() => continue,
                accepted = accept(&self.listener, &places) => accepted,
            };
            match accepted {
                Ok((stream, peer, place)) => {
                    let Ok(pass) = door.enter(peer.ip(), &limits(peer)) else {
                        turn_away(&stream);
                        let detail = "too many connections of this address at once";
                        self.tokens.0.refused(peer.ip(), "", Reason::ApiCapacityReached, detail);
                        continue;
                    };
                    let (router, view, guard) =
                        (self.router.clone(), self.view.clone(), self.tokens.0.clone());
                    connections.spawn(async move {
                        serve(stream, peer, router, &view, &guard).await;
                        drop((place, pass));
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

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, Place)> {
    let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, place))
}

fn limits(peer: SocketAddr) -> DoorLimits {
    let of_one = if peer.ip().to_canonical().is_loopback() { FROM_HERE } else { FROM_ONE };
    DoorLimits {
        connections: MAX_CONNECTIONS,
        connections_per_source: of_one,
        handshakes: MAX_CONNECTIONS,
        handshakes_per_source: of_one,
    }
}

/// A word for people, if the socket takes it at once; nothing is read.
fn turn_away(stream: &TcpStream) {
    let reason = Reason::ApiCapacityReached;
    let body = format!(
        "{{\"reason_code\":\"{reason}\",\"detail\":\"too many connections of your address at once\"}}"
    );
    let head = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close";
    let _ = stream.try_write(format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes());
}

async fn serve(stream: TcpStream, peer: SocketAddr, router: Router, view: &View, guard: &Guard) {
    let (follows, patient) = (Follows::default(), Patient::new(stream, WRITE_TIMEOUT));
    let gave_up = patient.gave_up();
    let router = router.layer(Extension(Peer(peer.ip()))).layer(Extension(follows.clone()));
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(patient), TowerToHyperService::new(router));
    tokio::pin!(serving);
    let served = match timeout(CONNECTION_TIMEOUT, &mut serving).await {
        Err(_) if follows.0.load(Ordering::Relaxed) => serving.await,
        Err(_) => return,
        Ok(served) => served,
    };
    if let Err(error) = served {
        tracing::debug!(%error, "[api] a connection ended early");
        if error.is_timeout() {
            guard.refused(peer.ip(), "", Reason::ApiTimeout, "the head of a request did not come in time");
        } else if error.is_parse() {
            guard.refused(peer.ip(), "", Reason::ApiRequestInvalid, "what came is no HTTP request");
        }
        if gave_up.load(Ordering::Relaxed) && follows.0.load(Ordering::Relaxed) {
            stream::cut(&view.miners.meters, peer.ip());
        }
    }
}
