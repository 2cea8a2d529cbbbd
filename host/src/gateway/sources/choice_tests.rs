#![allow(clippy::unwrap_used)]
//! The rules one by one, and random sequences held to what must never happen.

use super::*;
use bitcoin::{Work, hashes::Hash};
use proptest::prelude::*;

const RULES: Rules = Rules { apart_after: Duration::from_secs(5), return_after: Duration::from_secs(30) };

/// Block `branch` at a height; work follows the height.
fn at(height: u32, branch: u8) -> Place {
    let mut hash = [branch; 32];
    hash[..4].copy_from_slice(&height.to_le_bytes());
    Place { hash: BlockHash::from_byte_array(hash), height, work: None }
}

fn template(height: u32, branch: u8) -> Said {
    Said::Template(Some(at(height, branch)))
}

struct Bench {
    choice: Choice,
    now: Instant,
}

impl Bench {
    fn new(count: usize) -> Self {
        let now = Instant::now();
        Self { choice: Choice::new(count, RULES, now), now }
    }

    /// All at the same place, the first leads.
    fn agreed(count: usize) -> Self {
        let mut bench = Self::new(count);
        for source in 0..count {
            bench.says(source, template(10, 0));
        }
        assert_eq!(bench.choice.lead(), Some(0));
        bench
    }

    fn says(&mut self, source: usize, said: Said) -> Vec<Step> {
        self.choice.on_said(self.now, source, said)
    }

    /// Time passes, and the choice is woken whenever it asked for it.
    fn wait(&mut self, seconds: u64) -> Vec<Step> {
        let end = self.now + Duration::from_secs(seconds);
        let mut steps = Vec::new();
        while let Some(next) = self.choice.deadline(self.now).filter(|next| *next <= end) {
            self.now = next;
            steps.extend(self.choice.on_time(next));
        }
        self.now = end;
        steps.extend(self.choice.on_time(end));
        steps
    }
}

fn lead(from: impl Into<Option<usize>>, to: impl Into<Option<usize>>, why: Reason) -> Step {
    Step::Lead { from: from.into(), to: to.into(), why }
}

#[test]
fn at_the_start_the_preferred_source_is_waited_for_but_not_for_ever() {
    let mut bench = Bench::new(2);
    assert_eq!(bench.says(1, template(10, 0)), []);
    assert_eq!(bench.says(0, template(10, 0)), [lead(None, 0, Reason::SourceChosen)]);
    let mut bench = Bench::new(2);
    bench.says(1, template(10, 0));
    assert_eq!(bench.wait(6), [lead(None, 1, Reason::SourceChosen)]);
    let mut bench = Bench::new(2);
    bench.says(1, template(10, 0));
    assert_eq!(
        bench.says(0, Said::Failed),
        [lead(None, 1, Reason::SourceChosen)],
        "it failed: no need to wait"
    );
}

#[test]
fn when_the_leader_fails_the_next_takes_over_at_once_and_gives_the_lead_back_after_a_while() {
    let mut bench = Bench::agreed(3);
    assert_eq!(bench.says(0, Said::Failed), [lead(0, 1, Reason::SourceFailedOver)]);
    assert_eq!(bench.says(1, Said::Failed), [lead(1, 2, Reason::SourceFailedOver)]);
    assert_eq!(bench.says(0, template(10, 0)), []);
    assert_eq!(bench.wait(29), []);
    assert_eq!(bench.wait(1), [lead(2, 0, Reason::SourceReturned)]);
}

#[test]
fn a_preferred_source_that_comes_and_goes_does_not_get_the_lead() {
    let mut bench = Bench::agreed(2);
    bench.says(0, Said::Failed);
    for _ in 0..10 {
        assert_eq!(bench.says(0, template(10, 0)), []);
        assert_eq!(bench.wait(20), []);
        assert_eq!(bench.says(0, Said::Failed), []);
    }
    assert_eq!(bench.choice.lead(), Some(1));
}

