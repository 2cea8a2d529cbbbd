//! Which of several sources gives the templates now. Sans-IO: what sources said goes in with the time, steps
//! come out.
//!
//! Sources stand in the operator's order of preference. The rules:
//!
//! - A source can lead while it gives usable templates, is not silent, and is not behind.
//! - Where the chain is, is the place with the most work (the greatest height where not all sources say
//!   their work) among those of sources that answer. A source that failed a moment ago still counts, for
//!   `apart_after`: its miners' work is on that tip.
//! - A source with less work than that is behind, once it has been so for `apart_after`: blocks need some time
//!   to travel. Nobody takes the lead while it has less work than the best place; so the lead never goes to a
//!   worse chain but when the better one is gone for good.
//! - On a tie the lead stays where it is: two blocks at one height are a race that the network decides.
//! - When the leader cannot lead any more, the first that can takes over, at once.
//! - A source that is preferred to the leader gets the lead back when it could have led for `return_after`
//!   without a break.
//! - Sources that stand at different places for longer than `apart_after` disagree. Following the others block
//!   by block, however late, is no disagreement: a tip that others had before starts the time anew.

use crate::{reason::Reason, template::Place};
use bitcoin::BlockHash;
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Tips that are remembered, to tell followers from branches.
const MAX_TIPS: usize = 64;

/// The operator's times.
#[derive(Clone, Copy, Debug)]
pub(in crate::gateway) struct Rules {
    /// How long sources may be on different tips.
    pub(in crate::gateway) apart_after: Duration,
    /// How long a preferred source must have been good before it leads again.
    pub(in crate::gateway) return_after: Duration,
}

/// What a source said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// A usable template, at this place; `None` when it is for a tip still to come.
    Template(Option<Place>),
    /// It answers, has no usable template, but is at this place.
    Tip(Place),
    /// It failed.
    Failed,
    /// It gave nothing new for longer than it may.
    Silent,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Templates come from another source from now on, or from none.
    Lead { from: Option<usize>, to: Option<usize>, why: Reason },
    /// Sources are on different tips, and have been for too long.
    Disagree,
    /// They are on the same again.
    Agree,
}

/// How a source is, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// It has said nothing yet.
    Starting,
    /// It could give the templates.
    Good,
    /// It fails.
    Failing,
    /// It gave nothing new for too long.
    Silent,
    /// Others have had more work for too long.
    Behind,
}

#[derive(Clone, Copy, Debug, Default)]
struct Source {
    heard: bool,
    /// It gives usable templates.
    usable: bool,
    silent: bool,
    /// It does not answer, since then.
    failed: Option<Instant>,
    place: Option<Place>,
    /// It has had less work than the best place since then, but for tips that it followed.
    worse: Option<Instant>,
    /// It has been elsewhere than the best place since then, but for tips that it followed.
    apart: Option<Instant>,
    /// It could have led since then.
    good: Option<Instant>,
}

/// The choice among sources.
#[derive(Debug)]
pub(super) struct Choice {
    rules: Rules,
    sources: Vec<Source>,
    lead: Option<usize>,
    /// Whose lead ended, while there is none.
    led: Option<usize>,
    /// Until then a source that said nothing yet is waited for.
    start: Option<Instant>,
    /// The last tips, each with the source that had it first.
    tips: VecDeque<(BlockHash, usize)>,
    disagree: bool,
}

impl Choice {
    pub(super) fn new(count: usize, rules: Rules, now: Instant) -> Self {
        let start = Some(now + rules.apart_after);
        let sources = vec![Source::default(); count];
        Self { rules, sources, lead: None, led: None, start, tips: VecDeque::new(), disagree: false }
    }

    pub(super) fn lead(&self) -> Option<usize> {
        self.lead
    }

    pub(super) fn disagree(&self) -> bool {
        self.disagree
    }

    pub(super) fn place(&self, source: usize) -> Option<Place> {
        self.sources.get(source)?.place
    }

    /// What it says of its tip is worth telling: it leads, or nobody does and nobody knows better.
    pub(super) fn speaks(&self, source: usize) -> bool {
        self.lead.map_or_else(
            || self.sources.get(source).is_some_and(|source| source.worse.is_none()),
            |lead| lead == source,
        )
    }

