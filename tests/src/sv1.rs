//! A small Stratum V1 miner, for what stands between such miners and the gateway: a translating proxy.
//!
//! It speaks the four messages that mining takes (`mining.subscribe`, `mining.authorize`, `mining.notify`,
//! `mining.set_difficulty`), builds the coinbase and the merkle root from them as V1 firmware does, and
//! hashes in a thread of its own until its handle is dropped.

use anyhow::{Context, Result, bail};
use bitcoin::hashes::{Hash, sha256d};
use serde_json::{Value, json};
use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

/// Hashes between two looks at the socket.
const BATCH: u32 = 4096;
/// The difficulty-1 target, as a number: 0xffff followed by 26 zero bytes.
const DIFFICULTY_ONE: f64 =
    65_535.0 * 411_376_139_330_301_510_538_742_295_639_337_626_245_683_966_408_394_965_837_152_256.0;

/// What a miner has seen so far.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Shares that were answered with `true`.
    pub accepted: u32,
    /// Shares that were refused, with the words of the refusal.
    pub refused: Vec<String>,
    /// Difficulties, in the order they were set.
    pub difficulties: Vec<f64>,
    /// Previous block hashes of its jobs, as V1 writes them, each once.
    pub tips: Vec<String>,
    /// Why it ended, where it ended by itself.
    pub ended: Option<String>,
}

#[derive(Debug, Default)]
struct Shared {
    seen: Mutex<Seen>,
    stop: std::sync::atomic::AtomicBool,
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running miner; it ends with this handle.
#[derive(Debug)]
pub struct Sv1Miner {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Sv1Miner {
    /// Connects and mines as `user`.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn start(address: SocketAddr, user: &str) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let shared = Arc::new(Shared::default());
        let mut session = Session {
            stream,
            unread: Vec::new(),
            user: user.to_owned(),
            extranonce1: Vec::new(),
            extranonce2_len: 0,
            extranonce2: 0,
            difficulty: 1.0,
            job: None,
            next_id: 3,
            shared: shared.clone(),
        };
        let thread = thread::spawn(move || {
            if let Err(error) = session.run() {
                session.shared.seen().ended = Some(format!("{error:#}"));
            }
        });
        Ok(Self { shared, thread: Some(thread) })
    }

