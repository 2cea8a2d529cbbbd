//! Forwarding: batches of accepted shares to the pool backend, until each has an answer for good.
//!
//! What is sent when is decided in [`schedule`](super::schedule), what an answer means in
//! [`answer`](super::answer), and where batches come from in [`feed`](super::feed). Here are the requests
//! themselves: several on their way at once, each signed over its exact bytes.

use super::{
    Command, answer,
    answer::Outcome,
    feed::Batch,
    schedule::{Next, Schedule},
    secret::{Change, SigningKeys},
    sign,
};
use crate::{
    event::{Event, Events, schema, unix_ms},
    reason::Reason,
    words::chain,
};
use bitcoin::secp256k1::rand::{Rng, thread_rng};
use std::{
    io,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
    time::sleep_until,
};

/// An answer to a full batch is far below this.
const MAX_ANSWER: usize = 4 << 20;
/// Answered batches whose results may wait to be written.
const MAX_UNWRITTEN: usize = 32;

/// The backend and how to talk to it.
pub struct ForwardConfig {
    /// What signs the batches.
    pub keys: Arc<SigningKeys>,
    /// Shares in one request.
    pub batch_size: usize,
    /// The requests.
    pub requests: Requests,
}

/// The requests that batches are sent in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requests {
    /// Where they are POSTed.
    pub url: String,
    /// How many are on their way at once.
    pub in_flight: usize,
    /// For a request and its answer.
    pub timeout: Duration,
}

struct Backend {
    keys: Arc<SigningKeys>,
    requests: watch::Receiver<Requests>,
    client: reqwest::Client,
    events: Events,
}

pub(super) struct Forwarder {
    backend: Arc<Backend>,
    ledger: mpsc::UnboundedSender<Command>,
    room: Arc<Semaphore>,
    schedule: Schedule,
}

impl Forwarder {
    pub(super) fn new(
        config: ForwardConfig,
        requests: watch::Receiver<Requests>,
        ledger: mpsc::UnboundedSender<Command>,
        events: Events,
    ) -> io::Result<Self> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(io::Error::other)?;
        let schedule = Schedule::new(config.requests.in_flight);
        let backend = Arc::new(Backend { keys: config.keys, requests, client, events });
        Ok(Self { backend, ledger, room: Arc::new(Semaphore::new(MAX_UNWRITTEN)), schedule })
    }

    /// Runs until nothing fresh will come and everything has its answer. `open` shares are left of an
    /// earlier run.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Batch>, open: u64) {
        if open > 0 {
            let detail = "shares of an earlier run are forwarded again".into();
            self.backend.status(
                Reason::ForwardRecovered,
                detail,
                usize::try_from(open).unwrap_or(usize::MAX),
            );
        }
        let mut requests = JoinSet::new();
        let mut changes = self.backend.requests.clone();
        let mut closed = false;
        loop {
            let (fresh, until) = match self.schedule.next(Instant::now()) {
                Next::Send(batch) => {
                    let backend = self.backend.clone();
                    requests.spawn(async move {
                        let outcome = backend.send(&batch).await;
                        (batch, outcome)
                    });
                    continue;
                }
                Next::Fresh(until) => (true, until),
                Next::Wait(until) => (false, until),
            };
            if closed && self.schedule.is_idle() {
                return;
            }
            let wake = async {
                match until {
                    Some(until) => sleep_until(until.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(ended) = requests.join_next() => {
                    // A request is cut off with the whole forwarder or not at all.
                    let Ok((batch, outcome)) = ended else { return };
                    self.on_outcome(batch, outcome).await;
                }
                batch = inbox.recv(), if fresh && !closed => match batch {
                    Some(batch) => self.schedule.fresh(Instant::now(), batch),
                    None => closed = true,
                },
                Ok(()) = changes.changed() => {
                    let in_flight = changes.borrow_and_update().in_flight;
                    self.schedule.changed(Instant::now(), in_flight);
                }
                () = wake => {}
            }
        }
    }

    async fn on_outcome(&mut self, batch: Batch, outcome: Outcome) {
        let effects = self.schedule.outcome(Instant::now(), batch, outcome, thread_rng().r#gen());
        if let Some((reason, detail, shares)) = effects.status {
            self.backend.status(reason, detail, shares);
        }
        if !effects.verdicts.is_empty() {
            // Nothing more is sent while the disk takes no results.
            let Ok(room) = self.room.clone().acquire_owned().await else { return };
            let _ = self.ledger.send(Command::Verdicts(effects.verdicts, room));
        }
    }
}

impl Backend {
    async fn send(&self, batch: &Batch) -> Outcome {
        let body = batch.body();
        let timestamp = (unix_ms() / 1000).to_string();
        let key = self.keys.current();
        match self.keys.news() {
            Some(Change::Changed(id)) => {
                self.status(Reason::ForwardKeyChanged, format!("the key {id} signs from now on"), 0);
            }
            Some(Change::Unusable(error)) => self.status(Reason::ForwardKeyUnusable, error, 0),
            None => {}
        }
        let Requests { url, timeout, .. } = self.requests.borrow().clone();
        let signature = sign::sign(&key.secret, &timestamp, &body);
        let request = self
            .client
            .post(url)
            .timeout(timeout)
            .header("content-type", "application/json")
            .header(sign::KEY_ID_HEADER, &key.id)
            .header(sign::TIMESTAMP_HEADER, timestamp)
            .header(sign::SIGNATURE_HEADER, signature)
            .body(body);
        // Errors without the address: it may hold a token, and the operator knows it.
        let unanswered =
            |error: reqwest::Error| Outcome::Unanswered(chain(&error.without_url()), Duration::ZERO);
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => return unanswered(error),
        };
        let status = response.status().as_u16();
        let retry_after = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
        let retry_after = retry_after.map(str::to_owned);
        let mut answer = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if answer.len() + chunk.len() <= MAX_ANSWER => {
                    answer.extend_from_slice(&chunk);
                }
                Ok(Some(_)) => {
                    return Outcome::Unanswered("the answer is unreasonably long".into(), Duration::ZERO);
                }
                Ok(None) => break,
                Err(error) => return unanswered(error),
            }
        }
        answer::read(batch, status, retry_after.as_deref(), &answer, SystemTime::now())
    }

    fn status(&self, reason: Reason, detail: String, shares: usize) {
        self.events.emit(Event::ForwardStatus(schema::ForwardStatus { reason, detail, shares }));
    }
}
