//! What judging one share costs, beside the reference implementation, in one run.
//!
//! Both get the same work: a template with the same merkle path, a target that every hash meets, shares
//! that differ in their nonce (and, on the extended channel, in their extranonce). Both look the job up,
//! hash, compare and remember the share. They take turns in the same loop, so that whatever else the machine
//! does hits both alike; read the ratios.
//!
//! `channels_sv2` is used the way a pool uses it: a channel of its own, one template, one SetNewPrevHash.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use bitcoin::{CompactTarget, Target, TxOut, hashes::Hash};
use channels_sv2::{
    extranonce_manager::ExtranonceAllocator,
    server::{extended::ExtendedChannel, standard::StandardChannel},
};
use mining_sv2::{SubmitSharesExtendedOwned, SubmitSharesStandardOwned};
use reservegrid::{
    gate::{Action, Gate, Mode, Timings},
    job::Job,
    miner::{Channel, Kind, Places, Request, Terms},
    policy::Verdict,
    share::{Submission, target},
    template::{
        TemplateSource,
        chain::{EmbeddedChain, EmbeddedConfig},
    },
};
use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};
use template_distribution_sv2::{NewTemplate, NewTemplateOwned, SetNewPrevHash, SetNewPrevHashOwned};

/// Shares between two looks at the clock.
const PER_SAMPLE: u32 = 250;
/// Of each contender on each kind of channel; fewer than either remembers.
const SAMPLES: u32 = 200;
/// Run before measuring.
const WARM_UP: usize = 10;
const ROLLED: usize = 12;

/// A job of the embedded chain, which a gate in observe mode let through.
fn job() -> Arc<Job> {
    let config = EmbeddedConfig {
        // One of 2^32 hashes solves a block, so that none does by accident.
        bits: CompactTarget::from_consensus(0x1d00_ffff),
        transactions_per_template: 3_000,
        ..EmbeddedConfig::default()
    };
    let (now, hour) = (Instant::now(), Duration::from_secs(3600));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let source = EmbeddedChain::new(config).unwrap();
    let template = runtime.block_on(source.next_template(None, hour)).unwrap().unwrap().template;
    let mut gate = Gate::new(
        Mode::Observe,
        Timings { verdict_timeout: hour, hold_timeout: hour, coinbase_only_after: None },
        now,
    );
    let mut actions = gate.on_template(now, template.clone());
    actions.extend(gate.on_verdict(now, template.digest, &Verdict::accept()));
    let released = actions.into_iter().find_map(|action| match action {
        Action::Release { template, .. } => Some(template),
        _ => None,
    });
    Arc::new(Job::new(released.unwrap(), 1).unwrap())
}

fn ours(kind: Kind, job: &Arc<Job>, ntime: u32) -> Channel {
    let request =
        Request { kind, user_identity: "alice".into(), nominal_hashrate: 0.0, max_target: target::easiest() };
    let terms = Terms { shares_per_minute: 60_000.0, easiest: target::easiest(), vardiff: false };
    let place = Places::default().take(1).unwrap();
    let mut channel = Channel::open(2, [7; 8], request, terms, Some(job), place, Instant::now());
    channel.add_job(1, job, ntime);
    channel
}

/// The template as `channels_sv2` takes it, with the same path and about as long a coinbase.
fn their_template(job: &Job) -> NewTemplateOwned {
    let path = job.template.facts.merkle_path.iter().map(|sibling| sibling.into()).collect();
    let commitment = [&[0; 8][..], &[38, 0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed], &[5; 32]].concat();
    NewTemplate {
        template_id: 1,
        future_template: true,
        version: job.template.version.to_consensus().cast_unsigned(),
        coinbase_tx_version: 2,
        coinbase_prefix: (&[3u8, 1, 2, 3][..]).try_into().unwrap(),
        coinbase_tx_input_sequence: u32::MAX,
        coinbase_tx_value_remaining: job.template.coinbase_value,
        coinbase_tx_outputs_count: 1,
        coinbase_tx_outputs: commitment.as_slice().try_into().unwrap(),
        coinbase_tx_locktime: 0,
        merkle_path: binary_sv2::Seq0255::new(path).unwrap(),
    }
    .into_owned()
}

fn their_tip(job: &Job, ntime: u32) -> SetNewPrevHashOwned {
    SetNewPrevHash {
        template_id: 1,
        prev_hash: job.template.previous_block_hash.as_byte_array().into(),
        header_timestamp: ntime,
        n_bits: job.template.bits.to_consensus(),
        target: (&job.network_target.to_le_bytes()).into(),
    }
    .into_owned()
}

