//! The last events in memory, for readers that follow them: bounded, and never waiting for a reader.
//!
//! A reader has no queue of its own. It knows the number of the last event it was given and asks for what
//! came after; when that is no longer here, it was too slow and is told so. There are two shelves, so that
//! what miners can cause as often as they like (shares above all) never pushes out what was decided.

use super::{
    Heard, Listener,
    about::{self, About, EVENTS},
};
use crate::reason::Severity;
use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

/// Events on one shelf.
const MAX_LINES: usize = 4_096;
/// Bytes on one shelf.
const MAX_BYTES: usize = 8 << 20;

/// An event as it is given to readers.
#[derive(Debug)]
pub struct Line {
    /// Its number in this run.
    pub seq: u64,
    /// Name, room and severity.
    pub about: About,
    /// The record, one JSON object.
    pub json: Arc<str>,
}

/// Which events a reader wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Names; empty for all.
    pub names: BTreeSet<String>,
    /// Rooms; empty for all.
    pub rooms: BTreeSet<String>,
    /// At least as grave as this.
    pub severity: Option<Severity>,
}

impl Filter {
    /// Whether an event is wanted.
    pub fn wants(&self, about: &About) -> bool {
        self.is_of_interest(about.name, about.room)
            && self.severity.is_none_or(|least| about.severity >= least)
    }

    fn is_of_interest(&self, name: &str, room: &str) -> bool {
        (self.names.is_empty() || self.names.contains(name))
            && (self.rooms.is_empty() || self.rooms.contains(room))
    }

    /// Whether anything of a shelf can be wanted.
    fn looks_at(&self, of_miners: bool) -> bool {
        EVENTS
            .iter()
            .any(|(name, room)| about::is_of_miners(name) == of_miners && self.is_of_interest(name, room))
    }
}

/// What came after a reader's last event is no longer here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSlow;

/// Some events, and the number to go on from.
#[derive(Debug)]
pub struct Page {
    /// Oldest first.
    pub lines: Vec<Arc<Line>>,
    /// To be given as `after` next time.
    pub reached: u64,
}

#[derive(Debug, Default)]
struct Shelf {
    lines: VecDeque<Arc<Line>>,
    bytes: usize,
    /// Number of the newest event that was let go.
    gone: u64,
}

impl Shelf {
    fn push(&mut self, line: Arc<Line>) {
        self.bytes += line.json.len();
        self.lines.push_back(line);
        while self.lines.len() > MAX_LINES || self.bytes > MAX_BYTES {
            let Some(oldest) = self.lines.pop_front() else { return };
            self.bytes -= oldest.json.len();
            self.gone = oldest.seq;
        }
    }

    fn after(&self, seq: u64) -> impl Iterator<Item = &Arc<Line>> {
        let start = self.lines.partition_point(|line| line.seq <= seq);
        self.lines.range(start..)
    }
}

#[derive(Debug, Default)]
struct Shelves {
    decisions: Shelf,
    of_miners: Shelf,
    newest: u64,
}

/// The last events. Share it behind an `Arc`.
#[derive(Debug)]
pub struct Ring {
    /// Names this run, so that a number of another one is not taken for one of this.
    run: String,
    shelves: Mutex<Shelves>,
    news: watch::Sender<u64>,
}

impl Ring {
    /// An empty one; `run` names this run of the gateway.
    pub fn new(run: String) -> Arc<Self> {
        Arc::new(Self { run, shelves: Mutex::default(), news: watch::Sender::new(0) })
    }

    /// The name of this run.
    pub fn run(&self) -> &str {
        &self.run
    }

    /// The number of the newest event.
    pub fn newest(&self) -> u64 {
        self.lock().newest
    }

    /// Changes whenever there are more events.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// What is wanted of what came after a number, at most `max` events.
    ///
    /// # Errors
    /// [`TooSlow`] when some of it may be gone.
    pub fn read(&self, after: u64, filter: &Filter, max: usize) -> Result<Page, TooSlow> {
        let shelves = self.lock();
        let shelf = |shelf, of_miners| Some(shelf).filter(|_| filter.looks_at(of_miners));
        let wanted = [shelf(&shelves.decisions, false), shelf(&shelves.of_miners, true)];
        if wanted.iter().flatten().any(|shelf: &&Shelf| shelf.gone > after) {
            return Err(TooSlow);
        }
        let found = |shelf: &Shelf| -> Vec<Arc<Line>> {
            shelf.after(after).filter(|line| filter.wants(&line.about)).take(max).cloned().collect()
        };
        let mut lines: Vec<_> = wanted.into_iter().flatten().flat_map(found).collect();
        lines.sort_unstable_by_key(|line| line.seq);
        let more = lines.len() > max || lines.len() == max && max > 0;
        lines.truncate(max);
        let reached = if more { lines.last().map_or(after, |line| line.seq) } else { shelves.newest };
        Ok(Page { lines, reached: reached.max(after) })
    }

