//! Writes recordings beside the gateway: on a thread of its own, behind a short queue, the oldest
//! removed as new ones come.
//!
//! Nothing here can hold up a verdict. A queue that is full and a disk that is full or gone cost
//! recordings, and an event says so, once until it works again.

use super::Recording;
use crate::{
    event::{Event, Events},
    policy::Judged,
    reason::Reason,
    template::Declared,
};
use std::{
    collections::VecDeque,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
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
    /// How many are kept.
    keep: Arc<AtomicUsize>,
}

/// What waits for the disk: the template as it was declared, and what was said about it.
pub(super) type Queued = (Arc<Declared>, Judged);

impl Recorder {
    /// Starts the thread that writes into `folder`, which is made if it is not there, and keeps the
    /// newest `keep` recordings in it.
    ///
    /// # Errors
    /// When the folder cannot be made or read, or the thread not started; the error names the folder.
    pub fn start(folder: &Path, keep: usize, events: Events) -> io::Result<Self> {
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
        Ok(Self::queue(length, &Writer::new(Shelf::open(folder, 1)?, events)))
    }

    /// How many are kept; another number counts from the next recording on.
    pub fn keep(&self) -> Arc<AtomicUsize> {
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

/// The folder with recordings.
pub(super) struct Shelf {
    folder: PathBuf,
    keep: Arc<AtomicUsize>,
    /// Names of the recordings, oldest first.
    names: VecDeque<String>,
    /// Distinguishes those of the same millisecond.
    next: u32,
}

impl Shelf {
    pub(super) fn open(folder: &Path, keep: usize) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if let Some(stem) = name.strip_suffix(".tmp").filter(|stem| is_ours(stem)) {
                // Left by a run that was cut off.
                fs::remove_file(folder.join(format!("{stem}.tmp")))?;
            } else if is_ours(&name) {
                names.push(name);
            }
        }
        names.sort_unstable();
        let mut shelf = Self {
            folder: folder.to_owned(),
            keep: Arc::new(AtomicUsize::new(keep)),
            names: names.into(),
            next: 0,
        };
        shelf.tidy()?;
        Ok(shelf)
    }

    /// Writes a recording whole or not at all, then removes the oldest.
    pub(super) fn put(&mut self, recording: &Recording) -> io::Result<()> {
        let name =
            format!("{:013}-{:06}-{:.16}.json", recording.time_ms, self.next % 1_000_000, recording.digest);
        self.next = self.next.wrapping_add(1);
        let temporary = self.folder.join(format!("{name}.tmp"));
        let written = fs::write(&temporary, serde_json::to_vec(recording)?)
            .and_then(|()| fs::rename(&temporary, self.folder.join(&name)));
        if let Err(error) = written {
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        self.names.push_back(name);
        self.tidy()
    }

    fn tidy(&mut self) -> io::Result<()> {
        while self.names.len() > self.keep.load(Ordering::Relaxed) {
            let Some(oldest) = self.names.front() else { break };
            match fs::remove_file(self.folder.join(oldest)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => _ = self.names.pop_front(),
            }
        }
        Ok(())
    }
}

/// Whether a file is a recording by its name: other files in the folder are not touched.
fn is_ours(name: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
    let mut parts = name.strip_suffix(".json").into_iter().flat_map(|stem| stem.split('-'));
    let [Some(time), Some(number), Some(digest), None] =
        [parts.next(), parts.next(), parts.next(), parts.next()]
    else {
        return false;
    };
    time.len() == 13
        && number.len() == 6
        && digest.len() == 16
        && [time, number, digest].into_iter().all(digits)
}
