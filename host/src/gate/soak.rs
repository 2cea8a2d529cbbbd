#![allow(clippy::unwrap_used, clippy::expect_used)]
//! The gate under random sequences of everything, watched by somebody who knows only what was said.
//!
//! The watcher sees what goes into the gate and what comes out, and holds it to its promises after each step:
//! - work that leaves is on the newest tip, and in inline mode it was accepted, for itself or as the future
//!   template that it became;
//! - nobody stays on old, refused or withdrawn work for longer than the hold;
//! - a verdict on something that was never given changes nothing;
//! - while the gate says that it follows, miners have good work; and it never asks to be woken at once again;
//! - one admitted template brings it back, from wherever it is.
//!
//! A sequence follows from its number, so a failure is found again; it is told with the steps that matter.
//! `RESERVEGRID_GATE_SEQUENCES` says how many (`make gate-soak`: two million).

use super::{Action, Gate, Mode, Phase, Timings};
use crate::{
    policy::Verdict,
    reason::Reason,
    template::{
        CoinbaseParts, CoinbaseSpec, Context, Declared, NextBlock, Provenance, Template, TemplateDigest,
        coinbase_only::CoinbaseOnly, facts::assemble, future_tip,
    },
};
use bitcoin::{BlockHash, CompactTarget, Network, ScriptBuf, block::Version, hashes::Hash};
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

const VERDICT: Duration = Duration::from_millis(50);
const HOLD: Duration = Duration::from_secs(5);
const AFTER: Duration = Duration::from_secs(1);
/// Tips that come and go. Two follow on one another, two are rivals at one height.
const HEIGHTS: [u32; 4] = [101, 102, 102, 103];
/// Templates of the source on each tip.
const EACH: usize = 4;
/// Sequences in an ordinary run of the tests.
const SEQUENCES: u64 = 30_000;
/// Clock steps, milliseconds: nothing, around both timeouts and the moment of the fallback, and a laptop's sleep.
const WAITS: [u64; 14] = [0, 1, 10, 49, 50, 51, 100, 949, 1_000, 1_051, 4_950, 4_999, 5_001, 8 * 3_600_000];

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The source gives a template, of whatever tip.
    Template {
        tip: usize,
        which: usize,
    },
    /// The source names its tip alone.
    Tip {
        tip: usize,
    },
    /// Two tips take turns, ten times a second or faster than verdicts come, with a template each time.
    Flips {
        tips: [usize; 2],
        count: usize,
        ms: u64,
    },
    /// A verdict on one of the newest templates, its first or not; a full pool is a refusal as well.
    Verdict {
        back: usize,
        accept: bool,
    },
    /// A verdict on something that nobody gave.
    Stranger {
        accept: bool,
    },
    /// Other policies: they are asked again about everything that the gate says matters.
    Swap {
        accepts: u8,
    },
    Wait {
        ms: u64,
    },
    Mode {
        inline: bool,
    },
    /// The source is silent.
    Stale,
    /// A template for the next tip.
    Future {
        which: usize,
    },
    /// A template without transactions arrives, asked for or not.
    CoinbaseOnly {
        tip: usize,
    },
}

/// Deterministic and quick (splitmix64); how good the numbers are does not matter.
struct Dice(u64);

impl Dice {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % below as u64) as usize
    }

    fn coin(&mut self) -> bool {
        self.next(2) == 0
    }

    fn step(&mut self) -> Step {
        let tip = self.next(HEIGHTS.len());
        match self.next(24) {
            0..=4 => Step::Template { tip, which: self.next(EACH) },
            5 => Step::Tip { tip },
            6 => {
                let (tips, ms) = ([tip, self.next(HEIGHTS.len())], [20, 49, 100][self.next(3)]);
                Step::Flips { tips, count: self.next(12), ms }
            }
            7..=12 => Step::Verdict { back: self.next(6), accept: self.coin() },
            13 => Step::Stranger { accept: self.coin() },
            14 => Step::Swap { accepts: self.next(256) as u8 },
            15..=18 => Step::Wait { ms: WAITS[self.next(WAITS.len())] },
            19 => Step::Mode { inline: self.coin() },
            20 => Step::Stale,
            21 | 22 => Step::Future { which: self.next(8) },
            _ => Step::CoinbaseOnly { tip },
        }
    }

    fn steps(number: u64) -> Vec<Step> {
        let mut dice = Self(number.wrapping_mul(0xd1b5_4a32_d192_ed03));
        let count = 1 + dice.next(60);
        (0..count).map(|_| dice.step()).collect()
    }
}

