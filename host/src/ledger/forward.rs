//! Forwarding: batches of accepted shares to the pool backend, until each has an answer for good.
//!
//! One request at a time. A share keeps its place until the backend says, for this share id, yes or
//! no; whatever else happens (no connection, 5xx, a timeout, an answer that makes no sense, refused
//! credentials) is not an answer, and the batch is sent again later with backoff and jitter. A 4xx on
//! a batch is narrowed down by halves, so that one bad share does not take others with it.

use super::{Command, Permit, sign};
use crate::{
    event::{Event, Events, schema, unix_ms},
    reason::Reason,
    words::{chain, printable},
};
use bitcoin::secp256k1::rand::{Rng, thread_rng};
use serde::Deserialize;
use std::{
    collections::{HashMap, VecDeque},
    io,
    time::Duration,
};
use tokio::sync::mpsc;

const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// An answer to a full batch is far below this.
const MAX_ANSWER: usize = 4 << 20;

/// Characters of the backend's words that are kept.
const MAX_WORDS: usize = 200;

/// A share on its way to the backend.
pub struct Forwardable {
    /// Its identity, and the backend's key against double payment.
    pub share_id: String,
    /// Its `share_accepted` record, as it stands in the ledger.
    pub line: String,
    /// How often it was sent.
    pub attempts: u32,
    /// Its place in the bounded backlog; `None` for shares of an earlier run.
    pub permit: Option<Permit>,
}

/// The backend and how to talk to it.
pub struct ForwardConfig {
    /// Where batches are POSTed.
    pub url: String,
    /// Names the secret to the backend.
    pub key_id: String,
    /// The shared secret.
    pub secret: Vec<u8>,
    /// Shares in one request.
    pub batch_size: usize,
    /// For a request and its answer.
    pub timeout: Duration,
}

#[derive(Deserialize)]
struct Answer {
    results: Vec<ShareAnswer>,
}

#[derive(Deserialize)]
struct ShareAnswer {
    share_id: String,
    accepted: bool,
    #[serde(default)]
    reason: String,
}

/// What became of one request.
enum Outcome {
    /// The backend answered for these share ids.
    Answered(HashMap<String, ShareAnswer>),
    /// It refused the request as such, for good.
    Refused(String),
    /// No answer; try again.
    Unanswered(String),
}

pub(super) struct Forwarder {
    config: ForwardConfig,
    client: reqwest::Client,
    ledger: mpsc::UnboundedSender<Command>,
    events: Events,
    retrying: bool,
}

impl Forwarder {
    pub(super) fn new(
        config: ForwardConfig,
        ledger: mpsc::UnboundedSender<Command>,
        events: Events,
    ) -> io::Result<Self> {
        let client = reqwest::Client::builder()
            .timeout(config.timeout)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(io::Error::other)?;
        Ok(Self { config, client, ledger, events, retrying: false })
    }

    /// Runs until the inbox is closed and everything has its answer.
    pub(super) async fn run(
        mut self,
        mut inbox: mpsc::UnboundedReceiver<Forwardable>,
        recovered: Vec<Forwardable>,
    ) {
        if !recovered.is_empty() {
            self.status(
                Reason::ForwardRecovered,
                "shares of an earlier run are forwarded again",
                recovered.len(),
            );
        }
        let mut waiting = VecDeque::from(recovered);
        let mut limit = self.config.batch_size;
        let mut backoff = BACKOFF_FIRST;
        loop {
            if waiting.is_empty() {
                match inbox.recv().await {
                    Some(share) => waiting.push_back(share),
                    None => return,
                }
            }
            while let Ok(share) = inbox.try_recv() {
                waiting.push_back(share);
            }
            let count = waiting.len().min(limit);
            waiting.iter_mut().take(count).for_each(|share| share.attempts += 1);
            let batch: Vec<_> = waiting.drain(..count).collect();
            match self.send(&batch).await {
                Outcome::Answered(answers) => {
                    let unanswered = self.settle(batch, answers);
                    if !unanswered.is_empty() {
                        let detail = "the answer does not name every share that was sent";
                        self.status(Reason::ForwardRetrying, detail, unanswered.len());
                        self.retrying = true;
                        // Behind the others, and without slowing them down when some were settled.
                        if unanswered.len() < count {
                            backoff = BACKOFF_FIRST;
                        }
                        waiting.extend(unanswered);
                        pause(&mut backoff).await;
                        continue;
                    }
                    if self.retrying {
                        self.retrying = false;
                        self.status(Reason::ForwardRecovered, "the backend takes shares again", count);
                    }
                    backoff = BACKOFF_FIRST;
                    limit = (limit * 2).min(self.config.batch_size);
                }
                Outcome::Refused(detail) if batch.len() == 1 => {
                    let refuse = |share: &Forwardable| ShareAnswer {
                        share_id: share.share_id.clone(),
                        accepted: false,
                        reason: detail.clone(),
                    };
                    let answers = batch.iter().map(|share| (share.share_id.clone(), refuse(share))).collect();
                    self.settle(batch, answers);
                }
                Outcome::Refused(_) => {
                    limit = batch.len() / 2;
                    requeue(&mut waiting, batch);
                }
                Outcome::Unanswered(detail) => {
                    self.status(Reason::ForwardRetrying, &detail, batch.len());
                    self.retrying = true;
                    // It may be one share that the backend stumbles over: narrow the batch down, and let
                    // a single one go behind the others.
                    limit = (count / 2).max(1);
                    if count == 1 {
                        waiting.extend(batch);
                    } else {
                        requeue(&mut waiting, batch);
                    }
                    pause(&mut backoff).await;
                }
            }
        }
    }

