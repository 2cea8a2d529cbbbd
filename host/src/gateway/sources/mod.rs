//! The template sources: each is watched by a task of its own, one of them gives the templates.
//!
//! - `watch`: asks one source for news, with backoff and a staleness watch
//! - `choice`: who leads, without clock and sockets
//! - `make`: sources as the configuration describes them
//! - here: what sources said to the choice, what the leader said to the flow, and all of it to whoever looks
//!
//! The newest template of every source is kept, so that a backup's is there when the leader fails.

mod choice;
mod make;
mod watch;

use crate::{
    event::{
        Event, Events,
        schema::{SourceLeads, SourceTips, TipOfSource},
        unix_ms,
    },
    reason::Reason,
    template::{SourceTip, Sourced, TemplateSource, best::BestValues},
    view::sources::{SourceState, SourceView, SourcesBoard, SourcesView},
};
pub(super) use choice::Rules;
use choice::{Choice, Condition, Said, Step};
pub(super) use make::make;
use std::{
    collections::VecDeque,
    future::pending,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    sync::{Notify, mpsc, watch as signal},
    task::JoinSet,
    time::sleep_until,
};
use watch::Watcher;

/// Words of all sources that wait to be looked at.
const MAX_WAITING: usize = 8;

/// What the flow is told.
pub(super) enum News {
    /// A template.
    Template(Box<Sourced>),
    /// The tip of the chain, from a source whose template cannot be used.
    Tip(SourceTip),
    /// No source gave anything for longer than allowed.
    Stale,
}

/// A source with what the operator said of it.
#[derive(Clone)]
pub(super) struct NamedSource {
    /// What the operator calls it.
    pub(super) name: String,
    pub(super) source: Arc<dyn TemplateSource>,
    /// How long it may give nothing new.
    pub(super) stale_after: signal::Receiver<Duration>,
    /// How soon better templates on the same tip are seen at the latest.
    pub(super) refresh: Duration,
}

/// Something that a source said.
struct Told {
    source: usize,
    heard: Heard,
}

enum Heard {
    Template(Box<Sourced>),
    Tip(SourceTip),
    Failed(Reason, String),
    Silent,
}

/// What is remembered of a source.
#[derive(Default)]
struct Memory {
    /// Its newest template that is on a tip.
    newest: Option<Box<Sourced>>,
    /// Why it failed last.
    trouble: Option<(Reason, String)>,
    /// Its state, and since when.
    state: Option<(SourceState, u64)>,
}

/// The task around them.
pub(super) struct Sources {
    /// In the order of preference; at least one.
    pub(super) list: Vec<NamedSource>,
    pub(super) rules: Rules,
    pub(super) news: mpsc::Sender<News>,
    /// Rung when the gate wants another template, or a block was just accepted.
    pub(super) ask: Arc<Notify>,
    pub(super) best: Arc<Mutex<BestValues>>,
    pub(super) board: Arc<SourcesBoard>,
    pub(super) events: Events,
}

impl Sources {
    /// Runs until shutdown.
    pub(super) async fn run(self, mut down: signal::Receiver<bool>) {
        tokio::select! {
            _ = down.wait_for(|down| *down) => {}
            () = self.follow() => {}
        }
    }

    async fn follow(self) {
        let (told, mut hears) = mpsc::channel(MAX_WAITING);
        let (mut watchers, mut asks) = (JoinSet::new(), Vec::new());
        for (index, NamedSource { name, source, stale_after, refresh }) in
            self.list.iter().cloned().enumerate()
        {
            let ask = Arc::new(Notify::new());
            asks.push(ask.clone());
            let (told, events) = (told.clone(), self.events.clone());
            let watcher = Watcher { index, name, source, stale_after, refresh, told, ask, events };
            watchers.spawn(watcher.run());
        }
        let (count, now) = (self.list.len(), Instant::now());
        let (news, ask) = (self.news.clone(), self.ask.clone());
        let memory = (0..count).map(|_| Memory::default()).collect();
        let choice = Choice::new(count, self.rules, now);
        let mut state = Following { sources: self, choice, memory, asks, next: Waiting::default() };
        state.show(now);
        let each = state.sources.list.iter().any(|named| named.source.gives_each());
        loop {
            let deadline = state.choice.deadline(Instant::now());
            tokio::select! {
                Some(told) = hears.recv(), if !each || state.next.0.is_empty() => state.hear(told),
                () = until(deadline) => {
                    let now = Instant::now();
                    let steps = state.choice.on_time(now);
                    state.carry_out(steps);
                    state.show(now);
                }
                () = ask.notified() => state.ask(),
                permit = news.reserve(), if !state.next.0.is_empty() => {
                    let (Ok(permit), Some(next)) = (permit, state.next.0.pop_front()) else { return };
                    permit.send(next);
                }
                // A watcher ends only when this does, or by a defect.
                Some(_) = watchers.join_next() => return,
            }
        }
    }
}

/// The state of following.
struct Following {
    sources: Sources,
    choice: Choice,
    memory: Vec<Memory>,
    /// How each watcher is asked for another template.
    asks: Vec<Arc<Notify>>,
    /// What the flow is to be told next, oldest first: at most one of each kind.
    next: Waiting,
}

/// News that the flow has not taken yet. Newer ones take the place of those that they make worthless.
#[derive(Default)]
struct Waiting(VecDeque<News>);

impl Waiting {
    fn push(&mut self, news: News) {
        let is_future = |news: &News| matches!(news, News::Template(sourced) if sourced.template.is_future());
        let future = is_future(&news);
        self.0.retain(|old| match &news {
            News::Template(_) if future => !is_future(old),
            News::Template(_) => is_future(old),
            News::Tip(_) | News::Stale => matches!(old, News::Template(_)),
        });
        self.0.push_back(news);
    }
}

