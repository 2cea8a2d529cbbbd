//! A Prometheus that asks for the metrics ten times a second: what miners notice of it.
//!
//! Turns with and without it follow each other in one run, so that whatever else the machine does falls on both.
#![allow(clippy::print_stdout)]

use super::{miners_gently, shares};
use crate::{pool::Pool, samples::Samples};
use anyhow::{Context, Result, ensure};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{MissedTickBehavior, interval},
};

/// Between two scrapes.
const EVERY: Duration = Duration::from_millis(100);
/// Shares of all miners a second: as ten thousand machines have at six a minute.
const SHARES: u32 = 1_000;
/// Turns of each kind.
const TURNS: u32 = 4;

/// What was measured in the turns of one kind.
#[derive(Default)]
struct Side {
    answers: Samples,
    cpu: Duration,
}

/// Measures, and prints both sides and their ratios.
///
/// # Errors
/// When the gateway does not start, a share is refused, or a scrape is not answered.
pub async fn measure(connections: usize, turn: Duration) -> Result<()> {
    let pool = Pool::start(|config| config.set("api", "listen", "127.0.0.1:0")).await?;
    let api = pool.own.as_ref().context("a gateway of ours")?.gateway.api()?;
    let address = api.strip_prefix("http://").context("an address")?.to_owned();
    let mut miners = miners_gently(&pool, connections).await?;
    shares::paced(&mut miners, SHARES, Duration::from_secs(1), 0).await?;
    let (mut alone, mut scraped, mut scrapes, mut bytes) = (Side::default(), Side::default(), 0, 0);
    for number in 0..TURNS * 2 {
        let scraper = (number % 2 == 1).then(|| tokio::spawn(scrape(address.clone(), turn)));
        let before = pool.cpu()?;
        let answers = shares::paced(&mut miners, SHARES, turn, 100_000 * (number + 1)).await?;
        let side = if scraper.is_some() { &mut scraped } else { &mut alone };
        side.cpu += pool.cpu()? - before;
        side.answers.append(answers);
        if let Some(scraper) = scraper {
            let (count, length) = scraper.await??;
            (scrapes, bytes) = (scrapes + count, length);
        }
    }
    let ratio =
        |part| scraped.answers.percentile(part).as_secs_f64() / alone.answers.percentile(part).as_secs_f64();
    let (with, without) = (scraped.cpu.as_secs_f64(), alone.cpu.as_secs_f64());
    println!("{SHARES} shares a second of {connections} connections alone: {}", alone.answers);
    println!(
        "scraped ten times a second: {}: {:.2} and {:.2} times (wanted: 1.1); the pool's CPU {:.2} times, \
         {:.2} ms for each of {scrapes} scrapes of {bytes} bytes",
        scraped.answers,
        ratio(0.5),
        ratio(0.99),
        with / without,
        (with - without) * 1e3 / f64::from(scrapes),
    );
    Ok(())
}

/// Scrapes for a while; how often, and how long the answer was.
async fn scrape(address: String, time: Duration) -> Result<(u32, usize)> {
    let mut clock = interval(EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (end, mut scrapes, mut length) = (tokio::time::Instant::now() + time, 0, 0);
    while clock.tick().await < end {
        let mut stream = TcpStream::connect(&address).await?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        ensure!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        (scrapes, length) = (scrapes + 1, answer.len());
    }
    Ok((scrapes, length))
}