    /// What it has seen so far.
    pub fn seen(&self) -> Seen {
        self.shared.seen().clone()
    }
}

impl Drop for Sv1Miner {
    fn drop(&mut self) {
        self.shared.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A `mining.notify`.
#[derive(Clone, Debug)]
struct Job {
    id: String,
    previous: [u8; 32],
    coinbase: (Vec<u8>, Vec<u8>),
    branch: Vec<[u8; 32]>,
    version: u32,
    bits: u32,
    time: u32,
}

struct Session {
    stream: TcpStream,
    unread: Vec<u8>,
    user: String,
    extranonce1: Vec<u8>,
    extranonce2_len: usize,
    extranonce2: u64,
    difficulty: f64,
    job: Option<Job>,
    next_id: u64,
    shared: Arc<Shared>,
}

impl Session {
    fn run(&mut self) -> Result<()> {
        self.say(&json!({ "id": 1, "method": "mining.subscribe", "params": ["tests/1"] }))?;
        self.say(&json!({ "id": 2, "method": "mining.authorize", "params": [self.user, "x"] }))?;
        while !self.shared.stop.load(std::sync::atomic::Ordering::Relaxed) {
            let ready = self.job.is_some() && self.extranonce2_len > 0;
            // With work there is no time to wait for words; without it there is nothing else to do.
            self.listen(if ready { Duration::from_micros(1) } else { Duration::from_millis(20) })?;
            if ready {
                self.mine()?;
            }
        }
        Ok(())
    }

    fn say(&mut self, message: &Value) -> Result<()> {
        self.stream.write_all(format!("{message}\n").as_bytes())?;
        Ok(())
    }

    fn listen(&mut self, patience: Duration) -> Result<()> {
        self.stream.set_read_timeout(Some(patience))?;
        let mut bytes = [0; 4096];
        match self.stream.read(&mut bytes) {
            Ok(0) => bail!("the other end hung up"),
            Ok(length) => self.unread.extend_from_slice(&bytes[..length]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
        while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            let message: Value = serde_json::from_slice(&line)
                .with_context(|| format!("not JSON: {}", String::from_utf8_lossy(&line)))?;
            self.hear(&message).with_context(|| message.to_string())?;
        }
        Ok(())
    }

    fn hear(&mut self, message: &Value) -> Result<()> {
        match (message["method"].as_str(), message["id"].as_u64()) {
            (Some("mining.notify"), _) => {
                let job = Job::read(&message["params"])?;
                let tip = hex::encode(job.previous);
                let mut seen = self.shared.seen();
                if !seen.tips.contains(&tip) {
                    seen.tips.push(tip);
                }
                drop(seen);
                self.job = Some(job);
            }
            (Some("mining.set_difficulty"), _) => {
                self.difficulty = message["params"][0].as_f64().context("a difficulty")?;
                self.shared.seen().difficulties.push(self.difficulty);
            }
            (Some("mining.set_extranonce"), _) => {
                self.extranonce(&message["params"][0], &message["params"][1])?;
            }
            // Other notices (`client.show_message`, …) are not for a machine.
            (Some(_), _) => {}
            (None, Some(1)) => self.extranonce(&message["result"][1], &message["result"][2])?,
            (None, Some(2)) => {
                if message["result"] != json!(true) {
                    bail!("not authorized");
                }
            }
            (None, _) if message["result"] == json!(true) => self.shared.seen().accepted += 1,
            (None, _) => self.shared.seen().refused.push(message["error"].to_string()),
        }
        Ok(())
    }

    fn extranonce(&mut self, first: &Value, length: &Value) -> Result<()> {
        self.extranonce1 = hex::decode(first.as_str().context("extranonce1")?)?;
        self.extranonce2_len = usize::try_from(length.as_u64().context("the size of extranonce2")?)?;
        Ok(())
    }

    /// One batch of hashes on a fresh extranonce2.
    fn mine(&mut self) -> Result<()> {
        let Some(job) = self.job.clone() else { return Ok(()) };
        self.extranonce2 += 1;
        let counter = self.extranonce2.to_be_bytes();
        let mut extranonce2 = vec![0; self.extranonce2_len.saturating_sub(counter.len())];
        extranonce2.extend_from_slice(&counter[counter.len().saturating_sub(self.extranonce2_len)..]);

        let coinbase = [&job.coinbase.0, &self.extranonce1, &extranonce2, &job.coinbase.1].map(Vec::as_slice);
        let mut root = sha256d::Hash::hash(&coinbase.concat()).to_byte_array();
        for beside in &job.branch {
            root = sha256d::Hash::hash(&[root, *beside].concat()).to_byte_array();
        }
        let mut header = [&job.version.to_le_bytes()[..], &job.previous, &root].concat();
        for word in [job.time, job.bits, 0] {
            header.extend(word.to_le_bytes());
        }
        let target = DIFFICULTY_ONE / self.difficulty;
        for nonce in 0..BATCH {
            header[76..].copy_from_slice(&nonce.to_le_bytes());
            if number(&sha256d::Hash::hash(&header).to_byte_array()) < target {
                let id = self.next_id;
                self.next_id += 1;
                let (time, nonce) = (format!("{:08x}", job.time), format!("{nonce:08x}"));
                let params = json!([self.user, job.id, hex::encode(&extranonce2), time, nonce]);
                self.say(&json!({ "id": id, "method": "mining.submit", "params": params }))?;
            }
        }
        Ok(())
    }
}

/// A hash as a number: its bytes are little-endian.
fn number(hash: &[u8; 32]) -> f64 {
    hash.iter().rev().fold(0.0, |sum, byte| sum * 256.0 + f64::from(*byte))
}

impl Job {
    fn read(params: &Value) -> Result<Self> {
        let text = |at: usize| params[at].as_str().with_context(|| format!("parameter {at} is no text"));
        let word = |at: usize| anyhow::Ok(u32::from_str_radix(text(at)?, 16)?);
        let mut previous: [u8; 32] = hash(text(1)?)?;
        // V1 turns the bytes of each word of the previous hash around.
        previous.chunks_exact_mut(4).for_each(<[u8]>::reverse);
        let branch = params[4].as_array().context("a merkle branch")?;
        Ok(Self {
            id: text(0)?.to_owned(),
            previous,
            coinbase: (hex::decode(text(2)?)?, hex::decode(text(3)?)?),
            branch: branch.iter().map(|h| hash(h.as_str().unwrap_or_default())).collect::<Result<_>>()?,
            version: word(5)?,
            bits: word(6)?,
            time: word(7)?,
        })
    }
}

fn hash(text: &str) -> Result<[u8; 32]> {
    hex::decode(text)?.try_into().map_err(|_| anyhow::anyhow!("{text} is not 32 bytes"))
}
