//! Recorded templates as a template source: for shadow audits of other policies, and for measurements.
//!
//! Each recording is given once, in order, with the surroundings that were recorded with it: policies see what
//! they saw then, the time of day included. A thread reads ahead a little; at the end that is said once, and
//! the last template stays the current one.

use super::{
    Recording,
    file::{self, Recordings},
};
use crate::{
    reason::Reason,
    template::{
        SourceError, Sourced, SubmitOutcome, TemplateDigest, TemplateSource, facts::assemble, network_name,
    },
};
use async_trait::async_trait;
use bitcoin::{Block, Network};
use std::{
    io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};
use tokio::{
    sync::{Mutex, mpsc},
    time::{Instant, sleep_until, timeout_at},
};

/// Templates that are read ahead.
const AHEAD: usize = 2;

/// How fast recorded templates are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As they came then.
    Recorded,
    /// As fast as they are judged.
    Fast,
}

/// Recordings as a source.
pub struct Replay {
    from: PathBuf,
    pace: Pace,
    state: Mutex<State>,
}

struct State {
    read: mpsc::Receiver<Result<Recorded, SourceError>>,
    /// Read, and not yet given.
    next: Option<Recorded>,
    /// What was given last.
    current: Option<Sourced>,
    /// When the first was given, and its own time.
    began: Option<(Instant, u64)>,
    given: u64,
    ended: bool,
}

/// A template, and when it was recorded, Unix time in milliseconds.
struct Recorded {
    sourced: Sourced,
    time_ms: u64,
}

impl Replay {
    /// Opens a file of recordings, or a folder of them.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn open(from: &Path, network: Network, pace: Pace) -> io::Result<Self> {
        let files = if from.is_dir() { file::files(from)? } else { vec![from.to_owned()] };
        if files.is_empty() {
            let problem = format!("{} holds no recordings (*.ndjson.gz)", from.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, problem));
        }
        // One that is not there is a fault of the configuration, and said at the start.
        Recordings::open(&files[0]).map_err(io::Error::other)?;
        let (sender, read) = mpsc::channel(AHEAD);
        thread::Builder::new().name("replay".into()).spawn(move || {
            // Ends as well when nobody asks any more.
            let _ = files.iter().try_for_each(|file| give(file, network, &sender));
        })?;
        let state = State { read, next: None, current: None, began: None, given: 0, ended: false };
        Ok(Self { from: from.to_owned(), pace, state: Mutex::new(state) })
    }
}

/// Reads one file; `Err` when nobody listens.
fn give(file: &Path, network: Network, to: &mpsc::Sender<Result<Recorded, SourceError>>) -> Result<(), ()> {
    let fault = |detail: String| SourceError { reason: Reason::TemplateUndecodable, detail };
    let mut recordings = match Recordings::open(file) {
        Ok(recordings) => recordings,
        Err(error) => return to.blocking_send(Err(fault(error.to_string()))).map_err(|_| ()),
    };
    while let Some(recording) = recordings.next() {
        let sourced = recording.map_err(|error| fault(error.to_string())).and_then(|recording| {
            sourced(recording, network).map_err(|problem| fault(format!("{}: {problem}", recordings.place())))
        });
        to.blocking_send(sourced).map_err(|_| ())?;
    }
    Ok(())
}

fn sourced(recording: Recording, network: Network) -> Result<Recorded, String> {
    let (declared, context) = (recording.template.declared, recording.template.context);
    if declared.network != network {
        let (is, wanted) = (network_name(declared.network), network_name(network));
        return Err(format!("the template is of {is}, and [source] network is {wanted}"));
    }
    let template = assemble(&declared).map_err(|error| error.to_string())?;
    Ok(Recorded { sourced: Sourced::new(declared, template, context), time_ms: recording.time_ms })
}

#[async_trait]
impl TemplateSource for Replay {
    fn name(&self) -> String {
        format!("replay of {}", self.from.display())
    }

    async fn next_template(
        &self,
        after: Option<TemplateDigest>,
        patience: Duration,
    ) -> Result<Option<Sourced>, SourceError> {
        let until = Instant::now() + patience;
        let mut state = self.state.lock().await;
        if let (None, Some(current)) = (after, &state.current) {
            return Ok(Some(current.clone()));
        }
        if state.ended {
            sleep_until(until).await;
            return Ok(None);
        }
        // Given up between any two steps, nothing is lost: what was read stays in the state.
        if state.next.is_none() {
            match timeout_at(until, state.read.recv()).await {
                Err(_) => return Ok(None),
                Ok(Some(read)) => state.next = Some(read?),
                Ok(None) => {
                    state.ended = true;
                    let detail = format!("{} templates were given; there are no more", state.given);
                    return Err(SourceError { reason: Reason::ReplayEnded, detail });
                }
            }
        }
        if self.pace == Pace::Recorded
            && let (Some((began, first)), Some(next)) = (state.began, &state.next)
        {
            let due = began + Duration::from_millis(next.time_ms.saturating_sub(first));
            sleep_until(due.min(until)).await;
            if due > until {
                return Ok(None);
            }
        }
        let Some(Recorded { sourced, time_ms }) = state.next.take() else { return Ok(None) };
        state.began.get_or_insert((Instant::now(), time_ms));
        state.given += 1;
        state.current = Some(sourced.clone());
        Ok(Some(sourced))
    }

    fn gives_each(&self) -> bool {
        true
    }

    async fn submit_block(&self, _: &Block) -> Result<SubmitOutcome, SourceError> {
        Ok(SubmitOutcome::Rejected("a replay takes no blocks".to_owned()))
    }
}