    /// The number before the oldest event that is here for this reader.
    pub fn oldest(&self, filter: &Filter) -> u64 {
        let shelves = self.lock();
        let gone = |shelf: &Shelf, of_miners| if filter.looks_at(of_miners) { shelf.gone } else { 0 };
        gone(&shelves.decisions, false).max(gone(&shelves.of_miners, true))
    }

    fn lock(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener for Arc<Ring> {
    fn hear(&mut self, heard: &Heard<'_>) {
        let line = Line { seq: heard.seq, about: heard.about, json: heard.json.clone() };
        let mut shelves = self.lock();
        shelves.newest = heard.seq;
        let shelf = match about::is_of_miners(heard.about.name) {
            true => &mut shelves.of_miners,
            false => &mut shelves.decisions,
        };
        shelf.push(Arc::new(line));
    }

    fn pause(&mut self) {
        self.news.send_replace(self.newest());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::event::{Event, Stamped};

    fn hear(ring: &Arc<Ring>, seq: u64, event: Event) {
        let record = Stamped { time_ms: 0, event };
        let json = Arc::from("{}");
        let about = record.event.about();
        ring.clone().hear(&Heard { seq, record: &record, about, json: &json });
    }

    fn decision() -> Event {
        Event::SourceUp { source: "a test".into(), address: String::new() }
    }

    fn refusal() -> Event {
        let reason = crate::reason::Reason::UserUnknown;
        Event::ChannelRefused { connection: 1, user_identity: "x".into(), reason, detail: String::new() }
    }

    fn numbers(page: &Page) -> Vec<u64> {
        page.lines.iter().map(|line| line.seq).collect()
    }

    #[test]
    fn a_reader_goes_on_where_it_was_and_gets_both_shelves_in_order() {
        let ring = Ring::new("a".into());
        for seq in 1..=6 {
            hear(&ring, seq, if seq % 2 == 0 { decision() } else { refusal() });
        }
        let all = Filter::default();
        let page = ring.read(0, &all, 4).unwrap();
        assert_eq!((numbers(&page), page.reached), (vec![1, 2, 3, 4], 4));
        let page = ring.read(page.reached, &all, 4).unwrap();
        assert_eq!((numbers(&page), page.reached), (vec![5, 6], 6));
        assert!(ring.read(6, &all, 4).unwrap().lines.is_empty());
    }

    #[test]
    fn what_is_not_wanted_is_passed_over_and_not_looked_at_again() {
        let ring = Ring::new("a".into());
        hear(&ring, 1, decision());
        hear(&ring, 2, refusal());
        hear(&ring, 3, decision());
        let only = Filter { rooms: ["miner".to_owned()].into(), ..Filter::default() };
        let page = ring.read(0, &only, 10).unwrap();
        assert_eq!((numbers(&page), page.reached), (vec![2], 3));
        let grave = Filter { severity: Some(Severity::Error), ..Filter::default() };
        assert_eq!(numbers(&ring.read(0, &grave, 10).unwrap()), [0u64; 0]);
        let named = Filter { names: ["source_up".to_owned()].into(), ..Filter::default() };
        assert_eq!(numbers(&ring.read(0, &named, 10).unwrap()), [1, 3]);
    }

    #[test]
    fn miners_push_out_their_own_events_and_no_decision() {
        let ring = Ring::new("a".into());
        hear(&ring, 1, decision());
        for seq in 2..=(MAX_LINES as u64 + 10) {
            hear(&ring, seq, refusal());
        }
        assert_eq!(ring.read(0, &Filter::default(), 10).unwrap_err(), TooSlow);
        let decisions = Filter { rooms: ["source".to_owned()].into(), ..Filter::default() };
        assert_eq!(numbers(&ring.read(0, &decisions, 10).unwrap()), [1]);
        let oldest = ring.oldest(&Filter::default());
        assert_eq!(ring.read(oldest, &Filter::default(), 1).unwrap().lines[0].seq, oldest + 1);
    }
}