impl Following {
    fn hear(&mut self, Told { source, heard }: Told) {
        let now = Instant::now();
        let Some(memory) = self.memory.get_mut(source) else { return };
        let (said, news) = match heard {
            Heard::Template(sourced) => {
                self.sources.best.lock().unwrap_or_else(PoisonError::into_inner).note(&sourced.template);
                memory.trouble = None;
                let said = Said::Template(sourced.place());
                if !sourced.template.is_future() {
                    memory.newest = Some(sourced.clone());
                }
                (said, Some(News::Template(sourced)))
            }
            Heard::Tip(tip) => {
                // A tip at an unknown height is a place only if somebody else is there.
                let known =
                    || (0..self.asks.len()).find_map(|i| self.choice.place(i).filter(|p| p.hash == tip.hash));
                match tip.place.or_else(known) {
                    Some(place) => (Said::Tip(place), Some(News::Tip(tip))),
                    None => return self.tell_if_speaks(source, News::Tip(tip)),
                }
            }
            Heard::Failed(reason, detail) => {
                memory.trouble = Some((reason, detail));
                (Said::Failed, None)
            }
            Heard::Silent => (Said::Silent, None),
        };
        let led = self.choice.lead();
        let steps = self.choice.on_said(now, source, said);
        self.carry_out(steps);
        // Who takes the lead with these words has been told already.
        if let Some(news) = news
            && self.choice.lead() == led
        {
            self.tell_if_speaks(source, news);
        }
        if matches!(said, Said::Silent) && self.choice.all_silent() {
            self.next.push(News::Stale);
        }
        self.show(now);
    }

    fn tell_if_speaks(&mut self, source: usize, news: News) {
        let speaks = match news {
            News::Template(_) => self.choice.lead() == Some(source),
            _ => self.choice.speaks(source),
        };
        if speaks {
            self.next.push(news);
        }
    }

    fn ask(&self) {
        match self.choice.lead() {
            Some(lead) => self.asks.get(lead).into_iter().for_each(|ask| ask.notify_one()),
            None => self.asks.iter().for_each(|ask| ask.notify_one()),
        }
    }

    fn carry_out(&mut self, steps: Vec<Step>) {
        for step in steps {
            let event = match step {
                Step::Lead { from, to, why } => {
                    if let Some(newest) = to.and_then(|to| self.memory.get(to)?.newest.clone()) {
                        self.next.push(News::Template(newest));
                        // It may be a while old.
                        self.ask();
                    }
                    self.leads(from, to, why)
                }
                Step::Disagree => Event::SourceTips(self.tips(Reason::SourceTipsDisagree)),
                Step::Agree => Event::SourceTips(self.tips(Reason::SourceTipsAgree)),
            };
            // One source alone has nobody to lead or to disagree with.
            if self.memory.len() > 1 {
                self.sources.events.emit(event);
            }
        }
    }

    fn leads(&self, from: Option<usize>, to: Option<usize>, reason: Reason) -> Event {
        let name = |index: Option<usize>| Some(self.sources.list.get(index?)?.name.clone());
        let place = |index: Option<usize>| self.choice.place(index?);
        let (was, is) = (place(from), place(to));
        Event::SourceLeads(SourceLeads {
            reason,
            source: name(to),
            from: name(from),
            tip: is.map(|place| place.hash.to_string()),
            height: is.map(|place| place.height),
            tip_before: was.map(|place| place.hash.to_string()),
            height_before: was.map(|place| place.height),
        })
    }

    fn tips(&self, reason: Reason) -> SourceTips {
        let tip = |(index, source): (usize, &NamedSource)| {
            let place = self.choice.place(index)?;
            let (source, tip, height) = (source.name.clone(), place.hash.to_string(), place.height);
            Some(TipOfSource { source, tip, height, leads: self.choice.lead() == Some(index) })
        };
        SourceTips { reason, tips: self.sources.list.iter().enumerate().filter_map(tip).collect() }
    }

    /// For whoever looks.
    fn show(&mut self, now: Instant) {
        let mut sources = Vec::with_capacity(self.memory.len());
        for (index, (named, memory)) in self.sources.list.iter().zip(&mut self.memory).enumerate() {
            let state = match self.choice.condition(index, now) {
                Condition::Starting => SourceState::Starting,
                Condition::Good => SourceState::Up,
                Condition::Failing => SourceState::Down,
                Condition::Silent => SourceState::Stale,
                Condition::Behind => SourceState::Behind,
            };
            let since =
                memory.state.filter(|(before, _)| *before == state).map_or_else(unix_ms, |(_, since)| since);
            memory.state = Some((state, since));
            let place = self.choice.place(index);
            let trouble = match state {
                SourceState::Stale => Some(Reason::TemplateSourceStale),
                SourceState::Behind => Some(Reason::SourceBehind),
                _ => memory.trouble.as_ref().map(|(reason, _)| *reason),
            };
            sources.push(SourceView {
                name: named.name.clone(),
                address: named.source.name(),
                state,
                since_ms: since,
                leads: self.choice.lead() == Some(index),
                tip: place.map(|place| place.hash.to_string()),
                height: place.map(|place| place.height),
                template_ms: memory.newest.as_ref().map(|sourced| {
                    unix_ms()
                        .saturating_sub(u64::try_from(sourced.received.elapsed().as_millis()).unwrap_or(0))
                }),
                reason_code: trouble,
                detail: memory.trouble.as_ref().map(|(_, detail)| detail.clone()),
            });
        }
        self.sources.board.show(SourcesView { sources, tips_agree: !self.choice.disagree() });
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests;
