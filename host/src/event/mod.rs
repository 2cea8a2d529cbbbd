//! Events: what the gateway decided, one record per decision, for machines first.
//!
//! Every room's decisions leave the process here and nowhere else: as NDJSON in a file and as
//! readable lines on the console. Emitting never waits: the queue is bounded, and when a sink cannot
//! keep up, events are counted as dropped and the next record says how many. Shares are not lost by
//! that: the ledger is their record, this is the view.
//!
//! - [`schema`]: the events and their fields
//! - [`console`]: the lines a person reads
//! - here: the bus and the thread that writes

pub mod console;
pub mod schema;

pub use schema::Event;

use serde::Serialize;
use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, SyncSender, TrySendError},
    },
    thread::JoinHandle,
    time::{SystemTime, UNIX_EPOCH},
};

/// Events that may wait for the sinks.
const QUEUE: usize = 16_384;

/// An event with its time, as it is written.
#[derive(Debug, Serialize)]
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
    /// There is a file or a console.
    heard: bool,
}

impl Events {
    /// [`emit`](Self::emit) for events of which there are many: made only when there is somebody to hear them.
    pub fn emit_with(&self, event: impl FnOnce() -> Event) {
        if self.heard {
            self.emit(event());
        }
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

/// Starts the bus.
///
/// # Errors
/// When the file cannot be opened for appending, or the thread cannot be started.
pub fn start(file: Option<&Path>, console: Option<console::Console>) -> io::Result<(Events, EventWriter)> {
    let file = file.map(open).transpose()?;
    let heard = file.is_some() || console.is_some();
    let (queue, records) = mpsc::sync_channel(QUEUE);
    let dropped = Arc::new(AtomicU64::new(0));
    let mut sinks = Sinks { file, console, dropped: dropped.clone() };
    let thread = std::thread::Builder::new().name("events".into()).spawn(move || sinks.run(&records))?;
    Ok((Events { queue, dropped, heard }, EventWriter(thread)))
}

fn open(path: &Path) -> io::Result<BufWriter<File>> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    Ok(BufWriter::new(OpenOptions::new().create(true).append(true).open(path)?))
}

struct Sinks {
    file: Option<BufWriter<File>>,
    console: Option<console::Console>,
    dropped: Arc<AtomicU64>,
}

impl Sinks {
    fn run(&mut self, records: &Receiver<Stamped>) {
        while let Ok(first) = records.recv() {
            let mut next = Some(first);
            while let Some(record) = next {
                self.write(&record);
                next = records.try_recv().ok();
            }
            let dropped = self.dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                self.write(&Stamped::now(Event::EventsDropped { count: dropped }));
            }
            self.flush();
        }
    }

    fn write(&mut self, record: &Stamped) {
        if let Some(file) = &mut self.file {
            let written = serde_json::to_writer(&mut *file, record)
                .map_err(io::Error::from)
                .and_then(|()| file.write_all(b"\n"));
            self.check(written);
        }
        if let Some(console) = &mut self.console {
            console.print(record);
        }
    }

    fn flush(&mut self) {
        let flushed = self.file.as_mut().map_or(Ok(()), BufWriter::flush);
        self.check(flushed);
    }

    /// A file that cannot be written is given up with one loud line; the console goes on.
    fn check(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            tracing::error!(%error, "the event file cannot be written; no more events go to it in this run");
            self.file = None;
        }
    }
}