/// Every template that can come, made once: they are only pointed at.
struct World {
    tips: Vec<BlockHash>,
    full: Vec<Vec<Arc<Template>>>,
    coinbase_only: Vec<Arc<Template>>,
    future: Vec<Arc<Template>>,
    good: Arc<Template>,
}

fn hash(number: usize) -> BlockHash {
    BlockHash::from_byte_array([number as u8 + 1; 32])
}

impl World {
    /// `wall` is what the source's wall clock says at its n-th template, Unix seconds.
    fn new(wall: impl Fn(u32) -> u32) -> Self {
        let coinbase =
            CoinbaseSpec { payout: ScriptBuf::from_bytes(vec![0x51]).into(), tag: "/tests/".to_owned() };
        let maker = CoinbaseOnly { network: Network::Regtest, coinbase: coinbase.clone() };
        let full = |previous_block_hash, height, which: u32| {
            let now = wall(which);
            let declared = Declared {
                network: Network::Regtest,
                provenance: Provenance::Node,
                height,
                version: Version::from_consensus(0x2000_0000 + which.cast_signed()),
                previous_block_hash,
                bits: CompactTarget::from_consensus(0x207f_ffff),
                min_time: now - 600,
                current_time: now,
                coinbase_value: 50 * 100_000_000,
                coinbase: CoinbaseParts::Planned(coinbase.clone()),
                target: None,
                merkle_path: None,
                transaction_count: None,
                witness_commitment_script: None,
                transactions: Vec::new(),
            };
            Arc::new(assemble(&declared).unwrap())
        };
        let tips: Vec<_> = (0..HEIGHTS.len()).map(hash).collect();
        let each = || tips.iter().zip(HEIGHTS);
        let next = |height: u32| NextBlock {
            height,
            bits: CompactTarget::from_consensus(0x207f_ffff),
            min_time: wall(height) - 600,
        };
        let on = |tip: &BlockHash, height| maker.on(*tip, next(height), wall(height)).unwrap().template;
        let heights = [101, 102, 103, 104];
        let ahead = heights.map(|height| maker.after(&full(hash(9), height - 1, 0), &Context::default()));
        let future = ahead.map(|sourced| sourced.unwrap().template).into_iter();
        Self {
            full: each()
                .map(|(tip, height)| (0..EACH as u32).map(|which| full(*tip, height, which)).collect())
                .collect(),
            coinbase_only: each().map(|(tip, height)| on(tip, height)).collect(),
            future: future.chain(heights.map(|height| full(future_tip(), height, 1))).collect(),
            good: full(hash(99), 500, 0),
            tips,
        }
    }

    /// The template of this digest.
    fn named(&self, digest: TemplateDigest) -> Arc<Template> {
        let all =
            self.full.iter().flatten().chain(&self.coinbase_only).chain(&self.future).chain([&self.good]);
        all.into_iter().find(|template| template.digest == digest).expect("one that was given").clone()
    }
}

/// What miners have, as they see it.
struct Held {
    template: Arc<Template>,
    /// Released on the verdict of a future template, and not judged as itself since.
    on_trust: bool,
}

struct Watcher<'a> {
    world: &'a World,
    gate: Gate,
    now: Instant,
    tip: Option<BlockHash>,
    given: Vec<Arc<Template>>,
    verdicts: HashMap<TemplateDigest, bool>,
    has: Option<Held>,
    ahead: Option<Arc<Template>>,
    unserved: Option<Instant>,
    /// What the gate wanted done, in one word each.
    done: Vec<&'static str>,
}

type Promise = Result<(), String>;

fn promise(kept: bool, what: &str) -> Promise {
    if kept { Ok(()) } else { Err(what.to_owned()) }
}

impl<'a> Watcher<'a> {
    fn new(world: &'a World, mode: Mode) -> Self {
        let now = Instant::now();
        let timings =
            Timings { verdict_timeout: VERDICT, hold_timeout: HOLD, coinbase_only_after: Some(AFTER) };
        Self {
            world,
            gate: Gate::new(mode, timings, now),
            now,
            tip: None,
            given: Vec::new(),
            verdicts: HashMap::new(),
            has: None,
            ahead: None,
            unserved: None,
            done: Vec::new(),
        }
    }

    fn inline(&self) -> bool {
        self.gate.mode() == Mode::Inline
    }

    fn accepted(&self, digest: TemplateDigest) -> bool {
        self.verdicts.get(&digest) == Some(&true)
    }

    fn serves(&self, held: &Held) -> bool {
        let good = !self.inline() || held.on_trust || self.accepted(held.template.digest);
        Some(held.template.previous_block_hash) == self.tip && good
    }

