//! Who is connected and what they do, for operators to look at. Nothing is decided by it.
//!
//! A connection has a [`Seat`] here, which goes with it. Opening and closing channels takes a lock; a share
//! is an atomic addition to its channel. Whoever looks copies one page at a time.

use crate::{event::unix_ms, metrics::Meters, reason::Reason};
use schemars::JsonSchema;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Everybody who is connected, and the counters of the mining server. Share it behind an `Arc`.
#[derive(Debug, Default)]
pub struct MinersView {
    /// What is counted on the way of a share.
    pub meters: Arc<Meters>,
    connections: Mutex<BTreeMap<u64, Arc<Connection>>>,
    channels: AtomicU64,
}

/// A connection as operators see it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ConnectionView {
    /// Its number in this process.
    pub connection: u64,
    /// Address of the peer.
    pub peer: String,
    /// Since when, Unix time, milliseconds.
    pub since_ms: u64,
    /// What the client says it is: vendor, hardware, firmware, id; may be empty.
    pub device: String,
    /// Its open channels.
    pub channels: Vec<ChannelView>,
}

/// A channel as operators see it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ChannelView {
    /// Its id on the connection.
    pub channel: u32,
    /// `standard` or `extended`.
    pub kind: &'static str,
    /// Who mines.
    pub user_identity: String,
    /// Since when, Unix time, milliseconds.
    pub since_ms: u64,
    /// Difficulty of its shares.
    pub difficulty: f64,
    /// What its accepted shares show, hashes a second, since it was opened.
    pub hashrate: f64,
    /// Shares that were accepted.
    pub shares_accepted: u64,
    /// Shares that were refused.
    pub shares_rejected: u64,
    /// When the last share was accepted, Unix time, milliseconds.
    pub last_share_ms: Option<u64>,
}

#[derive(Debug)]
struct Connection {
    peer: String,
    since_ms: u64,
    device: OnceLock<String>,
    channels: Mutex<BTreeMap<u32, Arc<Channel>>>,
}

#[derive(Debug)]
struct Channel {
    kind: &'static str,
    user_identity: String,
    since_ms: u64,
    /// Bits of the number.
    difficulty: AtomicU64,
    accepted: AtomicU64,
    rejected: AtomicU64,
    work: crate::metrics::Sum,
    last_share_ms: AtomicU64,
}

impl MinersView {
    /// A place for a connection.
    pub(super) fn enter(self: &Arc<Self>, number: u64, peer: SocketAddr) -> Seat {
        let connection = Arc::new(Connection {
            peer: peer.to_string(),
            since_ms: unix_ms(),
            device: OnceLock::new(),
            channels: Mutex::default(),
        });
        lock(&self.connections).insert(number, connection.clone());
        self.meters.connections.inc();
        Seat { view: self.clone(), number, connection, channels: BTreeMap::new() }
    }

    /// Open channels on all connections.
    pub fn channels(&self) -> u64 {
        self.channels.load(Ordering::Relaxed)
    }

    /// Open connections.
    pub fn connections(&self) -> usize {
        lock(&self.connections).len()
    }

    /// The connections whose number is greater than `after`, at most `limit` of them.
    pub fn page(&self, after: u64, limit: usize) -> Vec<ConnectionView> {
        let range = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
        let found: Vec<_> = lock(&self.connections)
            .range(range)
            .take(limit)
            .map(|(number, connection)| (*number, connection.clone()))
            .collect();
        let now = unix_ms();
        found.into_iter().map(|(number, connection)| connection.show(number, now)).collect()
    }
}

impl Connection {
    fn show(&self, connection: u64, now: u64) -> ConnectionView {
        let channels = lock(&self.channels).iter().map(|(id, channel)| channel.show(*id, now)).collect();
        ConnectionView {
            connection,
            peer: self.peer.clone(),
            since_ms: self.since_ms,
            device: self.device.get().cloned().unwrap_or_default(),
            channels,
        }
    }
}

impl Channel {
    fn show(&self, channel: u32, now: u64) -> ChannelView {
        let seconds = now.saturating_sub(self.since_ms).max(1_000) as f64 / 1e3;
        ChannelView {
            channel,
            kind: self.kind,
            user_identity: self.user_identity.clone(),
            since_ms: self.since_ms,
            difficulty: f64::from_bits(self.difficulty.load(Ordering::Relaxed)),
            hashrate: self.work.get() * HASHES_PER_DIFFICULTY / seconds,
            shares_accepted: self.accepted.load(Ordering::Relaxed),
            shares_rejected: self.rejected.load(Ordering::Relaxed),
            last_share_ms: Some(self.last_share_ms.load(Ordering::Relaxed)).filter(|time| *time > 0),
        }
    }
}

