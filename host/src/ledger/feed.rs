//! What is forwarded is read back from the log: one way for fresh shares, a backlog of hours and what an
//! earlier run left. So memory holds the batches on their way and nothing else.
//!
//! A thread reads durable records in order, checks the chain as it goes, leaves out what has its result,
//! and makes batches of the rest. It stops while nobody takes them.

use super::{
    chain::Keys,
    corrupt::{Checked, Problem},
    record::{Hash, Record},
    segment::{Position, Segment},
    settle::Settled,
};
use std::{
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::mpsc;

/// How far the log goes, for the thread that reads it.
pub struct Progress {
    state: Mutex<State>,
    moved: Condvar,
}

struct State {
    end: Position,
    keys: Keys,
    closed: bool,
}

impl Progress {
    /// A log that is durable up to `end`.
    pub fn new(end: Position, keys: Keys) -> Self {
        Self { state: Mutex::new(State { end, keys, closed: false }), moved: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log is durable up to here.
    pub fn reached(&self, end: Position) {
        self.state().end = end;
        self.moved.notify_all();
    }

    /// Segments from now on are written with other keys.
    pub fn set_keys(&self, keys: Keys) {
        self.state().keys = keys;
    }

    /// No more shares will come.
    pub fn close(&self) {
        self.state().closed = true;
        self.moved.notify_all();
    }

    /// Waits until the log goes beyond `from`; `None` when it never will.
    fn beyond(&self, from: &Position) -> Option<(Position, Keys)> {
        let mut state = self.state();
        while state.end == *from && !state.closed {
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        (state.end != *from).then(|| (state.end, state.keys.clone()))
    }
}

/// A share on its way to the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Its number.
    pub share: u64,
    /// Its identity, and the backend's key against double payment.
    pub share_id: Hash,
    /// The connection it came from, in the run that recorded it.
    pub connection: u64,
    /// How often it was sent.
    pub attempts: u32,
    /// Where its JSON is in the batch's.
    json: (u32, u32),
}

/// Shares that are sent together.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The shares.
    pub shares: Vec<Pending>,
    /// The JSON of these shares, and perhaps of others that were sent with them before.
    json: Arc<Vec<u8>>,
}

const OPENING: &[u8] = b"{\"shares\":[";

impl Batch {
    fn new() -> Self {
        Self { shares: Vec::new(), json: Arc::default() }
    }

    /// What is posted.
    pub fn body(&self) -> Vec<u8> {
        let length: usize = self.shares.iter().map(|share| (share.json.1 - share.json.0) as usize + 1).sum();
        let mut body = Vec::with_capacity(length + 16);
        body.extend_from_slice(OPENING);
        for (index, share) in self.shares.iter().enumerate() {
            if index > 0 {
                body.push(b',');
            }
            body.extend_from_slice(&self.json[share.json.0 as usize..share.json.1 as usize]);
        }
        body.extend_from_slice(b"]}");
        body
    }

    /// The same with other shares of it.
    #[must_use]
    pub fn with(&self, shares: Vec<Pending>) -> Self {
        Self { shares, json: self.json.clone() }
    }

    /// Takes off everything after the first `count`; `None` when there is nothing after them.
    pub fn split_off(&mut self, count: usize) -> Option<Self> {
        (count < self.shares.len())
            .then(|| Self { shares: self.shares.split_off(count), json: self.json.clone() })
    }
}

/// The thread's state.
pub struct Feed {
    folder: PathBuf,
    progress: Arc<Progress>,
    settled: Arc<Mutex<Settled>>,
    /// What had its result when the gateway started; what came later was not handed out before.
    known: Settled,
    first_of_run: u64,
    segment: Segment,
    batch_size: Arc<AtomicUsize>,
}

impl Feed {
    /// A reader that begins where `settled` says.
    ///
    /// # Errors
    /// When there is no segment to begin with.
    pub fn new(
        folder: PathBuf,
        progress: Arc<Progress>,
        settled: Arc<Mutex<Settled>>,
        first_of_run: u64,
        batch_size: Arc<AtomicUsize>,
    ) -> Checked<Self> {
        let known = settled.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let keys = progress.state().keys.clone();
        let mut segment = Segment::open(&folder, known.resume().segment, &keys)?;
        segment.seek(known.resume());
        Ok(Self { folder, progress, settled, known, first_of_run, segment, batch_size })
    }

    /// Reads until the log is closed, or nobody takes batches any more.
    ///
    /// # Errors
    /// When the log is not as it was written.
    pub fn run(mut self, out: &mpsc::Sender<Batch>) -> Checked<()> {
        while let Some((end, keys)) = self.progress.beyond(&self.segment.position()) {
            let batch = self.read(end, &keys)?;
            let position = self.segment.position();
            self.settled.lock().unwrap_or_else(PoisonError::into_inner).handed_out(position);
            if !batch.shares.is_empty() && out.blocking_send(batch).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn read(&mut self, end: Position, keys: &Keys) -> Checked<Batch> {
        let mut batch = Batch::new();
        let mut json = Vec::new();
        let most = self.batch_size.load(Ordering::Relaxed);
        while batch.shares.len() < most && self.segment.position() != end {
            let position = self.segment.position();
            let is_last = position.segment == end.segment;
            let limit = if is_last { end.offset } else { self.segment.length()? };
            match self.segment.next(limit) {
                Ok(Some(found)) => {
                    let at = found.at;
                    match Record::decode(found.body) {
                        Some(Record::Accepted(share)) => {
                            if at.share < self.first_of_run && self.known.is_settled(at.share) {
                                continue;
                            }
                            let start = json.len();
                            // Plain numbers and texts: there is nothing that cannot be JSON.
                            let _ = serde_json::to_writer(&mut json, &share.json());
                            batch.shares.push(Pending {
                                share: at.share,
                                share_id: share.share_id,
                                connection: share.connection,
                                attempts: 0,
                                json: (start as u32, json.len() as u32),
                            });
                        }
                        Some(_) => {}
                        None => return Err(self.segment.here(Problem::Unreadable)),
                    }
                }
                Ok(None) if !is_last => {
                    let mut next = Segment::open(&self.folder, position.segment + 1, keys)?;
                    next.check_follows(&position)?;
                    std::mem::swap(&mut self.segment, &mut next);
                }
                Ok(None) => return Err(self.segment.here(Problem::CutShort)),
                Err(corruption) => return Err(corruption.examined(&self.segment, limit)),
            }
        }
        batch.json = Arc::new(json);
        Ok(batch)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A batch of shares with these numbers.
    pub(in super::super) fn batch(shares: impl IntoIterator<Item = u64>) -> Batch {
        let mut batch = Batch::new();
        let mut json = Vec::new();
        for share in shares {
            let record = super::super::record::tests::accepted(share);
            let start = json.len() as u32;
            serde_json::to_writer(&mut json, &record.json()).unwrap();
            let json = (start, json.len() as u32);
            batch.shares.push(Pending { share, share_id: record.share_id, connection: 1, attempts: 0, json });
        }
        batch.json = Arc::new(json);
        batch
    }

    #[test]
    fn the_body_of_a_batch_and_of_its_parts_is_a_list_of_shares() {
        let ids = |batch: &Batch| {
            let body: serde_json::Value = serde_json::from_slice(&batch.body()).unwrap();
            let shares = body["shares"].as_array().unwrap().clone();
            shares.iter().map(|share| share["nonce"].as_u64().unwrap()).collect::<Vec<_>>()
        };
        let mut first = batch([1, 2, 3, 4, 5]);
        assert_eq!(ids(&first), [1, 2, 3, 4, 5]);
        let second = first.split_off(2).unwrap();
        assert_eq!((ids(&first), ids(&second)), (vec![1, 2], vec![3, 4, 5]));
        let one = second.with(vec![second.shares[1].clone()]);
        assert_eq!(ids(&one), [4]);
        assert!(first.split_off(2).is_none());
    }
}
