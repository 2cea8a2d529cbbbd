//! Events as they happen, as server-sent events: filtered, resumed by id, and cut off when a reader is slow.
//!
//! An id is the run and the event's number in it (`19ab…-42`). A reader that comes back with its last id
//! goes on after it, also when it was ended because the tokens changed; what is not in memory any more is said as `gap`. A reader that falls so far behind that
//! events for it are gone is told `cut` and closed: it may come back and learns from the gap how far it was.

use super::{Follows, Surface, answer::Error};
use crate::{
    event::{
        about::EVENTS,
        ring::{Filter, Line, Page, Ring, TooSlow},
    },
    metrics::Meters,
    reason::{Reason, Severity},
    words::printable,
};
use axum::{
    Extension,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream;
use serde::Deserialize;
use serde_json::json;
use std::{
    collections::{BTreeSet, VecDeque},
    convert::Infallible,
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, watch};

/// Events taken from memory at once.
const MAX_AT_ONCE: usize = 256;
/// Between signs of life on a silent stream.
const ALIVE_EVERY: Duration = Duration::from_secs(15);

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    event: Option<String>,
    room: Option<String>,
    severity: Option<String>,
    after: Option<String>,
}

/// A reader that stopped reading was given up.
pub(super) fn cut(meters: &Meters, peer: IpAddr) {
    let reason = Reason::EventReaderTooSlow;
    meters.readers_cut.add(reason);
    tracing::warn!(%peer, code = %reason, "[api] a reader of events was cut off: {}", reason.meaning());
}

pub(super) async fn events(
    State(surface): State<Arc<Surface>>,
    Extension(Follows(follows)): Extension<Follows>,
    Extension(peer): Extension<super::Peer>,
    headers: HeaderMap,
    query: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Error> {
    let Query(wanted) = query.map_err(|error| Error::invalid(error.body_text()))?;
    let filter = filter(&wanted)?;
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let place = surface.readers.clone().try_acquire_owned().map_err(|_| {
        let reason = Reason::ApiCapacityReached;
        Error::new(StatusCode::SERVICE_UNAVAILABLE, reason, reason.meaning())
    })?;
    let ring = surface.view.ring.clone();
    let (position, gap) = begin(&ring, &filter, last.or(wanted.after.as_deref()))?;
    follows.store(true, Ordering::Relaxed);
    let mut reader = Reader::new(ring, filter, position);
    reader.gap = gap;
    let (down, tokens) = (surface.down.clone(), surface.guard.changes());
    let state = Following { reader, down, tokens, surface, peer: peer.0, _place: place };
    let stream = stream::unfold(Some(state), Following::next);
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(ALIVE_EVERY)).into_response())
}

fn filter(wanted: &Wanted) -> Result<Filter, Error> {
    let list = |text: &Option<String>| -> BTreeSet<String> {
        text.iter().flat_map(|text| text.split(',')).filter(|w| !w.is_empty()).map(str::to_owned).collect()
    };
    let (names, rooms) = (list(&wanted.event), list(&wanted.room));
    let unknown = |what, word: &str| {
        let word = printable(word.as_bytes(), 40);
        Error::invalid(format!("there is no {what} \"{word}\"; GET /v1/events/schema.json describes them"))
    };
    if let Some(name) = names.iter().find(|name| !EVENTS.iter().any(|(known, _)| known == name)) {
        return Err(unknown("event", name));
    }
    if let Some(room) = rooms.iter().find(|room| !EVENTS.iter().any(|(_, known)| known == room)) {
        return Err(unknown("room", room));
    }
    let severity = match wanted.severity.as_deref() {
        None => None,
        Some("info") => Some(Severity::Info),
        Some("warning") => Some(Severity::Warning),
        Some("error") => Some(Severity::Error),
        Some(other) => return Err(unknown("severity", other)),
    };
    Ok(Filter { names, rooms, severity })
}

/// Where to go on, and whether events are missing before that.
fn begin(ring: &Ring, filter: &Filter, after: Option<&str>) -> Result<(u64, bool), Error> {
    let Some(after) = after else { return Ok((ring.newest(), false)) };
    let oldest = ring.oldest(filter);
    if after == "start" {
        return Ok((oldest, false));
    }
    let number = after.rsplit_once('-').and_then(|(run, seq)| Some((run, seq.parse::<u64>().ok()?)));
    let (run, seq) = number.ok_or_else(|| {
        let shown = printable(after.as_bytes(), 40);
        Error::invalid(format!("\"{shown}\" is not the id of an event, and not start"))
    })?;
    let here = run == ring.run() && (oldest..=ring.newest()).contains(&seq);
    Ok(if here { (seq, false) } else { (oldest, true) })
}

/// One reader's place in the ring.
struct Reader {
    ring: Arc<Ring>,
    filter: Filter,
    position: u64,
    ready: VecDeque<Arc<Line>>,
    news: watch::Receiver<u64>,
    /// To be told first.
    gap: bool,
}

/// What a reader is told next.
enum Told {
    Line(Arc<Line>),
    /// The first of these is missing events before it.
    Gap,
    TooSlow,
}

impl Reader {
    fn new(ring: Arc<Ring>, filter: Filter, position: u64) -> Self {
        Self { news: ring.news(), ring, filter, position, ready: VecDeque::new(), gap: false }
    }

