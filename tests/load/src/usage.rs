//! What a process has used, as Linux counts it.

use anyhow::{Context, Result};
use std::time::Duration;

/// Ticks of `/proc/PID/stat` in a second: USER_HZ, 100 on every Linux there is.
const TICKS: u64 = 100;

/// Processor time of all threads, user and system.
///
/// # Errors
/// When there is no such process.
pub fn cpu(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may hold anything, also spaces and parentheses.
    let (_, fields) = stat.rsplit_once(')').context("a stat file without a name")?;
    let field = |at: usize| fields.split_whitespace().nth(at).and_then(|field| field.parse::<u64>().ok());
    let ticks = field(11).zip(field(12)).map(|(user, system)| user + system).context("a stat file")?;
    Ok(Duration::from_millis(ticks * 1_000 / TICKS))
}

/// Resident memory, bytes.
///
/// # Errors
/// When there is no such process.
pub fn resident(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes * 1_024)
}
