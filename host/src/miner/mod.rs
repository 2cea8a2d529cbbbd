//! The mining server: miners connect here, get jobs and hand in shares.
//!
//! One task per connection owns everything about it; two connections share nothing that is locked
//! while shares flow. Work reaches all of them through one `watch` channel, so that a slow miner
//! never holds up a fast one and always sees the newest work, not a queue of old work.
//!
//! - `listener`: accepting, drain; `admission`: who is let in; `places`: how many channels
//! - `connection`: one connection's task: socket, deadlines; `hello`: peers that speak something else
//! - `session`: what the messages mean, without the socket; `rate`: how often a peer may send them
//! - `users`: who may mine
//! - `outbox`: what is sent: sealed messages, jobs among them
//! - `round`: how it is known that the last miner has the work on a new tip
//! - `view`: who is connected, for operators
//! - `channel`: one mining channel: its jobs, targets and shares; `vardiff`: how fast it hashes

mod admission;
mod channel;
mod connection;
mod hello;
mod listener;
mod outbox;
mod places;
mod rate;
mod round;
mod session;
#[cfg(test)]
mod testing;
mod users;
mod vardiff;
pub mod view;

pub(crate) use admission::Door;
pub use admission::DoorLimits;
pub use channel::{Channel, Kind, Request, Terms};
pub use listener::{Server, ServerParts};
pub use places::Places;
pub(crate) use rate::Bucket;
pub use round::{Released, Round};
pub use users::{PoolQuestions, UserCheck};

use crate::{
    event::{Events, unix_seconds},
    job::{EXTRANONCE_LEN, Job},
    ledger::Ledger,
    noise::{AuthoritySecretKey, Identity},
    reason::Reason,
    share::ValidShare,
};
use arc_swap::{ArcSwap, Guard};
use bitcoin::block::Header;

use std::{
    fmt, io,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::sync::{mpsc, watch};
use users::Users;

/// What miners are to do at the moment.
#[derive(Clone, Debug, Default)]
pub struct Work {
    /// The newest admitted job.
    pub job: Option<Arc<Job>>,
    /// A job for the tip after that, judged and admitted ahead.
    pub ahead: Option<Arc<Job>>,
    /// A newer tip is known but no work on it is admitted: shares on `job` are "held".
    pub held: bool,
    /// `job` was taken back: who has it keeps it, held, and nobody else is given it.
    pub withdrawn: bool,
    /// Nobody is served; the reason each miner is told.
    pub closed: Option<Reason>,
    /// Whoever was sent `job` belongs to it.
    pub round: Arc<Round>,
}

/// Limits, timings and terms of the server. They may change while it runs.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections and handshakes.
    pub door: DoorLimits,
    /// Channels on all connections.
    pub max_channels: usize,
    /// Channels on one connection.
    pub max_channels_per_connection: usize,
    /// Shares a second of one connection.
    pub max_shares_per_second: u32,
    /// What one connection may be refused a second before it is read more slowly.
    pub max_refusals_per_second: u32,
    /// Shares of one connection that may wait for the pool's answer.
    pub max_unanswered_shares: usize,
    /// From accepting the socket to the end of the handshake.
    pub handshake_timeout: Duration,
    /// From the handshake to the first open channel.
    pub setup_timeout: Duration,
    /// Longest silence of a peer.
    pub idle_timeout: Duration,
    /// What every channel's difficulty is to be.
    pub terms: Terms,
    /// Shares that one Success answers on a standard channel.
    pub standard_success_batch: u32,
    /// Shares that one Success answers on an extended channel.
    pub extended_success_batch: u32,
    /// What happens to shares while work is held back: recorded and marked, or refused.
    pub accept_held_shares: bool,
    /// For how long a certificate is valid.
    pub certificate_validity: Duration,
    /// Where miners are sent when the gateway ends; without it they are told that their channels are over.
    pub reconnect: Option<Elsewhere>,
}

/// A share that solves its block, on its way to the template source.
#[derive(Debug)]
pub struct Solved {
    /// The job it was mined on.
    pub job: Arc<Job>,
    /// The solved header.
    pub header: Header,
    /// The full extranonce.
    pub extranonce: [u8; EXTRANONCE_LEN],
    /// Who mined it.
    pub user_identity: String,
}