#[test]
fn being_late_with_a_block_costs_the_preferred_source_neither_lead_nor_return() {
    let mut bench = Bench::agreed(2);
    for height in 11..20 {
        assert_eq!(bench.says(1, template(height, 0)), []);
        assert_eq!(bench.wait(4), []);
        assert_eq!(bench.says(0, template(height, 0)), []);
    }
    bench.says(0, Said::Failed);
    bench.says(0, template(19, 0));
    let mut steps = Vec::new();
    for height in 20..40 {
        steps.extend(bench.says(1, template(height, 0)));
        steps.extend(bench.wait(1));
        steps.extend(bench.says(0, template(height, 0)));
        steps.extend(bench.wait(1));
    }
    assert_eq!(steps, [lead(1, 0, Reason::SourceReturned)]);
}

#[test]
fn a_leader_that_stays_behind_loses_the_lead_and_it_is_said() {
    let mut bench = Bench::agreed(2);
    assert_eq!(bench.says(1, template(11, 0)), []);
    assert_eq!(bench.wait(4), []);
    assert_eq!(bench.wait(1), [lead(0, 1, Reason::SourceBehind), Step::Disagree]);
    assert_eq!(bench.choice.condition(0, bench.now), Condition::Behind);
    assert_eq!(bench.says(0, template(11, 0)), [Step::Agree]);
    assert_eq!(bench.wait(30), [lead(1, 0, Reason::SourceReturned)]);
}

#[test]
fn two_blocks_at_one_height_are_told_and_change_nothing() {
    let mut bench = Bench::agreed(2);
    bench.says(0, template(11, 1));
    bench.says(1, template(11, 2));
    assert_eq!(bench.wait(5), [Step::Disagree]);
    assert_eq!(bench.choice.lead(), Some(0));
    assert!(bench.choice.disagree());
    assert_eq!(bench.says(1, template(12, 1)), [], "the lead is late now, for the moment");
    assert_eq!(bench.says(0, template(12, 1)), [Step::Agree]);
}

#[test]
fn a_branch_that_grows_is_a_disagreement_however_fast_it_grows() {
    let mut bench = Bench::agreed(2);
    let mut steps = Vec::new();
    for height in 11..20 {
        steps.extend(bench.says(0, template(height, 1)));
        steps.extend(bench.says(1, template(height, 2)));
        steps.extend(bench.wait(1));
    }
    assert_eq!(steps, [Step::Disagree]);
}

#[test]
fn nobody_takes_over_on_a_worse_chain_until_the_better_one_is_gone_for_good() {
    let mut bench = Bench::agreed(2);
    bench.says(0, template(11, 0));
    assert_eq!(bench.says(0, Said::Failed), [lead(0, None, Reason::SourceMissing)]);
    assert!(!bench.choice.speaks(1), "what it says of its tip is worse than what is known");
    assert_eq!(bench.wait(4), []);
    assert_eq!(bench.wait(1), [lead(0, 1, Reason::SourceFailedOver)]);
}

#[test]
fn a_source_that_is_gone_disagrees_with_nobody() {
    let mut bench = Bench::agreed(2);
    bench.says(0, template(11, 0));
    bench.wait(3);
    bench.says(0, Said::Failed);
    assert_eq!(bench.wait(4), [], "who failed a moment ago is elsewhere, and has been for long");
    assert_eq!(bench.wait(1), [lead(0, 1, Reason::SourceFailedOver)]);
}

#[test]
fn a_backup_that_catches_up_takes_over_at_once() {
    let mut bench = Bench::agreed(2);
    bench.says(0, template(11, 0));
    bench.says(0, Said::Failed);
    assert_eq!(bench.says(1, template(11, 0)), [lead(0, 1, Reason::SourceFailedOver)]);
}

#[test]
fn work_decides_where_all_say_theirs_and_height_elsewhere() {
    let with = |height, branch, work: u32| {
        let mut bytes = [0; 32];
        bytes[28..].copy_from_slice(&work.to_be_bytes());
        Said::Template(Some(Place { work: Some(Work::from_be_bytes(bytes)), ..at(height, branch) }))
    };
    let mut bench = Bench::new(2);
    bench.says(0, with(10, 1, 1_000));
    bench.says(1, with(9, 2, 2_000));
    assert_eq!(bench.wait(5), [lead(0, 1, Reason::SourceBehind), Step::Disagree]);
    let mut bench = Bench::new(2);
    bench.says(0, template(10, 1));
    bench.says(1, with(9, 2, 2_000));
    assert_eq!(bench.wait(5), [Step::Disagree], "the one without work is the higher one");
}