    /// Every source is silent.
    pub(super) fn all_silent(&self) -> bool {
        self.sources.iter().all(|source| source.silent)
    }

    pub(super) fn condition(&self, source: usize, now: Instant) -> Condition {
        let Some(source) = self.sources.get(source) else { return Condition::Starting };
        match source {
            _ if source.silent => Condition::Silent,
            _ if !source.heard => Condition::Starting,
            _ if !source.usable => Condition::Failing,
            _ if self.has_passed(source.worse, now) => Condition::Behind,
            _ => Condition::Good,
        }
    }

    /// A source said something.
    pub(super) fn on_said(&mut self, now: Instant, index: usize, said: Said) -> Vec<Step> {
        let Some(source) = self.sources.get_mut(index) else { return Vec::new() };
        match said {
            Said::Silent => source.silent = true,
            Said::Failed => {
                source.heard = true;
                source.usable = false;
                source.failed.get_or_insert(now);
            }
            Said::Template(place) => {
                (source.heard, source.usable, source.silent, source.failed) = (true, true, false, None);
                self.moved(now, index, place);
            }
            Said::Tip(place) => {
                (source.heard, source.failed) = (true, None);
                self.moved(now, index, Some(place));
            }
        }
        self.decide(now)
    }

    /// Time has passed.
    pub(super) fn on_time(&mut self, now: Instant) -> Vec<Step> {
        self.decide(now)
    }

