//! What a connection costs, beside the reference implementation, in one run.
//!
//! Two things happen often enough to matter: a miner connects (after an outage, all of them at once), and
//! a frame is sealed (one job, every channel). Both contenders take turns within the same loop, so that
//! whatever else the machine does hits both alike; read the ratios, not the microseconds.
//!
//! `noise_sv2` is used the way its users use it: a responder is constructed per connection, and frames go
//! through `codec_sv2`'s encoder. Ours shares one identity among all connections.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use bitcoin::base58;
use codec_sv2::{Handshake, NoiseEncoder};
use framing_sv2::framing::SerializedFrame;
use reservegrid::noise::{AuthoritySecretKey, Identity, Initiator, respond};
use std::hint::black_box;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const HANDSHAKES: usize = 3_000;
const FRAME_SAMPLES: usize = 100_000;
/// A sample is the mean of so few that the clock is not half of it, and so short that it is rarely interrupted.
const FRAMES_PER_SAMPLE: usize = 2;
/// Of each contender, run before measuring.
const WARM_UP: usize = 200;
const PAYLOAD: [u8; 24] = [0x5a; 24];
const HEADER: [u8; 6] = [0x00, 0x80, 0x1a, PAYLOAD.len() as u8, 0, 0];
const VALIDITY: Duration = Duration::from_secs(3600);

/// Samples of both contenders for one piece of work, in nanoseconds.
#[derive(Default)]
struct Duel {
    ours: Vec<f64>,
    theirs: Vec<f64>,
}

impl Duel {
    /// Runs both, `per_sample` pieces of work each; who goes first alternates.
    fn round(&mut self, per_sample: usize, mut ours: impl FnMut(), mut theirs: impl FnMut()) {
        let time = |work: &mut dyn FnMut()| {
            let start = Instant::now();
            work();
            start.elapsed().as_nanos() as f64 / per_sample as f64
        };
        if self.ours.len().is_multiple_of(2) {
            self.ours.push(time(&mut ours));
            self.theirs.push(time(&mut theirs));
        } else {
            self.theirs.push(time(&mut theirs));
            self.ours.push(time(&mut ours));
        }
    }

    fn print(mut self, work: &str) {
        self.ours.drain(..WARM_UP);
        self.theirs.drain(..WARM_UP);
        self.ours.sort_by(f64::total_cmp);
        self.theirs.sort_by(f64::total_cmp);
        for (name, part) in [("median", 0.50), ("p99", 0.99)] {
            let at = |samples: &[f64]| samples[(samples.len() as f64 * part) as usize] / 1_000.0;
            let (ours, theirs) = (at(&self.ours), at(&self.theirs));
            println!("{work:<34} {name:<7} {ours:>9.2} µs {theirs:>9.2} µs {:>7.2}x", theirs / ours);
        }
    }
}

fn handshakes(authority: &AuthoritySecretKey, now: u32) -> Duel {
    let identity = Identity::issue(authority, now, VALIDITY);
    let public = authority.public().to_bytes();
    let secret: [u8; 32] = base58::decode_check(&authority.expose_text()).unwrap().try_into().unwrap();
    let mut duel = Duel::default();
    for _ in 0..WARM_UP + HANDSHAKES {
        let (_, act1) = Initiator::start(None).unwrap();
        duel.round(
            1,
            || drop(black_box(respond(&identity, black_box(&act1)).unwrap())),
            || {
                let mut responder =
                    noise_sv2::Responder::from_authority_kp(&public, &secret, VALIDITY).unwrap();
                drop(black_box(responder.step_1(black_box(act1)).unwrap()));
            },
        );
    }
    duel
}

fn frames(authority: &AuthoritySecretKey, now: u32) -> Duel {
    let identity = Identity::issue(authority, now, VALIDITY);
    let (_, act1) = Initiator::start(None).unwrap();
    let (_, mut ours) = respond(&identity, &act1).unwrap();
    let mut out = Vec::new();

    let initiator = noise_sv2::Initiator::from_raw_k(authority.public().to_bytes()).unwrap();
    let (act1, initiator) = Handshake::initiator(initiator).step_0().unwrap();
    let (act2, _) = respond(&identity, act1.payload().try_into().unwrap()).unwrap();
    let (mut theirs, _) = initiator.step_2(act2).unwrap().split();
    let mut encoder = NoiseEncoder::new();
    let frame = [&HEADER[..], &PAYLOAD].concat();

    let mut duel = Duel::default();
    for _ in 0..WARM_UP + FRAME_SAMPLES {
        // Their encoder consumes frames; making them is not part of sealing.
        let mut their_frames = vec![SerializedFrame::from_bytes(frame.clone()).unwrap(); FRAMES_PER_SAMPLE];
        duel.round(
            FRAMES_PER_SAMPLE,
            || {
                for _ in 0..FRAMES_PER_SAMPLE {
                    out.clear();
                    ours.sealer.seal_frame(black_box(&HEADER), black_box(&PAYLOAD), &mut out).unwrap();
                    black_box(&out);
                }
            },
            || {
                for frame in their_frames.drain(..) {
                    black_box(encoder.encode_transport(black_box(frame), &mut theirs).unwrap());
                }
            },
        );
    }
    duel
}

fn main() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as u32;
    let authority = AuthoritySecretKey::generate();
    println!("{:<34} {:<7} {:>12} {:>12} {:>8}", "noise", "", "ours", "noise_sv2", "ratio");
    handshakes(&authority, now).print("responder handshake");
    frames(&authority, now).print("seal a frame of 24 payload bytes");
    println!("(on a busy machine p99 shows the scheduler more than the code)");
}