    /// The next thing to be told, waiting for it; cancelling it loses nothing.
    async fn next(&mut self) -> Told {
        if std::mem::take(&mut self.gap) {
            return Told::Gap;
        }
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Told::Line(line);
            }
            self.news.mark_unchanged();
            match self.ring.read(self.position, &self.filter, MAX_AT_ONCE) {
                Err(TooSlow) => return Told::TooSlow,
                Ok(Page { lines, reached }) => {
                    self.position = reached;
                    self.ready.extend(lines);
                }
            }
            if self.ready.is_empty() && self.news.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

struct Following {
    reader: Reader,
    surface: Arc<Surface>,
    down: watch::Receiver<bool>,
    /// Told when tokens change.
    tokens: watch::Receiver<u64>,
    peer: IpAddr,
    _place: OwnedSemaphorePermit,
}

type Item = Result<Event, Infallible>;

impl Following {
    async fn next(state: Option<Self>) -> Option<(Item, Option<Self>)> {
        let mut this = state?;
        let told = tokio::select! {
            biased;
            _ = this.down.wait_for(|down| *down) => {
                return Some((Ok(last("end", Reason::ShutdownDrain)), None));
            }
            Ok(()) = this.tokens.changed() => return Some((Ok(last("end", Reason::ApiUnauthorized)), None)),
            told = this.reader.next() => told,
        };
        Some(match told {
            Told::Line(line) => {
                let id = format!("{}-{}", this.reader.ring.run(), line.seq);
                (Ok(Event::default().event(line.about.name).id(id).data(&line.json)), Some(this))
            }
            Told::Gap => (Ok(last("gap", Reason::EventGap)), Some(this)),
            Told::TooSlow => {
                cut(&this.surface.view.miners.meters, this.peer);
                (Ok(last("cut", Reason::EventReaderTooSlow)), None)
            }
        })
    }
}

/// A word of the stream itself. It has no id: the last one stays the one to go on from.
fn last(name: &str, reason: Reason) -> Event {
    let data = json!({ "reason_code": reason, "detail": reason.meaning() });
    Event::default().event(name).data(data.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::event::{self, Heard, Listener, Stamped};

    fn hear(ring: &Arc<Ring>, numbers: std::ops::RangeInclusive<u64>) {
        let mut listener = ring.clone();
        for seq in numbers {
            let record = Stamped {
                time_ms: 0,
                event: event::Event::SourceUp { source: "x".into(), address: String::new() },
            };
            let (about, json) = (record.event.about(), Arc::from("{}"));
            listener.hear(&Heard { seq, record: &record, about, json: &json });
        }
        listener.pause();
    }

    async fn numbers(reader: &mut Reader, count: usize) -> Vec<u64> {
        let mut numbers = Vec::new();
        for _ in 0..count {
            match reader.next().await {
                Told::Line(line) => numbers.push(line.seq),
                Told::Gap => panic!("a gap"),
                Told::TooSlow => panic!("too slow"),
            }
        }
        numbers
    }

    #[tokio::test]
    async fn a_reader_that_stops_is_told_that_it_was_too_slow_and_comes_back_over_a_gap() {
        let ring = Ring::new("a".into());
        let mut reader = Reader::new(ring.clone(), Filter::default(), 0);
        hear(&ring, 1..=3);
        assert_eq!(numbers(&mut reader, 2).await, [1, 2]);
        hear(&ring, 4..=9_000);
        // What it was given already it still gets.
        assert_eq!(numbers(&mut reader, 1).await, [3]);
        assert!(matches!(reader.next().await, Told::TooSlow));
        let (position, gap) = begin(&ring, &Filter::default(), Some("a-3")).unwrap();
        assert!(gap);
        let mut again = Reader::new(ring.clone(), Filter::default(), position);
        assert_eq!(numbers(&mut again, 1).await, [position + 1]);
    }

    #[tokio::test]
    async fn whoever_waits_hears_the_next_event() {
        let ring = Ring::new("a".into());
        let mut reader = Reader::new(ring.clone(), Filter::default(), 0);
        let later = tokio::spawn(async move { numbers(&mut reader, 1).await });
        tokio::task::yield_now().await;
        hear(&ring, 1..=1);
        assert_eq!(later.await.unwrap(), [1]);
    }

    #[test]
    fn an_id_of_this_run_is_gone_on_from_and_any_other_is_a_gap() {
        let ring = Ring::new("a".into());
        hear(&ring, 1..=5);
        let at = |after: &str| begin(&ring, &Filter::default(), Some(after)).ok();
        assert_eq!(begin(&ring, &Filter::default(), None).unwrap(), (5, false), "without an id: from now on");
        assert_eq!(at("a-2"), Some((2, false)));
        assert_eq!(at("start"), Some((0, false)));
        assert_eq!(at("b-2"), Some((0, true)), "of another run");
        assert_eq!(at("a-77"), Some((0, true)), "not yet told");
        assert_eq!(at("nonsense"), None);
    }

    #[test]
    fn a_filter_names_what_there_is() {
        let wanted = |event: &str, room: &str, severity: &str| {
            let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
            filter(&Wanted { event: some(event), room: some(room), severity: some(severity), after: None })
        };
        let both = wanted("gate_held,tip_changed", "gate", "warning").unwrap();
        assert_eq!((both.names.len(), both.rooms.len(), both.severity), (2, 1, Some(Severity::Warning)));
        for bad in [("gate_hold", "", ""), ("", "gates", ""), ("", "", "grave")] {
            assert!(wanted(bad.0, bad.1, bad.2).is_err(), "{bad:?}");
        }
    }
}