    /// When [`on_time`](Self::on_time) is to be called at the latest, if nothing is said before.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let Rules { apart_after, return_after } = self.rules;
        let mut times: Vec<Instant> = self.start.into_iter().collect();
        for (index, source) in self.sources.iter().enumerate() {
            let apart = [source.worse, source.apart, source.failed.filter(|_| source.place.is_some())];
            times.extend(apart.into_iter().flatten().map(|since| since + apart_after));
            if self.lead.is_some_and(|lead| index < lead) {
                times.extend(source.good.map(|since| since + return_after));
            }
        }
        times.into_iter().filter(|time| *time > now).min()
    }

    fn has_passed(&self, since: Option<Instant>, now: Instant) -> bool {
        since.is_some_and(|since| now >= since + self.rules.apart_after)
    }

    /// A source is at a place.
    fn moved(&mut self, now: Instant, index: usize, place: Option<Place>) {
        let (Some(place), Some(source)) = (place, self.sources.get_mut(index)) else { return };
        let news = source.place.is_none_or(|before| before.hash != place.hash);
        source.place = Some(place);
        if !news {
            return;
        }
        match self.tips.iter().find(|(hash, _)| *hash == place.hash) {
            Some((_, first)) if *first != index => {
                // It follows: it is late, not elsewhere.
                source.worse = source.worse.map(|_| now);
                source.apart = source.apart.map(|_| now);
            }
            Some(_) => {}
            None => {
                self.tips.push_back((place.hash, index));
                if self.tips.len() > MAX_TIPS {
                    self.tips.pop_front();
                }
            }
        }
    }

    /// The place of a source, while it counts.
    fn counted(&self, source: &Source, now: Instant) -> Option<Place> {
        let gone = source.silent || self.has_passed(source.failed, now);
        source.place.filter(|_| !gone)
    }

    /// The best place: the one with the most work, on a tie the leader's, then that of the first.
    fn best(&self, now: Instant) -> Option<Place> {
        let places: Vec<_> = self.sources.iter().map(|source| self.counted(source, now)).collect();
        let by_work = places.iter().flatten().all(|place| place.work.is_some());
        let lead = self.lead.or(self.led).and_then(|lead| places.get(lead).copied().flatten());
        let better = |best: Option<Place>, place: Place| match best {
            Some(best) if !is_better(&place, &best, by_work) => Some(best),
            _ => Some(place),
        };
        lead.into_iter().chain(places.iter().copied().flatten()).fold(None, better)
    }

    fn decide(&mut self, now: Instant) -> Vec<Step> {
        self.start = self.start.filter(|start| now < *start);
        self.assess(now);
        let mut steps: Vec<Step> = self.choose(now).into_iter().collect();
        if !steps.is_empty() {
            // On a tie, the best place is where the leader is.
            self.assess(now);
        }
        // Those that do not answer agree with nobody and contradict nobody.
        let answering = || self.sources.iter().filter(|source| source.failed.is_none());
        let disagree = answering()
            .any(|source| source.apart.is_none() && self.counted(source, now).is_some())
            && answering().any(|source| self.has_passed(source.apart, now));
        if disagree != self.disagree {
            self.disagree = disagree;
            steps.push(if disagree { Step::Disagree } else { Step::Agree });
        }
        steps
    }

    /// Compares every source with the best place.
    fn assess(&mut self, now: Instant) {
        let best = self.best(now);
        let places: Vec<_> = self.sources.iter().map(|source| self.counted(source, now)).collect();
        let by_work = places.iter().flatten().all(|place| place.work.is_some());
        let is_best = |place: &Option<Place>| {
            place.is_some_and(|place| best.is_some_and(|best| best.hash == place.hash))
        };
        // Whoever was elsewhere than the best place may be the best one now: the others have been elsewhere than
        // that for as long.
        let at_best = self.sources.iter().zip(&places).filter(|(_, place)| is_best(place));
        let since = at_best.filter_map(|(source, _)| source.apart).min().unwrap_or(now);
        for (source, place) in self.sources.iter_mut().zip(&places) {
            let worse = place.is_some_and(|place| best.is_some_and(|best| is_better(&best, &place, by_work)));
            let apart = place.is_some() && !is_best(place);
            source.worse = worse.then(|| source.worse.unwrap_or(now));
            source.apart = apart.then(|| source.apart.unwrap_or(since));
        }
        for index in 0..self.sources.len() {
            let source = self.sources[index];
            self.sources[index].good = self.can_lead(&source, now).then(|| source.good.unwrap_or(now));
        }
    }

    fn can_lead(&self, source: &Source, now: Instant) -> bool {
        source.usable && !source.silent && !self.has_passed(source.worse, now)
    }

    fn choose(&mut self, now: Instant) -> Option<Step> {
        // Who leads may be a moment late with a block; who takes the lead may not.
        let good = |index: &usize| {
            let source = &self.sources[*index];
            source.good.filter(|_| self.lead == Some(*index) || source.worse.is_none())
        };
        let (to, why) = match self.lead.filter(|lead| good(lead).is_some()) {
            Some(lead) => {
                let back =
                    |index: &usize| good(index).is_some_and(|since| now >= since + self.rules.return_after);
                ((0..lead).find(back)?, Reason::SourceReturned)
            }
            None => {
                let waited_for = |index: &usize| self.start.is_some() && !self.sources[*index].heard;
                let first = (0..self.sources.len()).find(|index| good(index).is_some() || waited_for(index));
                match first.filter(|index| good(index).is_some()) {
                    Some(first) => (first, self.why_from()),
                    None => return self.end_lead(),
                }
            }
        };
        let from = self.lead.or(self.led);
        (self.lead, self.led) = (Some(to), None);
        // It led before, and nobody else meanwhile.
        let why = if from == Some(to) { Reason::SourceReturned } else { why };
        Some(Step::Lead { from, to: Some(to), why })
    }

    fn end_lead(&mut self) -> Option<Step> {
        let lead = self.lead.take()?;
        self.led = Some(lead);
        Some(Step::Lead { from: Some(lead), to: None, why: Reason::SourceMissing })
    }

    /// Why the lead goes to another.
    fn why_from(&self) -> Reason {
        match self.lead.or(self.led).map(|lead| &self.sources[lead]) {
            None => Reason::SourceChosen,
            Some(source) if source.usable && !source.silent => Reason::SourceBehind,
            Some(_) => Reason::SourceFailedOver,
        }
    }
}

fn is_better(place: &Place, than: &Place, by_work: bool) -> bool {
    if by_work { place.work > than.work } else { place.height > than.height }
}

#[cfg(test)]
#[path = "choice_tests.rs"]
mod tests;
