//! Waiting for a condition, with a deadline.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// Between two looks at a condition that cannot tell by itself that it changed.
const PERIOD: Duration = Duration::from_millis(10);

/// Looks at a condition again and again until it gives something.
///
/// # Errors
/// When the deadline passes (`what` is named), or when the condition itself fails.
pub async fn until<T>(
    what: &str,
    deadline: Duration,
    mut condition: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(value) = condition().await? {
            return Ok(value);
        }
        if started.elapsed() > deadline {
            bail!("waited {deadline:?} in vain for {what}");
        }
        tokio::time::sleep(PERIOD).await;
    }
}
