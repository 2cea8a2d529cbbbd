//! Asks one template source for news, again and again: backoff when it fails, a word when it is silent.

use super::{Heard, Told};
use crate::{
    event::{Event, Events, schema::SourceDown},
    reason::Reason,
    template::{SourceError, TemplateDigest, TemplateSource},
};
use bitcoin::secp256k1::rand::{Rng, thread_rng};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, mpsc, watch as signal},
    time::{Instant, sleep_until},
};

const BACKOFF_FIRST: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(15);
/// For a source that answers, but with nothing that can be used: its tip is worth knowing soon.
const BACKOFF_ALIVE: Duration = Duration::from_secs(1);
/// From being asked for another template to fetching it, unless the source speaks first.
const ASK_PAUSE: Duration = Duration::from_millis(200);

pub(super) struct Watcher {
    /// Its number among the sources.
    pub(super) index: usize,
    /// What the operator calls it.
    pub(super) name: String,
    pub(super) source: Arc<dyn TemplateSource>,
    /// How long the source may give nothing new.
    pub(super) stale_after: signal::Receiver<Duration>,
    /// How long one wait for news lasts before the current template is fetched afresh, which shows that the
    /// source is alive, and what its fees are by now.
    pub(super) refresh: Duration,
    pub(super) told: mpsc::Sender<Told>,
    /// Rung when another template is wanted.
    pub(super) ask: Arc<Notify>,
    pub(super) events: Events,
}

impl Watcher {
    /// Runs until nobody listens any more.
    pub(super) async fn run(self) {
        let mut after: Option<TemplateDigest> = None;
        let mut backoff = BACKOFF_FIRST;
        let mut up = false;
        let mut stale_at = Some(Instant::now() + self.stale_after());
        loop {
            let next = self.source.next_template(after, self.refresh.min(self.stale_after() / 3));
            tokio::pin!(next);
            let mut refetch_at: Option<Instant> = None;
            let outcome = loop {
                let stale = sleep_until(stale_at.unwrap_or_else(Instant::now));
                let refetch = sleep_until(refetch_at.unwrap_or_else(Instant::now));
                tokio::select! {
                    outcome = &mut next => break Some(outcome),
                    () = stale, if stale_at.is_some() => {
                        stale_at = None;
                        if !self.silent().await {
                            return;
                        }
                    }
                    () = self.ask.notified(), if after.is_some() && refetch_at.is_none() => {
                        refetch_at = Some(Instant::now() + ASK_PAUSE);
                    }
                    () = refetch, if refetch_at.is_some() => break None,
                }
            };
            match outcome {
                // Asked for, or silent for a while: fetch what is current, which also shows that the
                // source is alive.
                None | Some(Ok(None)) => after = None,
                Some(Ok(Some(sourced))) => {
                    if !up {
                        up = true;
                        let (source, address) = (self.name.clone(), self.source.name());
                        self.events.emit(Event::SourceUp { source, address });
                    }
                    backoff = BACKOFF_FIRST;
                    stale_at = Some(Instant::now() + self.stale_after());
                    after = Some(sourced.template.digest);
                    if !self.tell(Heard::Template(Box::new(sourced))).await {
                        return;
                    }
                }
                Some(Err(error)) => {
                    up = false;
                    after = None;
                    let alive = is_alive(&error);
                    let wait = if alive { backoff.min(BACKOFF_ALIVE) } else { backoff };
                    let wait = wait.mul_f64(thread_rng().gen_range(0.75..1.0));
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                    if !self.tell(Heard::Failed(error.reason, error.detail.clone())).await {
                        return;
                    }
                    self.events.emit(Event::SourceDown(SourceDown {
                        source: self.name.clone(),
                        address: self.source.name(),
                        reason: error.reason,
                        detail: error.detail,
                        retry_in_ms: wait.as_millis() as u64,
                    }));
                    if alive {
                        self.tell_tip().await;
                    }
                    self.pause(wait, &mut stale_at).await;
                }
            }
        }
    }

    fn stale_after(&self) -> Duration {
        *self.stale_after.borrow()
    }

    /// False when nobody listens any more.
    async fn tell(&self, heard: Heard) -> bool {
        self.told.send(Told { source: self.index, heard }).await.is_ok()
    }

    async fn silent(&self) -> bool {
        let (source, reason) = (self.name.clone(), Reason::TemplateSourceStale);
        self.events.emit(Event::SourceStale { source, reason });
        self.tell(Heard::Silent).await
    }

    /// There is no usable template; on which tip there is none matters all the same.
    async fn tell_tip(&self) {
        match self.source.tip().await {
            Ok(Some(tip)) => {
                self.tell(Heard::Tip(tip)).await;
            }
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "the tip is not known"),
        }
    }

    /// Waits, and says so if the source becomes stale meanwhile.
    async fn pause(&self, wait: Duration, stale_at: &mut Option<Instant>) {
        let end = Instant::now() + wait;
        if let Some(at) = *stale_at
            && at < end
        {
            sleep_until(at).await;
            *stale_at = None;
            self.silent().await;
        }
        sleep_until(end).await;
    }
}

/// The source answers; only its template is none that can be used.
fn is_alive(error: &SourceError) -> bool {
    matches!(
        error.reason,
        Reason::TemplateSourceInvalid
            | Reason::TemplateUndecodable
            | Reason::TemplateIdUnknown
            | Reason::TemplateOutdated
            | Reason::TemplateDataMissing
    )
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
