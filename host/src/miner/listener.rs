//! Accepting connections: a place first, then a task, and at the end a drain that waits for all.

use super::{
    Extranonces, Identities, Limits, Shared, Solved, Tunables, Work,
    admission::Door,
    begun, connection,
    outbox::Close,
    places::Places,
    rate::Bucket,
    users::{self, UserCheck},
    view::MinersView,
};
use crate::{
    event::{Event, Events, schema},
    ledger::Ledger,
    noise::{AuthorityPublicKey, AuthoritySecretKey},
    reason::Reason,
};
use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};

/// Refused connections that are told one by one at once, and how many a second later.
const REFUSALS: (f64, f64) = (64.0, 8.0);

/// What a server is made from.
pub struct ServerParts {
    /// Limits, timings and terms at the beginning.
    pub limits: Limits,
    /// Signs the server's certificates.
    pub authority: AuthoritySecretKey,
    /// Who may mine at the beginning.
    pub users: UserCheck,
    /// Where work appears.
    pub work: watch::Receiver<Work>,
    /// Where shares are recorded.
    pub ledger: Ledger,
    /// Where solved blocks go.
    pub blocks: mpsc::Sender<Solved>,
    /// Where decisions are told.
    pub events: Events,
    /// Where operators look, and what is counted.
    pub view: Arc<MinersView>,
}

/// The listening mining server.
pub struct Server {
    listener: TcpListener,
    authority: AuthorityPublicKey,
    door: Arc<Door>,
    connections: Arc<AtomicU64>,
    shared: Arc<Shared>,
}

impl Server {
    /// Binds the address and makes the first certificate.
    ///
    /// # Errors
    /// When the address cannot be bound, or the file of users cannot be read.
    pub async fn bind(address: SocketAddr, parts: ServerParts) -> io::Result<Self> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| io::Error::new(error.kind(), format!("[miners] listen {address}: {error}")))?;
        let authority = parts.authority.public();
        let shared = Arc::new(Shared {
            identities: Identities::new(parts.authority, parts.limits.certificate_validity),
            tunables: Arc::new(Tunables::new(parts.limits, parts.users)?),
            extranonces: Extranonces::new(),
            channels: Places::default(),
            work: parts.work,
            ledger: parts.ledger,
            blocks: parts.blocks,
            events: parts.events,
            view: parts.view,
        });
        Ok(Self { listener, authority, door: Door::new(), connections: Arc::default(), shared })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The key miners must be given.
    pub fn authority(&self) -> AuthorityPublicKey {
        self.authority
    }

    /// What may change while it runs.
    pub fn tunables(&self) -> Arc<Tunables> {
        self.shared.tunables.clone()
    }

    /// Counts open connections.
    pub fn connections(&self) -> Arc<AtomicU64> {
        self.connections.clone()
    }

    /// Accepts until `shutdown` becomes true, then waits until every connection has said goodbye.
    pub async fn run(self, mut shutdown: watch::Receiver<bool>) {
        let mut tasks = JoinSet::new();
        let mut number = 0;
        let mut refusals = Refusals::new(self.shared.events.clone());
        tasks.spawn(users::follow(self.shared.tunables.clone(), shutdown.clone()));
        loop {
            tokio::select! {
                biased;
                () = begun(&mut shutdown) => break,
                Some(_) = tasks.join_next() => {}
                () = tokio::time::sleep_until(refusals.due), if !refusals.untold.is_empty() => refusals.tell(),
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        number += 1;
                        self.admit(stream, peer, number, &shutdown, &mut tasks, &mut refusals);
                    }
                    Err(error) => {
                        // Out of file descriptors, most likely; accepting at once would only spin.
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
        drop(self.listener);
        refusals.tell();
        while tasks.join_next().await.is_some() {}
    }

    /// Starts a connection's task, if there is a place for it and work to give it.
    fn admit(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        number: u64,
        shutdown: &watch::Receiver<bool>,
        tasks: &mut JoinSet<()>,
        refusals: &mut Refusals,
    ) {
        let events = self.shared.events.clone();
        let closed = self.shared.work.borrow().closed;
        let admitted = closed.map_or_else(|| self.door.enter(peer.ip(), &self.shared.limits().door), Err);
        let pass = match admitted {
            Ok(pass) => pass,
            Err(reason) => {
                self.shared.view.meters.connections_refused.add(reason);
                return refusals.note(number, peer, reason);
            }
        };
        let shared = self.shared.clone();
        let seat = shared.view.enter(number, peer);
        let meters = shared.view.meters.clone();
        let connections = self.connections.clone();
        let shutdown = shutdown.clone();
        connections.fetch_add(1, Ordering::Relaxed);
        tasks.spawn(async move {
            // Its place is free again before anybody can read that it ended.
            let close = connection::serve(stream, number, shared, shutdown, pass, seat).await;
            meters.connections_closed.add(close.reason);
            connections.fetch_sub(1, Ordering::Relaxed);
            report(&events, number, peer, close);
        });
    }
}

/// Tells of connections that were not let in: each for itself while they are few, the others as a number a
/// second. Whoever keeps knocking must not fill the disk with it.
struct Refusals {
    events: Events,
    each: Bucket,
    untold: Vec<(Reason, u64)>,
    /// When the others are told.
    due: Instant,
}

impl Refusals {
    fn new(events: Events) -> Self {
        let now = Instant::now();
        Self {
            events,
            each: Bucket::new(REFUSALS.0, REFUSALS.1, now.into_std()),
            untold: Vec::new(),
            due: now,
        }
    }

    fn note(&mut self, number: u64, peer: SocketAddr, reason: Reason) {
        let now = Instant::now();
        if self.each.take(now.into_std()) {
            return report(&self.events, number, peer, Close::new(reason, "not accepted"));
        }
        if self.untold.is_empty() {
            self.due = now + Duration::from_secs(1);
        }
        match self.untold.iter_mut().find(|(of, _)| *of == reason) {
            Some((_, count)) => *count += 1,
            None => self.untold.push((reason, 1)),
        }
    }

    fn tell(&mut self) {
        for (reason, count) in self.untold.drain(..) {
            self.events.emit(Event::ConnectionsRefused { reason, count });
        }
    }
}

fn report(events: &Events, connection: u64, peer: SocketAddr, close: Close) {
    let Close { reason, detail } = close;
    let peer = peer.to_string();
    events.emit(Event::ConnectionClosed(schema::ConnectionClosed { connection, peer, reason, detail }));
}
