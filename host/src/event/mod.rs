//! Events: what the gateway decided, one record per decision, for machines first.
//!
//! Every room's decisions leave the process here and nowhere else: as NDJSON in a file and as
//! readable lines on the console. Emitting never waits: the queue is bounded, and when a sink cannot
//! keep up, events are counted as dropped and the next record says how many. Shares are not lost by
//! that: the ledger is their record, this is the view.
//!
//! - [`schema`]: the events and their fields; [`about`]: name, room and severity of each
//! - [`console`]: the lines a person reads; `file`: the NDJSON file; [`ring`]: the last ones in memory
//! - here: the bus and the thread that writes

pub mod about;
pub mod console;
mod file;
pub mod ring;
#[cfg(test)]
pub(crate) mod samples;
pub mod schema;

pub use schema::Event;

use crate::config::Rotation;
use about::About;
use file::EventFile;
use schemars::JsonSchema;
use serde::Serialize;
use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, SyncSender, TrySendError},
    },
    thread::JoinHandle,
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::sync::watch;

/// Events that may wait for the sinks.
const QUEUE: usize = 16_384;

/// An event with its time.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Stamped {
    /// Unix time, milliseconds.
    pub time_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

impl Stamped {
    /// The event, now.
    pub fn now(event: Event) -> Self {
        Self { time_ms: unix_ms(), event }
    }
}

/// Unix time, milliseconds.
pub fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// Unix time, whole seconds, as header times count it.
pub fn unix_seconds() -> u32 {
    u32::try_from(unix_ms() / 1000).unwrap_or(u32::MAX)
}

/// A handle to emit events. Clones share one queue.
#[derive(Clone, Debug)]
pub struct Events {
    queue: SyncSender<Stamped>,
    dropped: Arc<AtomicU64>,
    /// There is a file, a console or a listener.
    heard: bool,
    rotation: watch::Sender<Rotation>,
}

impl Events {
    /// [`emit`](Self::emit) for events of which there are many: made only when there is somebody to hear them.
    pub fn emit_with(&self, event: impl FnOnce() -> Event) {
        if self.heard {
            self.emit(event());
        }
    }

    /// Another rotation of the file, from the next event on.
    pub fn set_rotation(&self, rotation: Rotation) {
        self.rotation.send_replace(rotation);
    }

    /// Queues an event; never waits.
    pub fn emit(&self, event: Event) {
        match self.queue.try_send(Stamped::now(event)) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// The thread that writes; ends when every [`Events`] is gone.
pub struct EventWriter(JoinHandle<()>);

impl EventWriter {
    /// Waits until everything emitted has been written. All [`Events`] must have been dropped.
    pub fn join(self) {
        // A panic of the writer has been printed by the runtime; there is nothing left to write to.
        let _ = self.0.join();
    }
}

/// An event as listeners get it.
#[derive(Debug)]
pub struct Heard<'a> {
    /// Its number in this run, from 1.
    pub seq: u64,
    /// The event and its time.
    pub record: &'a Stamped,
    /// Name, room and severity.
    pub about: About,
    /// The whole record as JSON.
    pub json: &'a Arc<str>,
}

/// Somebody in the process who follows the events, on the thread that writes them. Must not wait.
pub trait Listener: Send {
    /// One more event.
    fn hear(&mut self, heard: &Heard<'_>);

    /// Nothing more is there for the moment.
    fn pause(&mut self) {}
}

/// An event as it is written.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Numbered<'a> {
    /// Its number in this run of the gateway, from 1.
    pub seq: u64,
    /// The event and its time.
    #[serde(flatten)]
    pub record: &'a Stamped,
}

/// Where events go.
#[derive(Default)]
pub struct Sinks {
    file: Option<EventFile>,
    console: Option<console::Console>,
    listeners: Vec<Box<dyn Listener>>,
}

impl Sinks {
    /// To a file as well, opened for appending.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn with_file(mut self, path: &Path, rotation: Rotation) -> io::Result<Self> {
        self.file = Some(EventFile::open(path, rotation)?);
        Ok(self)
    }

    /// To the terminal as well.
    #[must_use]
    pub fn with_console(mut self, console: console::Console) -> Self {
        self.console = Some(console);
        self
    }

    /// To a listener as well.
    #[must_use]
    pub fn with_listener(mut self, listener: impl Listener + 'static) -> Self {
        self.listeners.push(Box::new(listener));
        self
    }

    /// Starts the bus.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(self) -> io::Result<(Events, EventWriter)> {
        let (queue, records) = mpsc::sync_channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let heard = self.file.is_some() || self.console.is_some() || !self.listeners.is_empty();
        let rotation = watch::Sender::new(self.file.as_ref().map_or(Rotation::NEVER, EventFile::rotation));
        let mut writer =
            Writer { sinks: self, dropped: dropped.clone(), rotation: rotation.subscribe(), seq: 0 };
        let thread = std::thread::Builder::new().name("events".into()).spawn(move || writer.run(&records))?;
        Ok((Events { queue, dropped, heard, rotation }, EventWriter(thread)))
    }
}

/// A bus with at most a file and a console.
///
/// # Errors
/// As [`Sinks::with_file`] and [`Sinks::start`].
pub fn start(file: Option<&Path>, console: Option<console::Console>) -> io::Result<(Events, EventWriter)> {
    let sinks = Sinks { console, ..Sinks::default() };
    match file {
        Some(path) => sinks.with_file(path, Rotation::NEVER)?.start(),
        None => sinks.start(),
    }
}

/// Events that are written, at most, before the file is flushed.
const BETWEEN_FLUSHES: usize = 1_024;

struct Writer {
    sinks: Sinks,
    dropped: Arc<AtomicU64>,
    /// The one that is wanted by now.
    rotation: watch::Receiver<Rotation>,
    seq: u64,
}

impl Writer {
    fn run(&mut self, records: &Receiver<Stamped>) {
        while let Ok(first) = records.recv() {
            self.write(&first);
            // Under a flood, too, what was written is flushed, rotated and shown from time to time.
            for record in records.try_iter().take(BETWEEN_FLUSHES) {
                self.write(&record);
            }
            let dropped = self.dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                self.write(&Stamped::now(Event::EventsDropped { count: dropped }));
            }
            self.flush();
        }
    }

    fn write(&mut self, record: &Stamped) {
        self.seq += 1;
        if self.sinks.file.is_some() || !self.sinks.listeners.is_empty() {
            self.tell(record);
        }
        if let Some(console) = &mut self.sinks.console {
            console.print(record);
        }
    }

    fn tell(&mut self, record: &Stamped) {
        let json: Arc<str> = match serde_json::to_string(&Numbered { seq: self.seq, record }) {
            Ok(json) => json.into(),
            // Maps with keys that are no text, of which there are none.
            Err(error) => return tracing::error!(%error, "an event cannot be written as JSON"),
        };
        let written = self.sinks.file.as_mut().map_or(Ok(()), |file| file.write(&json));
        self.check(written);
        let heard = Heard { seq: self.seq, record, about: record.event.about(), json: &json };
        self.sinks.listeners.iter_mut().for_each(|listener| listener.hear(&heard));
    }

    fn flush(&mut self) {
        let rotation = *self.rotation.borrow();
        let flushed = self.sinks.file.as_mut().map_or(Ok(()), |file| file.flush(rotation));
        self.check(flushed);
        self.sinks.listeners.iter_mut().for_each(|listener| listener.pause());
    }

    /// A file that cannot be written is given up with one loud line; the console goes on.
    fn check(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            tracing::error!(%error, "the event file cannot be written; no more events go to it in this run");
            self.sinks.file = None;
        }
    }
}
