//! Shares: how many a second, what each costs, and how long their answers take.

use crate::{
    link::{Channel, Link, PATIENCE, word},
    pool::Pool,
    samples::Samples,
};
use anyhow::{Context, Result, ensure};
use std::{
    fmt,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
    time::{sleep_until, timeout},
};

/// Bytes read at once.
const CHUNK: usize = 64 << 10;

/// What the shares are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Each is new and counts.
    Valid,
    /// Each was handed in before: judged to the end, and refused.
    Duplicate,
    /// Each names a job that there is not.
    UnknownJob,
}

/// As many shares as fit.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    /// Shares that were answered as they should be.
    pub answered: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// Processor time of the pool.
    pub cpu: Duration,
}

impl fmt::Display for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = self.answered as f64 / self.elapsed.as_secs_f64();
        let each = self.cpu.as_secs_f64() * 1e6 / self.answered as f64;
        write!(f, "{rate:.0} a second, {each:.2} us of the pool's CPU each")
    }
}

/// Sends all shares of all miners as fast as they are taken; `each` is their number per miner, and `from`
/// the first nonce that they may use.
///
/// # Errors
/// When an answer is missing or another than the kind of share should have.
pub async fn flood(
    pool: &Pool,
    miners: &mut Vec<(Link, Channel)>,
    each: u32,
    from: u32,
    kind: Kind,
) -> Result<Flood> {
    let mut ready = Vec::new();
    for (mut link, channel) in miners.drain(..) {
        let mut bytes = Vec::with_capacity(each as usize * 62);
        let mut nonce = from;
        for number in 0..each {
            nonce = channel.share(nonce);
            let mut payload = channel.submit(number, nonce);
            if kind == Kind::UnknownJob {
                payload[8..12].copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
            }
            link.seal(0x1a, &payload, &mut bytes)?;
            nonce += 1;
        }
        ready.push((link, channel, bytes));
    }
    let (before, begin) = (pool.cpu()?, Instant::now());
    let mut tasks = JoinSet::new();
    for (mut link, channel, bytes) in ready {
        tasks.spawn(async move {
            let (mut reader, mut writer) = link.stream.split();
            let decoder = &mut link.decoder;
            let read = async {
                let (mut chunk, mut right) = (vec![0; CHUNK], 0);
                while right < u64::from(each) {
                    let length = timeout(PATIENCE, reader.read(&mut chunk)).await;
                    let length = length.context("waited in vain for answers")??;
                    ensure!(length > 0, "the pool hung up");
                    decoder.push(&chunk[..length]);
                    while let Some(frame) = decoder.next_frame()? {
                        right += match (frame.header.msg_type, kind) {
                            (0x1c, Kind::Valid) => u64::from(word(&frame, 8)?),
                            (0x1d, Kind::Duplicate | Kind::UnknownJob) => 1,
                            (0x1c | 0x1d, _) => anyhow::bail!("another answer: {frame:?}"),
                            _ => 0,
                        };
                    }
                }
                Ok(right)
            };
            let write = async { Ok(writer.write_all(&bytes).await?) };
            let (right, ()) = tokio::try_join!(read, write)?;
            anyhow::Ok((link, channel, right))
        });
    }
    let mut answered = 0;
    while let Some(done) = tasks.join_next().await {
        let (link, channel, right) = done??;
        miners.push((link, channel));
        answered += right;
    }
    let elapsed = begin.elapsed();
    Ok(Flood { answered, elapsed, cpu: pool.cpu()? - before })
}

/// So many shares a second in all, evenly spread; how long each answer takes, from when the share was due.
///
/// # Errors
/// When a share is refused or not answered.
pub async fn paced(
    miners: &mut Vec<(Link, Channel)>,
    per_second: u32,
    time: Duration,
    from: u32,
) -> Result<Samples> {
    let count = miners.len() as u32;
    let interval = Duration::from_secs(1) * count / per_second;
    let shares = (time.as_nanos() / interval.as_nanos()) as u32;
    // All are connected and idle by then.
    let begin = Instant::now() + Duration::from_millis(100);
    let mut tasks = JoinSet::new();
    for (number, (mut link, channel)) in miners.drain(..).enumerate() {
        let begin = begin + interval * number as u32 / count;
        tasks.spawn(async move {
            let mut samples = Samples::default();
            let (mut nonce, mut sent, mut answered) = (from, 0, 0);
            let (mut chunk, mut bytes) = (vec![0; CHUNK], Vec::new());
            let overdue = begin + time + PATIENCE;
            while answered < shares {
                let due = begin + interval * sent;
                tokio::select! {
                    () = sleep_until(due.into()), if sent < shares => {
                        bytes.clear();
                        // What became due meanwhile goes along.
                        while sent < shares && begin + interval * sent <= Instant::now() {
                            nonce = channel.share(nonce);
                            link.seal(0x1a, &channel.submit(sent, nonce), &mut bytes)?;
                            (nonce, sent) = (nonce + 1, sent + 1);
                        }
                        link.stream.write_all(&bytes).await?;
                    }
                    length = link.stream.read(&mut chunk) => {
                        let length = length?;
                        ensure!(length > 0, "the pool hung up");
                        link.decoder.push(&chunk[..length]);
                        while let Some(frame) = link.decoder.next_frame()? {
                            ensure!(frame.header.msg_type != 0x1d, "refused: {frame:?}");
                            if frame.header.msg_type == 0x1c {
                                for _ in 0..word(&frame, 8)? {
                                    samples.add((begin + interval * answered).elapsed());
                                    answered += 1;
                                }
                            }
                        }
                    }
                    () = sleep_until(overdue.into()) => anyhow::bail!("{} shares without an answer", sent - answered),
                }
            }
            anyhow::Ok((link, channel, samples))
        });
    }
    let mut all = Samples::default();
    while let Some(done) = tasks.join_next().await {
        let (link, channel, samples) = done??;
        miners.push((link, channel));
        all.append(samples);
    }
    Ok(all)
}
