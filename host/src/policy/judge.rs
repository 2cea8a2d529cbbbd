//! Judging off the async threads.
//!
//! An evaluation computes for up to the deadline of the set and must not sit on a thread that serves
//! connections. It runs on tokio's blocking threads, a bounded number at a time. When all places are
//! taken for longer than an evaluation can last, the answer is a rejection, not a longer queue.

use super::{
    set::PolicySet,
    verdict::{Judgement, Verdict},
};
use crate::{reason::Reason, template::Sourced};
use std::{sync::Arc, time::Instant};
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

/// Asks a policy set from async code.
#[derive(Clone, Debug)]
pub struct Judge {
    set: Arc<PolicySet>,
    places: Arc<Semaphore>,
}

impl Judge {
    /// A judge that runs at most `workers` evaluations at the same time.
    pub fn new(set: Arc<PolicySet>, workers: usize) -> Self {
        Self { set, places: Arc::new(Semaphore::new(workers)) }
    }

    /// The set that judges.
    pub fn set(&self) -> &Arc<PolicySet> {
        &self.set
    }

    /// Judges a template. Takes at most three times the deadline of the set: two of them waiting for a
    /// place, which every running evaluation gives up within one.
    pub async fn judge(&self, sourced: Sourced) -> Judgement {
        let started = Instant::now();
        let template = sourced.template.clone();
        let unavailable = |detail: &str| Judgement {
            template: template.digest,
            set: self.set.digest(),
            verdict: Verdict::fault(Reason::PolicySetUnavailable, detail),
            decided_by: None,
            policies: Vec::new(),
            duration: started.elapsed(),
            infrastructure_fault: true,
        };
        let patience = self.set.limits().deadline * 2;
        let Ok(Ok(place)) = timeout(patience, self.places.clone().acquire_owned()).await else {
            return unavailable("every evaluation slot is taken; raise the number of policy workers");
        };
        let set = self.set.clone();
        let evaluation = spawn_blocking(move || {
            let _place = place; // given back when the evaluation ends, even if nobody waits for it
            set.evaluate(&sourced.template, &sourced.context)
        });
        evaluation
            .await
            .unwrap_or_else(|_| unavailable("the evaluation was cut off: the gateway is stopping"))
    }
}
