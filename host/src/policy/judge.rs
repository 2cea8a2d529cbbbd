//! Judging off the async threads.
//!
//! An evaluation computes for up to the deadline of the set and must not sit on a thread that serves
//! connections. It runs on tokio's blocking threads, a bounded number at a time. When all places are
//! taken for longer than an evaluation can last, the answer is a rejection, not a longer queue.
//!
//! The set is taken from the store when the evaluation begins, and kept to its end. When the verdict is
//! delivered, the same thread throws away what was used and makes instances for the next one. Monitored policies
//! are asked afterwards, in one place of their own: they never make a verdict wait.

use super::{
    contract::Inputs,
    store::{LoadedSet, PolicyStore},
    verdict::{Judgement, PolicyResult, Verdict},
};
use crate::reason::Reason;
use std::{sync::Arc, time::Instant};
use tokio::{
    sync::{Semaphore, oneshot},
    task::spawn_blocking,
    time::timeout,
};

/// Asks the running policy set from async code.
#[derive(Clone, Debug)]
pub struct Judge {
    store: Arc<PolicyStore>,
    places: Arc<Semaphore>,
    monitor_place: Arc<Semaphore>,
}

/// A judgement, with what is needed to ask the monitored policies too.
#[derive(Clone, Debug)]
pub struct Judged {
    /// What the set said.
    pub judgement: Judgement,
    /// The set that said it.
    pub by: Arc<LoadedSet>,
    /// What it was asked about.
    pub inputs: Inputs,
}

/// What monitored policies said.
#[derive(Debug)]
pub enum Monitored {
    /// They were not asked: those of an earlier template still are.
    Skipped,
    /// The gateway itself failed while it asked them.
    Failed,
    /// Their results, in order.
    Said(Vec<PolicyResult>),
}

impl Judge {
    /// A judge that runs at most `workers` evaluations at the same time.
    pub fn new(store: Arc<PolicyStore>, workers: usize) -> Self {
        let place = |count| Arc::new(Semaphore::new(count));
        Self { store, places: place(workers), monitor_place: place(1) }
    }

    /// Where the sets come from.
    pub fn store(&self) -> &Arc<PolicyStore> {
        &self.store
    }

    /// Judges a template. Takes at most three times the deadline of the set: two of them waiting for a
    /// place, which every running evaluation gives up within one.
    pub async fn judge(&self, inputs: Inputs) -> Judged {
        let started = Instant::now();
        let _waiting = self.store.awaited.wait();
        let unavailable = |by: Arc<LoadedSet>, inputs: Inputs, detail: &str| {
            let judgement = Judgement {
                template: inputs.template.digest,
                set: by.digest(),
                verdict: Verdict::fault(Reason::PolicySetUnavailable, detail),
                decided_by: None,
                policies: Vec::new(),
                duration: started.elapsed(),
                infrastructure_fault: true,
            };
            Judged { judgement, by, inputs }
        };
        let patience = self.store.deadline() * 2;
        let Ok(Ok(place)) = timeout(patience, self.places.clone().acquire_owned()).await else {
            let detail = "every evaluation slot is taken; raise `workers` in `[engine]`";
            return unavailable(self.store.running(), inputs, detail);
        };
        let by = self.store.running();
        let (deliver, delivered) = oneshot::channel();
        let evaluation = spawn_blocking({
            let (store, by, inputs) = (self.store.clone(), by.clone(), inputs.clone());
            move || {
                let (judgement, spent) = by.judge(&inputs);
                drop(place);
                let _ = deliver.send(judgement); // perhaps nobody waits for it any more
                drop(spent);
                store.make_ready(&by);
            }
        });
        if let Ok(judgement) = delivered.await {
            return Judged { judgement, by, inputs };
        }
        let panicked = evaluation.await.is_err_and(|error| error.is_panic());
        let detail = match panicked {
            true => "the gateway itself failed while it judged; please report it",
            false => "the evaluation was cut off: the gateway is stopping",
        };
        unavailable(by, inputs, detail)
    }

    /// Asks the monitored policies of the set that judged. `None` when it has none, or when the gateway
    /// is stopping.
    pub async fn monitor(&self, by: Arc<LoadedSet>, inputs: Inputs) -> Option<Monitored> {
        if !by.monitors() {
            return None;
        }
        let Ok(place) = self.monitor_place.clone().try_acquire_owned() else {
            return Some(Monitored::Skipped);
        };
        let asked = spawn_blocking(move || {
            let _place = place;
            by.monitor(&inputs)
        });
        match asked.await {
            Ok(results) => Some(Monitored::Said(results)),
            Err(error) => error.is_panic().then_some(Monitored::Failed),
        }
    }
}
