//! Arriving: what a connection costs the pool, and how soon a miner has its first job.

use crate::{
    link::{Link, VERSION_ROLLING},
    pool::Pool,
    samples::Samples,
};
use anyhow::Result;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::Semaphore, task::JoinSet};

/// Processor time of the pool for one connection: TCP, handshake and SetupConnection.
///
/// # Errors
/// When one is not served.
pub async fn connections(pool: &Pool, count: usize) -> Result<Duration> {
    let (address, places) = (pool.address, Arc::new(Semaphore::new(32)));
    let before = pool.cpu()?;
    let mut tasks = JoinSet::new();
    for number in 0..count {
        let places = places.clone();
        tasks.spawn(async move {
            let _place = places.acquire().await?;
            let mut link = Link::connect(address, number).await?;
            link.setup(VERSION_ROLLING).await
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok((pool.cpu()? - before) / count as u32)
}

/// From the request for a channel to SetNewPrevHash, one connection after the other.
///
/// # Errors
/// When one gets no channel.
pub async fn first_jobs(pool: &Pool, count: usize) -> Result<Samples> {
    let mut samples = Samples::default();
    for number in 0..count {
        let mut link = Link::connect(pool.address, number).await?;
        link.setup(VERSION_ROLLING).await?;
        let asked = Instant::now();
        link.open("first").await?;
        samples.add(asked.elapsed());
    }
    Ok(samples)
}