#[test]
fn a_source_that_is_silent_or_answers_without_templates_does_not_lead() {
    let mut bench = Bench::agreed(2);
    assert_eq!(bench.says(0, Said::Silent), [lead(0, 1, Reason::SourceFailedOver)]);
    assert!(!bench.choice.all_silent());
    bench.says(1, Said::Silent);
    assert!(bench.choice.all_silent());
    let mut bench = Bench::agreed(2);
    bench.says(0, Said::Failed);
    assert_eq!(bench.says(0, Said::Tip(at(11, 0))), []);
    assert_eq!(
        bench.wait(5),
        [lead(1, None, Reason::SourceMissing), Step::Disagree],
        "it knows a better tip"
    );
    assert!(bench.choice.speaks(0));
}

#[test]
fn one_source_alone_leads_whenever_it_has_something() {
    let mut bench = Bench::new(1);
    assert_eq!(bench.says(0, template(5, 0)), [lead(None, 0, Reason::SourceChosen)]);
    assert_eq!(bench.says(0, Said::Failed), [lead(0, None, Reason::SourceMissing)]);
    assert_eq!(bench.says(0, template(4, 0)), [lead(0, 0, Reason::SourceReturned)]);
}

#[derive(Clone, Debug)]
enum Input {
    Says(usize, Said),
    Wait(u64),
}

fn input(count: usize) -> impl Strategy<Value = Input> {
    let place = || (10u32..14, 0u8..2).prop_map(|(height, branch)| at(height, branch));
    let said = prop_oneof![
        6 => place().prop_map(|place| Said::Template(Some(place))),
        1 => Just(Said::Template(None)),
        1 => place().prop_map(Said::Tip),
        2 => Just(Said::Failed),
        1 => Just(Said::Silent),
    ];
    prop_oneof![
        3 => (0..count, said).prop_map(|(source, said)| Input::Says(source, said)),
        1 => prop_oneof![Just(0), Just(10), Just(1_000), Just(4_999), Just(5_000), Just(31_000)].prop_map(Input::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_lead_is_with_a_source_that_can_lead(
        count in 1usize..5,
        inputs in prop::collection::vec(input(4), 0..60),
    ) {
        let mut bench = Bench::new(count);
        let mut since = vec![None; count]; // since when each has been good, by what was said
        for input in inputs {
            let before = bench.choice.lead();
            let steps = match input {
                Input::Says(source, _) if source >= count => continue,
                Input::Says(source, said) => bench.says(source, said),
                Input::Wait(millis) => {
                    bench.now += Duration::from_millis(millis);
                    bench.choice.on_time(bench.now)
                }
            };
            let (now, choice) = (bench.now, &bench.choice);
            let is_good = |source: usize| choice.condition(source, now) == Condition::Good;
            if let Some(lead) = choice.lead() {
                prop_assert!(is_good(lead), "{choice:?}");
            }
            // Somebody leads whenever somebody is as good as any, and there is nobody to wait for.
            let can = |source: usize| is_good(source) && choice.sources[source].worse.is_none();
            if choice.start.is_none() && (0..count).any(can) {
                prop_assert!(choice.lead().is_some(), "{choice:?}");
            }
            // A leader that can go on is replaced by a preferred one that has been good for long alone.
            if let (Some(old), Some(new)) = (before, choice.lead())
                && old != new && is_good(old)
            {
                prop_assert!(new < old);
                let good: Option<Instant> = since[new];
                prop_assert!(good.is_some_and(|good| now >= good + RULES.return_after));
            }
            for (source, since) in since.iter_mut().enumerate() {
                *since = is_good(source).then(|| since.unwrap_or(now));
            }
            // Nobody wakes it at once again, and what was decided is decided.
            prop_assert!(choice.deadline(now).is_none_or(|at| at > now));
            let (lead, said) = (choice.lead(), steps.len());
            let again = bench.choice.on_time(now);
            prop_assert!(again.is_empty(), "after {said} steps with {lead:?}: {again:?}");
        }
    }
}