    fn template(&mut self, template: Arc<Template>) -> Promise {
        self.tip = Some(template.previous_block_hash);
        self.given.push(template.clone());
        let actions = self.gate.on_template(self.now, template);
        self.see(&actions)
    }

    fn verdict(&mut self, digest: TemplateDigest, accept: bool) -> Promise {
        self.verdicts.insert(digest, accept);
        if let Some(has) = self.has.as_mut().filter(|has| has.template.digest == digest) {
            has.on_trust = false;
        }
        let verdict = match accept {
            true => Verdict::accept(),
            false => Verdict::fault(Reason::PolicySetUnavailable, "every evaluation slot is taken"),
        };
        let actions = self.gate.on_verdict(self.now, digest, &verdict);
        self.see(&actions)?;
        self.look(false)
    }

    fn wait(&mut self, time: Duration) -> Promise {
        self.now += time;
        // Once too often does no harm.
        for _ in 0..2 {
            let actions = self.gate.on_time(self.now);
            self.see(&actions)?;
        }
        promise(self.gate.deadline().is_none_or(|at| at > self.now), "it wants to be woken at once, for ever")
    }

    fn take(&mut self, step: Step) -> Promise {
        match step {
            Step::Template { tip, which } => self.template(self.world.full[tip][which].clone())?,
            Step::Tip { tip } => {
                self.tip = Some(self.world.tips[tip]);
                let actions = self.gate.on_tip(self.now, self.world.tips[tip]);
                self.see(&actions)?;
            }
            Step::Flips { tips, count, ms } => {
                for turn in 0..count {
                    self.template(self.world.full[tips[turn % 2]][turn % EACH].clone())?;
                    self.look(false)?;
                    self.wait(Duration::from_millis(ms))?;
                    self.look(true)?;
                }
            }
            Step::Verdict { back, accept } => {
                if let Some(template) = self.given.iter().rev().nth(back) {
                    self.verdict(template.digest, accept)?;
                }
            }
            Step::Stranger { accept } => {
                let before = (self.gate.phase(), self.gate.in_use(), self.gate.ahead());
                self.verdict(TemplateDigest([0xee; 32]), accept)?;
                let after = (self.gate.phase(), self.gate.in_use(), self.gate.ahead());
                promise(before == after, "a verdict on nothing had an effect")?;
            }
            Step::Swap { accepts } => {
                let matters: Vec<_> = self.gate.judged().collect();
                for (bit, digest) in matters.into_iter().enumerate() {
                    self.verdict(digest, accepts >> bit & 1 == 1)?;
                }
            }
            Step::Wait { ms } => {
                self.wait(Duration::from_millis(ms))?;
            }
            Step::Mode { inline } => {
                let mode = if inline { Mode::Inline } else { Mode::Observe };
                let actions = self.gate.on_mode(self.now, mode);
                self.see(&actions)?;
            }
            Step::Stale => {
                if self.inline() {
                    self.tip = None;
                }
                let actions = self.gate.on_source_stale();
                self.see(&actions)?;
            }
            Step::Future { which } => {
                let template = self.world.future[which].clone();
                self.given.push(template.clone());
                let actions = self.gate.on_future(template);
                self.see(&actions)?;
            }
            Step::CoinbaseOnly { tip } => {
                let template = self.world.coinbase_only[tip].clone();
                self.given.push(template.clone());
                // The flow looks for what was sent ahead first.
                let mut actions = self.gate.activate(self.now, &template);
                if actions.is_empty() {
                    actions = self.gate.on_coinbase_only(template);
                }
                self.see(&actions)?;
            }
        }
        self.look(matches!(step, Step::Wait { .. }))
    }

    /// What the gate wants done, held against what was said.
    fn see(&mut self, actions: &[Action]) -> Promise {
        for action in actions {
            self.done.push(match action {
                Action::Release { template, ahead, .. } => {
                    promise(Some(template.previous_block_hash) == self.tip, "released on another tip")?;
                    if let Some(future) = ahead {
                        let future = self.ahead.take().filter(|sent| sent.digest == *future);
                        let future = future.ok_or("activated what nobody has")?;
                        let same = (future.height, future.version, &future.coinbase);
                        let now = (template.height, template.version, &template.coinbase);
                        promise(same == now, "activated something else than was sent ahead")?;
                        promise(
                            !self.inline() || self.accepted(future.digest),
                            "activated what was refused",
                        )?;
                    } else {
                        let own = self.accepted(template.digest);
                        promise(!self.inline() || own, "released without its own acceptance")?;
                    }
                    promise(!self.inline() || template.would_reject().is_none(), "released a refusal")?;
                    let template = self.world.named(template.digest);
                    self.has = Some(Held { template, on_trust: ahead.is_some() });
                    "release"
                }
                Action::SendAhead(template) => {
                    promise(template.is_future(), "sent ahead something of the present")?;
                    let accepted = self.accepted(template.digest);
                    promise(!self.inline() || accepted, "sent ahead without its own acceptance")?;
                    self.ahead = Some(self.world.named(template.digest));
                    "ahead"
                }
                Action::Expire(_) => {
                    (self.has, self.ahead) = (None, None);
                    "expire"
                }
                Action::Hold(_) => "hold",
                Action::Superseded(_) => "superseded",
                Action::Refused(_) => "refused",
                Action::Confirmed(_) => "confirmed",
                Action::Resume => "resume",
                Action::Ask => "ask",
                Action::AskCoinbaseOnly(tip) => {
                    promise(Some(*tip) == self.tip, "wants something for another tip")?;
                    promise(self.gate.phase() != Phase::Following, "wants a fallback without need")?;
                    "fallback"
                }
            });
        }
        Ok(())
    }

