//! Sessions without sockets: frames go in, what comes out is opened and read; the clock is the test's.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::{
    ledger::Ack,
    miner::{
        Limits,
        testing::{Chain, Surroundings, limits},
    },
    noise::{AuthoritySecretKey, Identity, Initiator, respond},
    sv2::{FrameDecoder, Header, Side},
};
use bitcoin::{BlockHash, hashes::Hash};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// A session, and the peer's view of what it says.
struct Bench {
    session: Session,
    out: Outbox,
    decoder: FrameDecoder,
    now: Instant,
    _acks: mpsc::Receiver<Ack>,
    _surroundings: Surroundings,
}

impl Bench {
    /// A session that is set up with these flags.
    fn new(limits: Limits, work: &Work, flags: u8) -> Self {
        let (work_sender, work_seen) = watch::channel(work.clone());
        drop(work_sender);
        let surroundings = Surroundings::new(limits, work_seen);
        let identity = Identity::issue(&AuthoritySecretKey::generate(), 1_000, Duration::from_secs(3600));
        let (initiator, act1) = Initiator::start(None).unwrap();
        let (act2, server) = respond(&identity, &act1).unwrap();
        let peer = initiator.finish(&act2, 1_000).unwrap();
        let (acks, answered) = mpsc::channel(256);
        let now = Instant::now();
        let seat = surroundings.shared.view.enter(1, ([127, 0, 0, 1], 4_000).into());
        let mut bench = Self {
            session: Session::new(1, surroundings.shared.clone(), acks, work.clone(), now, seat),
            out: Outbox::new(server.split().0),
            decoder: FrameDecoder::new(peer.split().1, Side::Server),
            now,
            _acks: answered,
            _surroundings: surroundings,
        };
        // Protocol, versions, flags, host, port, and four empty texts.
        let setup = [0, 2, 0, 2, 0, flags, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(bench.say(0x00, &setup), [0x01]);
        bench
    }

    /// Gives the types of the messages that the session answers with.
    fn say(&mut self, msg_type: u8, payload: &[u8]) -> Vec<u8> {
        let header = Header { extension: 0, channel_msg: false, msg_type, length: payload.len() };
        let mut frame = Frame { header, payload: payload.to_vec() };
        self.session.on_frame(&mut frame, self.now, &mut self.out).unwrap();
        types(&self.heard())
    }

    fn heard(&mut self) -> Vec<Frame> {
        self.decoder.push(&std::mem::take(&mut self.out.bytes));
        std::iter::from_fn(|| self.decoder.next_frame().unwrap()).collect()
    }

    /// Opens a channel of no said hash rate whose every hash is a share.
    fn open(&mut self, msg_type: u8) -> Vec<u8> {
        let mut payload = [&[1, 0, 0, 0, 5][..], b"alice", &[0; 4], &[0xff; 32]].concat();
        if msg_type == 0x13 {
            payload.extend([4, 0]);
        }
        self.say(msg_type, &payload)
    }
}

fn types(frames: &[Frame]) -> Vec<u8> {
    frames.iter().map(|frame| frame.header.msg_type).collect()
}

fn u32_at(frame: &Frame, at: usize) -> u32 {
    u32::from_le_bytes(frame.payload[at..at + 4].try_into().unwrap())
}

fn released(job: Arc<crate::job::Job>) -> Work {
    Work { job: Some(job), ..Work::default() }
}

#[tokio::test]
async fn a_group_is_told_once_and_channels_of_standard_jobs_each() {
    let mut chain = Chain::new();
    let first = chain.job().await;
    let same_tip = chain.again();
    chain.solve(&first).await;
    let next_tip = chain.job().await;

    let mut proxy = Bench::new(limits(), &released(first.clone()), 0);
    for _ in 0..3 {
        assert_eq!(proxy.open(0x10), [0x11, 0x15, 0x20]);
        assert_eq!(proxy.open(0x13), [0x14, 0x1f, 0x20]);
    }
    proxy.session.on_work(released(same_tip.clone()), &mut proxy.out).unwrap();
    let heard = proxy.heard();
    assert_eq!(types(&heard), [0x1f]);
    assert_eq!(u32_at(&heard[0], 0), GROUP_CHANNEL_ID);
    proxy.session.on_work(released(next_tip.clone()), &mut proxy.out).unwrap();
    let heard = proxy.heard();
    assert_eq!(types(&heard), [0x1f, 0x20]);
    assert_eq!((u32_at(&heard[1], 0), u32_at(&heard[1], 4)), (GROUP_CHANNEL_ID, u32_at(&heard[0], 4)));
    // The same work again is no news.
    proxy.session.on_work(released(next_tip.clone()), &mut proxy.out).unwrap();
    assert!(proxy.heard().is_empty());

    let mut farm = Bench::new(limits(), &released(first.clone()), 0b001);
    assert_eq!((farm.open(0x10), farm.open(0x10)), (vec![0x11, 0x15, 0x20], vec![0x11, 0x15, 0x20]));
    assert_eq!(farm.open(0x13), [0x12]);
    farm.session.on_work(released(same_tip), &mut farm.out).unwrap();
    assert_eq!(types(&farm.heard()), [0x15, 0x15]);
    farm.session.on_work(released(next_tip.clone()), &mut farm.out).unwrap();
    assert_eq!(types(&farm.heard()), [0x15, 0x20, 0x15, 0x20]);

    let mut declarer = Bench::new(limits(), &released(first), 0b010);
    assert_eq!((declarer.open(0x13), declarer.open(0x10)), (vec![0x14], vec![0x12]));
    declarer.session.on_work(released(next_tip), &mut declarer.out).unwrap();
    assert!(declarer.heard().is_empty());
}

#[tokio::test]
async fn job_ids_of_channels_and_group_never_meet() {
    let mut chain = Chain::new();
    let first = chain.job().await;
    let mut proxy = Bench::new(limits(), &released(first.clone()), 0);
    let mut ids = Vec::new();
    for _ in 0..3 {
        let header = Header { extension: 0, channel_msg: false, msg_type: 0x13, length: 0 };
        let payload = [&[1, 0, 0, 0, 1, b'a'][..], &[0; 4], &[0xff; 32], &[4, 0]].concat();
        proxy.session.on_frame(&mut Frame { header, payload }, proxy.now, &mut proxy.out).unwrap();
        let job = chain.again();
        proxy.session.on_work(released(job), &mut proxy.out).unwrap();
        let heard = proxy.heard();
        assert_eq!(types(&heard), [0x14, 0x1f, 0x20, 0x1f]);
        ids.extend([u32_at(&heard[1], 4), u32_at(&heard[3], 4)]);
    }
    assert_eq!(ids, [1, 2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn answers_that_come_together_are_one_success_up_to_the_length_of_a_batch() {
    let mut chain = Chain::new();
    let job = chain.job().await;
    let mut bench = Bench::new(limits(), &released(job), 0);
    bench.open(0x10);
    bench.open(0x13);
    let (standard, extended) = (2, 3);
    let ack = |channel_id, sequence_number, recorded| Ack {
        channel_id,
        sequence_number,
        hash: BlockHash::all_zeros(),
        difficulty: 2.5,
        recorded,
    };
    let mut acks = Vec::new();
    for number in 0..6 {
        acks.extend([ack(standard, number, Ok(())), ack(extended, 100 + number, Ok(()))]);
    }
    acks.insert(3, ack(extended, 777, Err(Reason::ShareLedgerFull)));
    bench.session.on_acks(acks, &mut bench.out).unwrap();
    let heard = bench.heard();
    let of = |channel: u32, msg_type: u8| -> Vec<[u32; 3]> {
        let of = heard.iter().filter(|f| f.header.msg_type == msg_type && u32_at(f, 0) == channel);
        of.map(|f| {
            [
                u32_at(f, 4),
                if msg_type == 0x1c { u32_at(f, 8) } else { 0 },
                if msg_type == 0x1c { u32_at(f, 12) } else { 0 },
            ]
        })
        .collect()
    };
    // Last sequence number, count, sum of difficulties.
    assert_eq!(of(standard, 0x1c), [0, 1, 2, 3, 4, 5].map(|number| [number, 1, 2]));
    assert_eq!(of(extended, 0x1c), [[103, 4, 8], [105, 2, 4]]);
    assert_eq!(of(extended, 0x1d), [[777, 0, 0]]);
    // An error does not wait for the batch before it.
    assert_eq!(heard[1].header.msg_type, 0x1c);
    assert_eq!(heard[2].header.msg_type, 0x1d);
}

#[tokio::test]
async fn a_channel_that_fell_silent_gets_an_easier_target_and_a_fresh_job_unless_work_is_held() {
    let mut chain = Chain::new();
    let job = chain.job().await;
    let mut bench = Bench::new(limits(), &released(job.clone()), 0);
    bench.open(0x10);
    // A hash rate that is not there: UpdateChannel with 10 kH/s.
    let update = [&2u32.to_le_bytes()[..], &1e4f32.to_le_bytes(), &[0xff; 32]].concat();
    assert_eq!(bench.say(0x16, &update), [0x21]);
    bench.session.on_tick(bench.now + Duration::from_secs(30), &mut bench.out).unwrap();
    assert!(bench.heard().is_empty(), "half a minute may be chance");
    bench.session.on_tick(bench.now + Duration::from_secs(90), &mut bench.out).unwrap();
    let heard = bench.heard();
    assert_eq!(types(&heard), [0x21, 0x15]);
    // Active at once, with a time of its own: OPTION is 1, and then min_ntime.
    let first = first_ntime(&job);
    assert_eq!(heard[1].payload[8], 1);
    assert!(u32_at(&heard[1], 9) > first, "{} is not after {first}", u32_at(&heard[1], 9));

    bench.session.on_work(Work { held: true, ..released(job) }, &mut bench.out).unwrap();
    assert!(bench.heard().is_empty());
    bench.session.on_tick(bench.now + Duration::from_secs(300), &mut bench.out).unwrap();
    assert_eq!(types(&bench.heard()), [0x21], "an old tip is not handed out again");
}

#[tokio::test]
async fn a_peer_that_is_refused_more_often_than_it_may_is_tiresome_until_time_has_passed() {
    let mut chain = Chain::new();
    let job = chain.job().await;
    let patience = Limits { max_refusals_per_second: 1, ..limits() };
    let mut bench = Bench::new(patience, &released(job), 0);
    bench.open(0x10);
    // A share of no job, an update of no channel, a channel that is closed twice, an unknown extension.
    let share = [2u32, 1, 999, 0, 0, 0].map(u32::to_le_bytes).concat();
    let update = [&9u32.to_le_bytes()[..], &0f32.to_le_bytes(), &[0xff; 32]].concat();
    let close = [&9u32.to_le_bytes()[..], &[0]].concat();
    // Fifty seconds of it at once.
    for _ in 0..12 {
        assert_eq!(bench.say(0x1a, &share), [0x1d]);
        assert_eq!(bench.say(0x16, &update), [0x17]);
        assert!(bench.say(0x18, &close).is_empty());
        let header = Header { extension: 0x4000, channel_msg: false, msg_type: 1, length: 0 };
        let mut strange = Frame { header, payload: Vec::new() };
        bench.session.on_frame(&mut strange, bench.now, &mut bench.out).unwrap();
        assert!(!bench.session.is_tiresome());
    }
    assert_eq!((bench.say(0x1a, &share), bench.say(0x1a, &share)), (vec![0x1d], vec![0x1d]));
    assert!(!bench.session.is_tiresome());
    assert_eq!(bench.say(0x1a, &share), [0x1d], "it still hears why");
    assert!(bench.session.is_tiresome());
    assert!(!bench.session.is_tiresome(), "forgiven until the next one");
    bench.now += Duration::from_secs(1);
    assert_eq!(bench.say(0x16, &update), [0x17]);
    assert!(!bench.session.is_tiresome());
    assert_eq!(bench.say(0x16, &update), [0x17]);
    assert!(bench.session.is_tiresome());
}

fn withdrawn(job: &Arc<crate::job::Job>) -> Work {
    Work { held: true, withdrawn: true, ..released(job.clone()) }
}

#[tokio::test]
async fn work_that_was_taken_back_is_given_to_no_new_channel_unless_it_is_good_after_all() {
    let mut chain = Chain::new();
    let first = chain.job().await;
    let other = chain.again();

    let mut proxy = Bench::new(limits(), &released(first.clone()), 0);
    assert_eq!(proxy.open(0x13), [0x14, 0x1f, 0x20]);
    proxy.session.on_work(withdrawn(&first), &mut proxy.out).unwrap();
    assert_eq!((proxy.open(0x13), proxy.open(0x10)), (vec![0x14], vec![0x11]));
    // Who connects now is in the same place.
    let mut late = Bench::new(limits(), &withdrawn(&first), 0);
    assert_eq!((late.open(0x13), late.open(0x10)), (vec![0x14], vec![0x11]));
    // Who did not hear of the work before it was taken back never does.
    let mut slow = Bench::new(limits(), &Work::default(), 0);
    assert_eq!(slow.open(0x13), [0x14]);
    slow.session.on_work(withdrawn(&first), &mut slow.out).unwrap();
    assert!(slow.heard().is_empty());

    // It is good after all: for those that lack it.
    for (bench, news) in [
        (&mut proxy, vec![0x1f, 0x20, 0x15, 0x20]),
        (&mut late, vec![0x1f, 0x20, 0x15, 0x20]),
        (&mut slow, vec![0x1f, 0x20]),
    ] {
        bench.session.on_work(released(first.clone()), &mut bench.out).unwrap();
        assert_eq!(types(&bench.heard()), news);
        bench.session.on_work(released(other.clone()), &mut bench.out).unwrap();
        assert_eq!(types(&bench.heard()), [0x1f], "from here on they are one group");
    }
}

#[tokio::test]
async fn work_in_place_of_what_was_taken_back_comes_with_its_tip_to_those_that_had_none() {
    let mut chain = Chain::new();
    let first = chain.job().await;
    let other = chain.again();
    let mut proxy = Bench::new(limits(), &released(first.clone()), 0);
    assert_eq!(proxy.open(0x13), [0x14, 0x1f, 0x20]);
    proxy.session.on_work(withdrawn(&first), &mut proxy.out).unwrap();
    assert_eq!(proxy.open(0x13), [0x14]);
    proxy.session.on_work(released(other.clone()), &mut proxy.out).unwrap();
    let heard = proxy.heard();
    assert_eq!(types(&heard), [0x1f, 0x1f, 0x20], "a job, and a job with its tip");
    assert_eq!(u32_at(&heard[1], 0), u32_at(&heard[2], 0), "both to the new channel");
    assert_ne!(u32_at(&heard[0], 0), u32_at(&heard[1], 0));

    // A future job that comes with it is for all of them, not for the new one alone.
    let future = chain.ahead();
    let mut both = Bench::new(limits(), &released(first.clone()), 0);
    assert_eq!(both.open(0x13), [0x14, 0x1f, 0x20]);
    both.session.on_work(withdrawn(&first), &mut both.out).unwrap();
    assert_eq!(both.open(0x13), [0x14]);
    both.session.on_work(with_ahead(&first, &future), &mut both.out).unwrap();
    let heard = both.heard();
    assert_eq!(types(&heard), [0x1f, 0x20, 0x1f]);
    assert_eq!(u32_at(&heard[2], 0), GROUP_CHANNEL_ID);

    let mut late = Bench::new(limits(), &withdrawn(&first), 0);
    assert_eq!((late.open(0x13), late.open(0x13)), (vec![0x14], vec![0x14]));
    late.session.on_work(released(other), &mut late.out).unwrap();
    assert_eq!(types(&late.heard()), [0x1f, 0x20], "one group, all of it new");
}

fn with_ahead(job: &Arc<crate::job::Job>, ahead: &Arc<crate::job::Job>) -> Work {
    Work { ahead: Some(ahead.clone()), ..released(job.clone()) }
}

#[tokio::test]
async fn a_job_that_was_sent_ahead_becomes_current_with_one_message() {
    let mut chain = Chain::new();
    let first = chain.job().await;
    let future = chain.ahead();
    chain.solve(&first).await;
    let became = chain.became(&future).await;
    let full = chain.again();

    let mut proxy = Bench::new(limits(), &released(first.clone()), 0);
    assert_eq!((proxy.open(0x10), proxy.open(0x13)), (vec![0x11, 0x15, 0x20], vec![0x14, 0x1f, 0x20]));
    proxy.session.on_work(with_ahead(&first, &future), &mut proxy.out).unwrap();
    let ahead = proxy.heard();
    assert_eq!(types(&ahead), [0x1f], "one message for the group");
    assert_eq!(
        (u32_at(&ahead[0], 0), ahead[0].payload[8]),
        (GROUP_CHANNEL_ID, 0),
        "without a time: a future job"
    );
    let id = u32_at(&ahead[0], 4);
    proxy.session.on_work(with_ahead(&first, &future), &mut proxy.out).unwrap();
    assert!(proxy.heard().is_empty(), "the same once more is no news");

    // Who opens a channel between the two gets the future job under the same id.
    let mut payload = [&[1, 0, 0, 0, 5][..], b"alice", &[0; 4], &[0xff; 32], &[4, 0]].concat();
    let header = Header { extension: 0, channel_msg: false, msg_type: 0x13, length: payload.len() };
    let mut frame = Frame { header, payload: std::mem::take(&mut payload) };
    proxy.session.on_frame(&mut frame, proxy.now, &mut proxy.out).unwrap();
    let opened = proxy.heard();
    assert_eq!(types(&opened), [0x14, 0x1f, 0x20, 0x1f]);
    assert_eq!((u32_at(&opened[3], 4), opened[3].payload[8]), (id, 0));

    proxy.session.on_work(released(became.clone()), &mut proxy.out).unwrap();
    let tip = proxy.heard();
    assert_eq!(types(&tip), [0x20], "one small message");
    assert_eq!((u32_at(&tip[0], 0), u32_at(&tip[0], 4)), (GROUP_CHANNEL_ID, id));
    assert_eq!(tip[0].payload[8..40], became.previous_block_hash().to_byte_array());
    for channel in proxy.session.channels.values_mut() {
        let time = first_ntime(&became);
        let submission = Submission { nonce: 7, ntime: time, version: 0x2000_0000 };
        let rolled = (channel.kind == Kind::Extended).then_some(&[5u8; 12][..]);
        let share = channel.submit(id, submission, rolled, time).unwrap();
        assert_eq!(
            (share.job.serial, share.header.prev_blockhash),
            (became.serial, became.previous_block_hash())
        );
    }
    proxy.session.on_work(released(full), &mut proxy.out).unwrap();
    assert_eq!(types(&proxy.heard()), [0x1f], "the full template follows as a job of the same tip");

    let mut farm = Bench::new(limits(), &with_ahead(&first, &future), 0b001);
    assert_eq!(farm.open(0x10), [0x11, 0x15, 0x20, 0x15]);
    assert_eq!(farm.open(0x10), [0x11, 0x15, 0x20, 0x15]);
    farm.session.on_work(released(became), &mut farm.out).unwrap();
    assert_eq!(types(&farm.heard()), [0x20, 0x20], "one for each channel");
}

#[tokio::test]
async fn a_future_job_that_did_not_become_current_is_of_no_use_and_the_next_tip_comes_whole() {
    let mut chain = Chain::new();
    let first = chain.job().await;
    let future = chain.ahead();
    chain.solve(&first).await;
    let became = chain.became(&future).await;
    let other = chain.again();

    // It was refused meanwhile: other work comes on the tip.
    let mut refused = Bench::new(limits(), &with_ahead(&first, &future), 0);
    assert_eq!(refused.open(0x13), [0x14, 0x1f, 0x20, 0x1f]);
    refused.session.on_work(released(other.clone()), &mut refused.out).unwrap();
    assert_eq!(types(&refused.heard()), [0x1f, 0x20]);

    // It never heard of the future job.
    let mut slow = Bench::new(limits(), &released(first.clone()), 0);
    assert_eq!(slow.open(0x13), [0x14, 0x1f, 0x20]);
    slow.session.on_work(released(became), &mut slow.out).unwrap();
    assert_eq!(types(&slow.heard()), [0x1f, 0x20]);

    // Another block at the same height: the future job is still one, and is sent under the new tip again.
    let mut rival = Bench::new(limits(), &with_ahead(&first, &future), 0);
    assert_eq!(rival.open(0x13), [0x14, 0x1f, 0x20, 0x1f]);
    rival.session.on_work(with_ahead(&other, &future), &mut rival.out).unwrap();
    assert_eq!(types(&rival.heard()), [0x1f, 0x20, 0x1f]);
}