fn reward(job: &Job) -> Vec<TxOut> {
    let script_pubkey = bitcoin::ScriptBuf::from_bytes([&[0, 20][..], &[9; 20]].concat());
    vec![TxOut { value: bitcoin::Amount::from_sat(job.template.coinbase_value), script_pubkey }]
}

/// Runs both on the same shares; who goes first alternates.
fn duel(work: &str, mut ours: impl FnMut(u32), mut theirs: impl FnMut(u32)) {
    let (mut our_samples, mut their_samples) = (Vec::new(), Vec::new());
    for sample in 0..SAMPLES {
        let nonces = sample * PER_SAMPLE..(sample + 1) * PER_SAMPLE;
        let time = |judge: &mut dyn FnMut(u32)| {
            let begin = Instant::now();
            nonces.clone().for_each(&mut *judge);
            begin.elapsed().as_nanos() as f64 / f64::from(PER_SAMPLE)
        };
        if sample % 2 == 0 {
            our_samples.push(time(&mut ours));
            their_samples.push(time(&mut theirs));
        } else {
            their_samples.push(time(&mut theirs));
            our_samples.push(time(&mut ours));
        }
    }
    let median = |mut samples: Vec<f64>| {
        samples.drain(..WARM_UP);
        samples.sort_by(f64::total_cmp);
        samples[samples.len() / 2] / 1_000.0
    };
    let (ours, theirs) = (median(our_samples), median(their_samples));
    println!("{work:<34} median  {ours:>9.2} µs {theirs:>9.2} µs {:>7.2}x", theirs / ours);
}

fn main() {
    let job = job();
    let ntime = job.template.current_time.max(job.template.min_time);
    let version = job.template.version.to_consensus().cast_unsigned();
    let (template, tip, reward) = (their_template(&job), their_tip(&job, ntime), reward(&job));
    let mut prefixes = ExtranonceAllocator::new(vec![1], 20, 1_000).unwrap();
    let easiest = Target::from_le_bytes([0xff; 32]);
    println!("{:<34} {:<7} {:>12} {:>12} {:>8}", "a valid share", "", "ours", "channels_sv2", "ratio");

    let mut mine = ours(Kind::Standard, &job, ntime);
    let prefix = prefixes.allocate_standard().unwrap();
    let mut standard = StandardChannel::new_for_pool(
        2,
        "alice".into(),
        prefix,
        easiest,
        1.0,
        1_000_000,
        60_000.0,
        "pool".into(),
        None,
    )
    .unwrap();
    standard.set_target(easiest).unwrap();
    standard.on_new_template(template.clone(), reward.clone()).unwrap();
    standard.on_set_new_prev_hash(tip.clone()).unwrap();
    let job_id = standard.get_active_job().unwrap().get_job_id();
    duel(
        "standard channel",
        |nonce| {
            let submission = Submission { nonce, ntime, version };
            let share = mine.submit(1, black_box(submission), None, ntime).unwrap();
            mine.accepted(&share);
        },
        |nonce| {
            let share = SubmitSharesStandardOwned {
                channel_id: 2,
                sequence_number: nonce,
                job_id,
                nonce,
                ntime,
                version,
            };
            drop(standard.validate_share(black_box(share)).unwrap());
        },
    );

    let mut mine = ours(Kind::Extended, &job, ntime);
    let prefix = prefixes.allocate_extended(ROLLED).unwrap();
    let rollable = 20 - prefix.as_bytes().len();
    let mut extended = ExtendedChannel::new_for_pool(
        3,
        "alice".into(),
        prefix,
        easiest,
        1.0,
        true,
        rollable as u16,
        1_000_000,
        60_000.0,
        "pool".into(),
        None,
    )
    .unwrap();
    extended.set_target(easiest).unwrap();
    extended.on_new_template(template, reward).unwrap();
    extended.on_set_new_prev_hash(tip).unwrap();
    let job_id = extended.get_active_job().unwrap().get_job_id();
    duel(
        "extended channel",
        |nonce| {
            let mut rolled = [0; ROLLED];
            rolled[..4].copy_from_slice(&nonce.to_le_bytes());
            let submission = Submission { nonce, ntime, version };
            let share = mine.submit(1, black_box(submission), Some(&rolled), ntime).unwrap();
            mine.accepted(&share);
        },
        |nonce| {
            let mut rolled = vec![0; rollable];
            rolled[..4].copy_from_slice(&nonce.to_le_bytes());
            let share = SubmitSharesExtendedOwned {
                channel_id: 3,
                sequence_number: nonce,
                job_id,
                nonce,
                ntime,
                version,
                extranonce: rolled.try_into().unwrap(),
            };
            drop(extended.validate_share(black_box(share)).unwrap());
        },
    );
}