    /// After each step.
    fn look(&mut self, waited: bool) -> Promise {
        let served = self.has.as_ref().map(|has| self.serves(has));
        if self.gate.phase() == Phase::Following {
            promise(served == Some(true), "follows, and miners have no good work")?;
            let same = self.gate.in_use() == self.has.as_ref().map(|has| has.template.digest);
            promise(same, "takes something else to be in use")?;
        }
        self.unserved = if served == Some(false) { self.unserved.or(Some(self.now)) } else { None };
        let late = self.unserved.is_some_and(|since| self.now >= since + HOLD);
        promise(!(waited && late), "miners stayed on old, refused or withdrawn work past the hold")
    }

    /// Whatever happened: one admitted template and all is well.
    fn come_back(&mut self) -> Promise {
        let actions = self.gate.on_mode(self.now, Mode::Inline);
        self.see(&actions)?;
        self.template(self.world.good.clone())?;
        self.verdict(self.world.good.digest, true)?;
        self.look(false)?;
        promise(self.gate.phase() == Phase::Following, "does not come back")
    }
}

/// Runs a sequence; what was done, or which promise was broken.
fn run(world: &World, steps: &[Step]) -> Result<Vec<&'static str>, String> {
    let mut watcher = Watcher::new(world, Mode::Inline);
    for step in steps {
        watcher.take(*step)?;
    }
    watcher.come_back()?;
    Ok(watcher.done)
}

/// Leaves out what does not matter, and says the rest.
fn report(world: &World, number: u64, mut steps: Vec<Step>) -> String {
    let mut at = 0;
    while at < steps.len() {
        let step = steps.remove(at);
        if run(world, &steps).is_ok() {
            steps.insert(at, step);
            at += 1;
        }
    }
    let broken = run(world, &steps).err().unwrap_or_default();
    let steps: Vec<_> = steps.iter().map(|step| format!("  {step:?}")).collect();
    format!("sequence {number}: {broken}\n{}", steps.join("\n"))
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect(name))
}

#[test]
fn whatever_happens_the_gate_keeps_its_promises() {
    let world = World::new(|_| 1_700_000_000);
    let sequences = setting("RESERVEGRID_GATE_SEQUENCES", SEQUENCES);
    let (started, mut steps, mut seen) = (Instant::now(), 0, HashMap::<_, u64>::new());
    for number in 0..sequences {
        let sequence = Dice::steps(number);
        match run(&world, &sequence) {
            Ok(done) => done.into_iter().for_each(|word| *seen.entry(word).or_default() += 1),
            Err(_) => panic!("{}", report(&world, number, sequence)),
        }
        steps += sequence.len();
    }
    println!("{sequences} sequences, {steps} steps in {:.1} s: {seen:?}", started.elapsed().as_secs_f64());
    // Everything that can happen did, so the promises were put to the test.
    for word in [
        "release",
        "ahead",
        "expire",
        "hold",
        "superseded",
        "refused",
        "confirmed",
        "resume",
        "ask",
        "fallback",
    ] {
        assert!(seen.contains_key(word), "no {word} in {sequences} sequences");
    }
}

#[test]
fn the_wall_clock_may_jump_and_nothing_is_decided_differently() {
    let steady = World::new(|_| 1_700_000_000);
    // Half a day forwards, half a day back, years ahead: what the source's templates say of the time.
    let jumping =
        World::new(|n| [1_700_043_200, 1_699_956_800, 1_700_000_001, 1_900_000_000][n as usize % 4]);
    for number in 0..3_000 {
        let steps = Dice::steps(number);
        assert_eq!(
            run(&steady, &steps),
            run(&jumping, &steps),
            "{}",
            report(&jumping, number, steps.clone())
        );
    }
}