    async fn send(&self, batch: &[Forwardable]) -> Outcome {
        let lines: Vec<_> = batch.iter().map(|share| share.line.as_str()).collect();
        let body = format!("{{\"shares\":[{}]}}", lines.join(","));
        let timestamp = (unix_ms() / 1000).to_string();
        let signature = sign::sign(&self.config.secret, &timestamp, body.as_bytes());
        let request = self
            .client
            .post(&self.config.url)
            .header("content-type", "application/json")
            .header(sign::KEY_ID_HEADER, &self.config.key_id)
            .header(sign::TIMESTAMP_HEADER, timestamp)
            .header(sign::SIGNATURE_HEADER, signature)
            .body(body);
        let mut response = match request.send().await {
            Ok(response) => response,
            // Without the address: it may hold a token, and the operator knows it.
            Err(error) => return Outcome::Unanswered(chain(&error.without_url())),
        };
        let status = response.status();
        let mut answer = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if answer.len() + chunk.len() <= MAX_ANSWER => {
                    answer.extend_from_slice(&chunk)
                }
                Ok(Some(_)) => return Outcome::Unanswered("the answer is unreasonably long".into()),
                Ok(None) => break,
                Err(error) => return Outcome::Unanswered(chain(&error.without_url())),
            }
        }
        match status.as_u16() {
            200..=299 => match serde_json::from_slice::<Answer>(&answer) {
                Ok(answer) => {
                    Outcome::Answered(answer.results.into_iter().map(|a| (a.share_id.clone(), a)).collect())
                }
                Err(error) => {
                    Outcome::Unanswered(format!("the backend answered {status} with nonsense: {error}"))
                }
            },
            // Credentials, routing and overload say nothing about the shares; a night's work must not
            // be refused for good because a key was mistyped.
            401 | 403 | 404 | 405 | 408 | 425 | 429 => Outcome::Unanswered(format!(
                "the backend answered {status}: check [pool] url, key_id and secret"
            )),
            400..=499 => Outcome::Refused(format!("{status}: {}", printable(&answer, MAX_WORDS))),
            _ => Outcome::Unanswered(format!("the backend answered {status}")),
        }
    }

    /// Writes the results; gives back the shares that the answers do not name.
    fn settle(&self, batch: Vec<Forwardable>, mut answers: HashMap<String, ShareAnswer>) -> Vec<Forwardable> {
        let mut unanswered = Vec::new();
        let mut results = Vec::new();
        for share in batch {
            match answers.remove(&share.share_id) {
                Some(answer) => results.push(schema::ShareForwardResult {
                    share_id: share.share_id,
                    reason: if answer.accepted { Reason::ForwardAccepted } else { Reason::ForwardRejected },
                    detail: printable(answer.reason.as_bytes(), MAX_WORDS),
                    attempts: share.attempts,
                }),
                None => unanswered.push(share),
            }
        }
        if !results.is_empty() {
            let _ = self.ledger.send(Command::Results(results));
        }
        unanswered
    }

    fn status(&self, reason: Reason, detail: &str, shares: usize) {
        self.events.emit(Event::ForwardStatus(schema::ForwardStatus {
            reason,
            detail: detail.into(),
            shares,
        }));
    }
}

fn requeue(waiting: &mut VecDeque<Forwardable>, batch: Vec<Forwardable>) {
    batch.into_iter().rev().for_each(|share| waiting.push_front(share));
}

async fn pause(backoff: &mut Duration) {
    let jitter = thread_rng().gen_range(0.5..1.0);
    tokio::time::sleep(backoff.mul_f64(jitter)).await;
    *backoff = (*backoff * 2).min(BACKOFF_MAX);
}
