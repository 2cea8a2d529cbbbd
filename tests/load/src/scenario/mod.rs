//! The measurements. Each drives a pool that it is given and says what it saw.

pub mod arrive;
pub mod crowd;
pub mod scrape;
pub mod shares;
pub mod tips;

use crate::{
    link::{Channel, Link, VERSION_ROLLING},
    pool::Pool,
};
use anyhow::{Context, Result};
use std::sync::Arc;
use tokio::{sync::Semaphore, task::JoinSet};

/// Connections that are made at the same time.
const AT_ONCE: usize = 256;

/// Connects so many miners with one standard channel each.
///
/// # Errors
/// When one of them gets no channel.
pub async fn miners(pool: &Pool, count: usize, at_once: usize) -> Result<Vec<(Link, Channel)>> {
    let (address, places) = (pool.address, Arc::new(Semaphore::new(at_once)));
    let mut tasks = JoinSet::new();
    for number in 0..count {
        let places = places.clone();
        tasks.spawn(async move {
            let _place = places.acquire().await?;
            let mut link = Link::connect(address, number).await?;
            link.setup(VERSION_ROLLING).await?;
            let channel = link.open(&format!("load.{number}")).await?;
            anyhow::Ok((link, channel))
        });
    }
    let mut miners = Vec::with_capacity(count);
    while let Some(miner) = tasks.join_next().await {
        miners.push(miner?.with_context(|| format!("miner {} of {count}", miners.len() + 1))?);
    }
    Ok(miners)
}

/// Connects so many miners, a few at a time.
///
/// # Errors
/// As [`miners`].
pub async fn miners_gently(pool: &Pool, count: usize) -> Result<Vec<(Link, Channel)>> {
    miners(pool, count, AT_ONCE).await
}
