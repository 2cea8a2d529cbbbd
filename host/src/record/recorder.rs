//! Writes recordings beside the gateway: on a thread of its own, behind a short queue.
//!
//! Nothing here can hold up a verdict. A queue that is full and a disk that is full or gone cost
//! recordings, and an event says so, once until it works again.

use super::{
    Recording,
    file::{Keep, Shelf},
};
use crate::{
    event::{Event, Events},
    policy::Judged,
    reason::Reason,
    template::Declared,
};
use std::{
    io,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
};

/// Judged templates that may wait for the disk; each holds a template, some megabytes.
const QUEUE: usize = 8;

/// Takes what was judged. Clones share one queue and one thread, which ends when the last is gone.
#[derive(Clone)]
pub struct Recorder {
    queue: SyncSender<Queued>,
    lost: Arc<AtomicU64>,
    events: Events,
    keep: Arc<Mutex<Keep>>,
}

/// What waits for the disk: the template as it was declared, and what was said about it.
pub(super) type Queued = (Arc<Declared>, Judged);

impl Recorder {
    /// Starts the thread that writes into `folder`, which is made if it is not there.
    ///
    /// # Errors
    /// When the folder cannot be made or read, or the thread not started; the error names the folder.
    pub fn start(folder: &Path, keep: Keep, events: Events) -> io::Result<Self> {
        let named = |error: io::Error| {
            let problem = format!("[record] dir: {} cannot be used: {error}", folder.display());
            io::Error::new(error.kind(), problem)
        };
        let shelf = Shelf::open(folder, keep).map_err(named)?;
        let mut writer = Writer::new(shelf, events);
        let (recorder, judged) = Self::queue(QUEUE, &writer);
        let run = move || judged.into_iter().for_each(|queued| writer.write(queued));
        thread::Builder::new().name("recorder".into()).spawn(run)?;
        Ok(recorder)
    }

    fn queue(length: usize, writer: &Writer) -> (Self, Receiver<Queued>) {
        let (queue, judged) = sync_channel(length);
        (
            Self {
                queue,
                lost: writer.lost.clone(),
                events: writer.events.clone(),
                keep: writer.shelf.keep.clone(),
            },
            judged,
        )
    }

    /// A recorder whose queue nobody empties.
    #[cfg(test)]
    pub(super) fn unattended(
        length: usize,
        folder: &Path,
        events: Events,
    ) -> io::Result<(Self, Receiver<Queued>)> {
        Ok(Self::queue(
            length,
            &Writer::new(
                Shelf::open(folder, Keep { bytes: u64::MAX, age: std::time::Duration::MAX })?,
                events,
            ),
        ))
    }

    /// What is kept, to be changed.
    pub fn keep(&self) -> Arc<Mutex<Keep>> {
        self.keep.clone()
    }

    /// Queues a judged template; never waits.
    pub fn record(&self, declared: &Arc<Declared>, judged: &Judged) {
        if !matches!(self.queue.try_send((declared.clone(), judged.clone())), Err(TrySendError::Full(_))) {
            return;
        }
        if self.lost.fetch_add(1, Ordering::Relaxed) == 0 {
            let detail = "templates are judged faster than the disk takes them; some are not recorded".into();
            self.events.emit(Event::RecordingFailed { reason: Reason::RecordDropped, detail, lost: 1 });
        }
    }
}

pub(super) struct Writer {
    shelf: Shelf,
    lost: Arc<AtomicU64>,
    events: Events,
    /// The last one could not be written, and that has been said.
    failing: bool,
}

impl Writer {
    pub(super) fn new(shelf: Shelf, events: Events) -> Self {
        Self { shelf, lost: Arc::default(), events, failing: false }
    }

    pub(super) fn write(&mut self, (declared, judged): Queued) {
        let Judged { judgement, by, inputs } = judged;
        let context = Arc::unwrap_or_clone(inputs.context);
        let recording = Recording::new(Arc::unwrap_or_clone(declared), context, by.set(), &judgement);
        match self.shelf.put(&recording) {
            Ok(()) => {
                self.failing = false;
                self.tell_lost();
            }
            Err(error) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
                if !std::mem::replace(&mut self.failing, true) {
                    let detail = format!("{}: {error}", self.shelf.folder.display());
                    let reason = Reason::RecordWriteFailed;
                    self.events.emit(Event::RecordingFailed { reason, detail, lost: 1 });
                }
            }
        }
    }

    /// Recordings are written again: how many were not is known now.
    fn tell_lost(&self) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 1 {
            let detail = "recordings are written again; meanwhile some were lost".into();
            self.events.emit(Event::RecordingFailed { reason: Reason::RecordDropped, detail, lost });
        }
    }
}
