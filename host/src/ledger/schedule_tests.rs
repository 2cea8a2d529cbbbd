//! The rules of sending, under a clock of the tests.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::{super::feed::tests::batch, *};

fn numbers(batch: &Batch) -> Vec<u64> {
    batch.shares.iter().map(|share| share.share).collect()
}

fn sent(schedule: &mut Schedule, now: Instant) -> Batch {
    match schedule.next(now) {
        Next::Send(batch) => batch,
        other => panic!("{other:?}"),
    }
}

fn no_answer() -> Outcome {
    Outcome::Unanswered("down".into(), Duration::ZERO)
}

fn yes(batch: &Batch) -> Outcome {
    let verdict = |share: &super::super::feed::Pending| Verdict {
        share: share.clone(),
        accepted: true,
        detail: String::new(),
    };
    Outcome::Answered { verdicts: batch.shares.iter().map(verdict).collect(), rest: Vec::new() }
}

#[test]
fn several_are_on_their_way_at_once_and_no_more_than_allowed() {
    let (mut schedule, now) = (Schedule::new(2), Instant::now());
    for number in 1..=3 {
        schedule.fresh(now, batch([number]));
    }
    let first = sent(&mut schedule, now);
    sent(&mut schedule, now);
    assert!(matches!(schedule.next(now), Next::Wait(None)));
    let outcome = yes(&first);
    assert_eq!(schedule.outcome(now, first, outcome, 0.0).verdicts.len(), 1);
    assert_eq!(numbers(&sent(&mut schedule, now)), [3]);
}

#[test]
fn while_the_backend_is_down_one_batch_probes_it_ever_later() {
    let (mut schedule, mut now) = (Schedule::new(4), Instant::now());
    for number in 0..3 {
        schedule.fresh(now, batch(number * 8..number * 8 + 8));
    }
    let on_their_way: Vec<_> = (0..3).map(|_| sent(&mut schedule, now)).collect();
    for batch in on_their_way {
        let effects = schedule.outcome(now, batch, no_answer(), 1.0);
        assert_eq!(effects.status.unwrap().0, Reason::ForwardRetrying);
    }
    let mut waits = Vec::new();
    for _ in 0..10 {
        let Next::Wait(Some(until)) = schedule.next(now) else { panic!("it does not wait") };
        waits.push((until - now).as_millis());
        now = until;
        let probe = sent(&mut schedule, now);
        assert!(matches!(schedule.next(now), Next::Wait(None)), "one probe at a time");
        schedule.outcome(now, probe, no_answer(), 1.0);
    }
    assert_eq!(waits, [200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000]);
}

#[test]
fn jitter_takes_up_to_half_of_a_wait_and_retry_after_is_honoured() {
    for (jitter, patience, wait) in [(0.0, 0, 100), (0.5, 0, 150), (0.0, 7_000, 7_000)] {
        let (mut schedule, now) = (Schedule::new(1), Instant::now());
        schedule.fresh(now, batch([1]));
        let sent = sent(&mut schedule, now);
        let outcome = Outcome::Unanswered("429".into(), Duration::from_millis(patience));
        schedule.outcome(now, sent, outcome, jitter);
        let Next::Wait(Some(until)) = schedule.next(now) else { panic!("it does not wait") };
        assert_eq!((until - now).as_millis(), wait);
    }
}

#[test]
fn a_share_the_backend_stumbles_over_is_found_and_the_others_are_delivered() {
    let (mut schedule, mut now) = (Schedule::new(4), Instant::now());
    schedule.fresh(now, batch(0..64));
    let mut delivered = Vec::new();
    for _ in 0..60 {
        let batch = match schedule.next(now) {
            Next::Send(batch) => batch,
            Next::Wait(until) | Next::Fresh(until) => {
                now = until.unwrap();
                continue;
            }
        };
        let outcome = if numbers(&batch).contains(&37) { no_answer() } else { yes(&batch) };
        delivered.extend(schedule.outcome(now, batch, outcome, 0.5).verdicts);
    }
    let mut numbers: Vec<_> = delivered.iter().map(|verdict| verdict.share.share).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..64).filter(|number| *number != 37).collect::<Vec<_>>());
}

#[test]
fn a_final_refusal_is_narrowed_down_to_the_share_it_is_about() {
    let (mut schedule, now) = (Schedule::new(1), Instant::now());
    schedule.fresh(now, batch(0..64));
    let mut verdicts = Vec::new();
    while !schedule.is_idle() {
        let batch = sent(&mut schedule, now);
        let outcome =
            if numbers(&batch).contains(&37) { Outcome::Refused("422: no".into()) } else { yes(&batch) };
        verdicts.extend(schedule.outcome(now, batch, outcome, 0.5).verdicts);
    }
    assert_eq!(verdicts.len(), 64);
    let refused: Vec<_> = verdicts.iter().filter(|verdict| !verdict.accepted).collect();
    assert_eq!(refused.len(), 1);
    assert_eq!((refused[0].share.share, refused[0].detail.as_str()), (37, "422: no"));
}

#[test]
fn what_an_answer_leaves_out_is_sent_again_by_itself_later_each_time() {
    let (mut schedule, mut now) = (Schedule::new(2), Instant::now());
    schedule.fresh(now, batch([1, 2]));
    let mut waits = Vec::new();
    for _ in 0..3 {
        let batch = sent(&mut schedule, now);
        let (named, rest): (Vec<_>, Vec<_>) =
            batch.shares.iter().cloned().partition(|share| share.share == 1);
        let verdicts =
            named.into_iter().map(|share| Verdict { share, accepted: true, detail: String::new() }).collect();
        schedule.outcome(now, batch, Outcome::Answered { verdicts, rest }, 1.0);
        // Others go on.
        let Next::Fresh(Some(until)) = schedule.next(now) else { panic!("nothing fresh is taken") };
        waits.push((until - now).as_millis());
        now = until;
    }
    assert_eq!(waits, [400, 800, 1_600]);
    assert_eq!(numbers(&sent(&mut schedule, now)), [2]);
}

#[test]
fn with_much_to_send_again_nothing_fresh_is_taken() {
    let (mut schedule, now) = (Schedule::new(1), Instant::now());
    for number in 0..MAX_AGAIN as u64 {
        schedule.fresh(now, batch([number]));
        let batch = sent(&mut schedule, now);
        let rest = batch.shares.clone();
        schedule.outcome(now, batch, Outcome::Answered { verdicts: Vec::new(), rest }, 1.0);
    }
    assert!(matches!(schedule.next(now), Next::Wait(Some(_))));
}
