//! The door: whether one more connection is let in, before any work is spent on it.
//!
//! Counts connections and unfinished handshakes, in all and by source address. A [`Pass`] is a place
//! inside; it gives itself back. What is counted per source is bounded by what is let in at all.
//! An IPv6 source is its /64, since a single customer has all of one.

use crate::reason::Reason;
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// How many are let in.
#[derive(Clone, Copy, Debug)]
pub struct DoorLimits {
    /// Connections at once.
    pub connections: usize,
    /// Connections at once from one source address.
    pub connections_per_source: usize,
    /// Handshakes under way at once.
    pub handshakes: usize,
    /// Handshakes under way at once from one source address.
    pub handshakes_per_source: usize,
}

/// Who is inside.
#[derive(Debug, Default)]
pub(crate) struct Door(Mutex<Inside>);

#[derive(Debug, Default)]
struct Inside {
    all: Count,
    sources: HashMap<IpAddr, Count>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    connections: usize,
    handshakes: usize,
}

impl Door {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// A place for a connection whose handshake is still to come.
    pub(crate) fn enter(self: &Arc<Self>, peer: IpAddr, limits: &DoorLimits) -> Result<Pass, Reason> {
        let source = source(peer);
        let mut inside = self.lock();
        let of_source = inside.sources.get(&source).copied().unwrap_or_default();
        if inside.all.connections >= limits.connections {
            return Err(Reason::ConnectionLimitReached);
        }
        if of_source.connections >= limits.connections_per_source
            || of_source.handshakes >= limits.handshakes_per_source
        {
            return Err(Reason::PeerQuotaExceeded);
        }
        if inside.all.handshakes >= limits.handshakes {
            return Err(Reason::ConnectionRateLimited);
        }
        inside.all.connections += 1;
        inside.all.handshakes += 1;
        let of_source = inside.sources.entry(source).or_default();
        of_source.connections += 1;
        of_source.handshakes += 1;
        Ok(Pass { door: self.clone(), source, shaking: true })
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's place.
#[derive(Debug)]
pub(crate) struct Pass {
    door: Arc<Door>,
    source: IpAddr,
    shaking: bool,
}

impl Pass {
    /// The handshake is done.
    pub(crate) fn shaken(&mut self) {
        if std::mem::take(&mut self.shaking) {
            let mut inside = self.door.lock();
            inside.all.handshakes -= 1;
            if let Some(of_source) = inside.sources.get_mut(&self.source) {
                of_source.handshakes -= 1;
            }
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.shaken();
        let mut inside = self.door.lock();
        inside.all.connections -= 1;
        if let Some(of_source) = inside.sources.get_mut(&self.source) {
            of_source.connections -= 1;
            if of_source.connections == 0 {
                inside.sources.remove(&self.source);
            }
        }
    }
}

fn source(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    const LIMITS: DoorLimits =
        DoorLimits { connections: 5, connections_per_source: 3, handshakes: 4, handshakes_per_source: 2 };

    #[test]
    fn each_limit_refuses_with_its_own_reason_and_places_come_back() {
        let door = Door::new();
        let (a, b, c) = (address("10.0.0.1"), address("10.0.0.2"), address("10.0.0.3"));
        let (mut first, _second) = (door.enter(a, &LIMITS).unwrap(), door.enter(a, &LIMITS).unwrap());
        assert_eq!(
            door.enter(a, &LIMITS).unwrap_err(),
            Reason::PeerQuotaExceeded,
            "two handshakes of one source"
        );
        first.shaken();
        first.shaken();
        let mut third = door.enter(a, &LIMITS).unwrap();
        third.shaken();
        assert_eq!(
            door.enter(a, &LIMITS).unwrap_err(),
            Reason::PeerQuotaExceeded,
            "three connections of one source"
        );
        let (_fourth, mut fifth) = (door.enter(b, &LIMITS).unwrap(), door.enter(b, &LIMITS).unwrap());
        assert_eq!(door.enter(c, &LIMITS).unwrap_err(), Reason::ConnectionLimitReached);
        fifth.shaken();
        drop(first);
        let _again = door.enter(c, &LIMITS).unwrap();
    }

    #[test]
    fn handshakes_in_all_are_limited() {
        let limits = DoorLimits { connections: 100, connections_per_source: 100, ..LIMITS };
        let door = Door::new();
        let passes: Vec<_> =
            (0..4).map(|n| door.enter(address(&format!("10.0.0.{n}")), &limits).unwrap()).collect();
        assert_eq!(door.enter(address("10.0.1.0"), &limits).unwrap_err(), Reason::ConnectionRateLimited);
        drop(passes);
        let inside = door.lock();
        assert_eq!((inside.all.connections, inside.all.handshakes, inside.sources.len()), (0, 0, 0));
    }

    #[test]
    fn a_network_of_ipv6_is_one_source_and_a_mapped_address_is_the_ipv4_one() {
        assert_eq!(source(address("2001:db8:1:2:3::4")), source(address("2001:db8:1:2:ffff::")));
        assert_ne!(source(address("2001:db8:1:2::1")), source(address("2001:db8:1:3::1")));
        assert_eq!(source(address("::ffff:10.0.0.1")), address("10.0.0.1"));
    }
}