impl Solved {
    fn new(share: &ValidShare, user_identity: &str) -> Self {
        Self {
            job: share.job.clone(),
            header: share.header,
            extranonce: share.extranonce,
            user_identity: user_identity.to_owned(),
        }
    }
}

/// Where miners are sent when the gateway ends (SV2 Reconnect).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// A host name or address, at most 255 bytes; empty for the same as now.
    pub host: String,
    /// Its port; 0 for the same as now.
    pub port: u16,
}

impl Elsewhere {
    /// It leads nowhere but to this machine.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    }
}

/// `HOST:PORT`, an address of IPv6 in brackets.
impl fmt::Display for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// What every connection may use.
struct Shared {
    tunables: Arc<Tunables>,
    identities: Identities,
    extranonces: Extranonces,
    /// Places for channels.
    channels: Places,
    work: watch::Receiver<Work>,
    ledger: Ledger,
    blocks: mpsc::Sender<Solved>,
    events: Events,
    /// Who is connected, and what is counted.
    view: Arc<view::MinersView>,
}

impl Shared {
    /// What holds at the moment.
    fn limits(&self) -> Guard<Arc<Limits>> {
        self.tunables.limits.load()
    }
}

/// What may change while miners are connected.
pub struct Tunables {
    limits: ArcSwap<Limits>,
    users: ArcSwap<Users>,
}

impl Tunables {
    /// # Errors
    /// When the file of users cannot be read.
    fn new(limits: Limits, users: UserCheck) -> io::Result<Self> {
        Ok(Self { limits: ArcSwap::from_pointee(limits), users: ArcSwap::from_pointee(Users::new(users)?) })
    }

    /// Other limits from now on. What is open beyond them stays.
    pub fn set_limits(&self, limits: Limits) {
        self.limits.store(Arc::new(limits));
    }

    /// Reads who may mine; whoever opens a channel after [`set_users`](Self::set_users) is asked about there.
    ///
    /// # Errors
    /// When the file of users cannot be read.
    pub fn read_users(check: UserCheck) -> io::Result<KnownUsers> {
        Users::new(check).map(|users| KnownUsers(Arc::new(users)))
    }

    /// Other users from now on. Channels that are open stay.
    pub fn set_users(&self, users: KnownUsers) {
        self.users.store(users.0);
    }
}

/// Who may mine, read and ready to be asked.
pub struct KnownUsers(Arc<Users>);

/// Ready once the gateway is shutting down.
async fn begun(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|down| *down).await;
}

/// The server's certificate, renewed before it expires.
struct Identities {
    authority: AuthoritySecretKey,
    current: Mutex<Arc<Identity>>,
}

impl Identities {
    fn new(authority: AuthoritySecretKey, validity: Duration) -> Self {
        let current = Mutex::new(Arc::new(Identity::issue(&authority, unix_seconds(), validity)));
        Self { authority, current }
    }

    fn current(&self, validity: Duration) -> Arc<Identity> {
        let now = unix_seconds();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.needs_renewal(now) {
            *current = Arc::new(Identity::issue(&self.authority, now, validity));
        }
        current.clone()
    }
}

/// Bytes of extranonce that the gateway chooses; the rest is the miner's on an extended channel.
const PREFIX_LEN: usize = 8;
/// Bytes of extranonce that a miner on an extended channel rolls.
const ROLLABLE_LEN: usize = EXTRANONCE_LEN - PREFIX_LEN;

/// Hands out extranonce prefixes: four random bytes per process, so that gateways side by side do not
/// give the same work twice, and a counter.
struct Extranonces {
    process: [u8; 4],
    next: AtomicU32,
}

impl Extranonces {
    fn new() -> Self {
        Self { process: bitcoin::secp256k1::rand::random(), next: AtomicU32::new(0) }
    }

    fn next(&self) -> [u8; PREFIX_LEN] {
        let mut prefix = [0; PREFIX_LEN];
        prefix[..4].copy_from_slice(&self.process);
        // 2^32 channels later a prefix comes again, long after its first owner is gone.
        prefix[4..].copy_from_slice(&self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        prefix
    }
}
