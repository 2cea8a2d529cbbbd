//! Crowds that do nothing: memory per connection, also after all have come back at once a few times.

use super::miners;
use crate::pool::Pool;
use anyhow::Result;
use std::time::{Duration, Instant};

/// Resident memory of the pool per connection, bytes, after each time that all have connected.
///
/// Between two times all connections are closed at the same moment, and connect again at the same moment.
///
/// # Errors
/// When one gets no channel.
pub async fn idle(pool: &Pool, count: usize, times: usize) -> Result<Vec<u64>> {
    let empty = pool.resident()?;
    let mut per_connection = Vec::new();
    for _ in 0..times {
        let crowd = miners(pool, count, count).await?;
        let resident = settled(pool).await?;
        per_connection.push(resident.saturating_sub(empty) / count as u64);
        drop(crowd);
        settled(pool).await?;
    }
    Ok(per_connection)
}

/// Resident memory once it changes no more and the pool computes nothing.
async fn settled(pool: &Pool) -> Result<u64> {
    let begin = Instant::now();
    let mut last = (pool.resident()?, pool.cpu()?);
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = (pool.resident()?, pool.cpu()?);
        if now == last || begin.elapsed() > Duration::from_secs(20) {
            return Ok(now.0);
        }
        last = now;
    }
}