/// Hashes that a share of difficulty 1 takes on average.
pub const HASHES_PER_DIFFICULTY: f64 = 4_294_967_296.0;

/// A connection's place in the view; it is left when this is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    view: Arc<MinersView>,
    number: u64,
    connection: Arc<Connection>,
    channels: BTreeMap<u32, Arc<Channel>>,
}

impl Seat {
    /// What the client says it is.
    pub(super) fn device(&self, device: &str) {
        let _ = self.connection.device.set(device.to_owned());
    }

    /// A channel was opened.
    pub(super) fn open(&mut self, id: u32, kind: &'static str, user_identity: &str, difficulty: f64) {
        let channel = Arc::new(Channel {
            kind,
            user_identity: user_identity.to_owned(),
            since_ms: unix_ms(),
            difficulty: AtomicU64::new(difficulty.to_bits()),
            accepted: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            work: crate::metrics::Sum::default(),
            last_share_ms: AtomicU64::new(0),
        });
        lock(&self.connection.channels).insert(id, channel.clone());
        if self.channels.insert(id, channel).is_none() {
            self.view.channels.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A channel was closed.
    pub(super) fn close(&mut self, id: u32) {
        if self.channels.remove(&id).is_some() {
            lock(&self.connection.channels).remove(&id);
            self.view.channels.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// All channels were closed.
    pub(super) fn close_all(&mut self) {
        let channels = std::mem::take(&mut self.channels);
        lock(&self.connection.channels).clear();
        self.view.channels.fetch_sub(channels.len() as u64, Ordering::Relaxed);
    }

    /// A channel has another difficulty.
    pub(super) fn retarget(&self, id: u32, difficulty: f64) {
        if let Some(channel) = self.channels.get(&id) {
            channel.difficulty.store(difficulty.to_bits(), Ordering::Relaxed);
        }
    }

    /// A share was acknowledged; the totals are told with [`Meters::accepted`].
    pub(super) fn accepted(&self, id: u32, difficulty: f64, now_ms: u64) {
        if let Some(channel) = self.channels.get(&id) {
            channel.accepted.fetch_add(1, Ordering::Relaxed);
            channel.work.add(difficulty);
            channel.last_share_ms.store(now_ms, Ordering::Relaxed);
        }
    }

    /// A share was refused.
    pub(super) fn rejected(&self, id: u32, reason: Reason) {
        self.view.meters.shares_rejected.add(reason);
        if let Some(channel) = self.channels.get(&id) {
            channel.rejected.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What everybody counts in.
    pub(super) fn meters(&self) -> &Meters {
        &self.view.meters
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.close_all();
        lock(&self.view.connections).remove(&self.number);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 4_000))
    }

    #[test]
    fn pages_follow_each_other_and_nobody_stays_after_leaving() {
        let view = Arc::new(MinersView::default());
        let mut seats: Vec<_> = (1..=5).map(|number| view.enter(number, peer())).collect();
        let numbers = |page: Vec<ConnectionView>| page.iter().map(|c| c.connection).collect::<Vec<_>>();
        assert_eq!(numbers(view.page(0, 3)), [1, 2, 3]);
        assert_eq!(numbers(view.page(3, 3)), [4, 5]);
        seats[1].open(2, "standard", "alice", 1.0);
        seats.truncate(1);
        assert_eq!((numbers(view.page(0, 3)), view.channels()), (vec![1], 0), "its channel went with it");
    }

    #[test]
    fn a_channel_shows_its_own_shares() {
        let view = Arc::new(MinersView::default());
        let mut seat = view.enter(1, peer());
        seat.open(2, "standard", "alice", 8.0);
        seat.open(3, "extended", "bob", 1.0);
        seat.accepted(2, 8.0, 77);
        seat.rejected(3, Reason::ShareStale);
        seat.rejected(9, Reason::ChannelNotFound);
        seat.retarget(3, 2.0);
        let page = view.page(0, 1);
        let [alice, bob] = &page[0].channels[..] else { panic!("{page:?}") };
        assert_eq!((alice.shares_accepted, alice.shares_rejected, alice.last_share_ms), (1, 0, Some(77)));
        assert!(alice.hashrate > 0.0 && alice.hashrate <= 8.0 * HASHES_PER_DIFFICULTY);
        assert_eq!((bob.shares_rejected, bob.difficulty, bob.last_share_ms), (1, 2.0, None));
        assert_eq!(view.meters.shares_rejected.sum(), 2, "also what named no channel");
        seat.close(2);
        assert_eq!((view.page(0, 1)[0].channels.len(), view.channels()), (1, 1));
    }
}
