//! What this machine has and does: its disk without a ledger, its memory, what its processors did for whom.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

/// Load of the last minute, to be said beside a figure.
pub(crate) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// Memory of this process, bytes.
pub(crate) fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or_default() * 4_096
}

/// Time on a processor so far, by the name of the thread.
pub(crate) struct Processors(BTreeMap<String, u64>);

impl Processors {
    pub(crate) fn now() -> Self {
        let mut spent = BTreeMap::new();
        for task in fs::read_dir("/proc/self/task").unwrap().flatten() {
            // A thread may end while it is looked at.
            let read = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
            let nanoseconds = read("schedstat").split(' ').next().and_then(|text| text.parse::<u64>().ok());
            *spent.entry(read("comm").trim().to_owned()).or_default() += nanoseconds.unwrap_or_default();
        }
        Self(spent)
    }

    /// Time that threads whose names begin so have spent since `before`.
    pub(crate) fn since(&self, before: &Self, names: &[&str]) -> Duration {
        let sum = |of: &Self| {
            let named = of.0.iter().filter(|(name, _)| names.iter().any(|wanted| name.starts_with(wanted)));
            named.map(|(_, spent)| spent).sum::<u64>()
        };
        Duration::from_nanos(sum(self).saturating_sub(sum(before)))
    }
}

/// Appends of so many bytes, each with its sync, a second.
pub(crate) fn appends(path: &Path, bytes: usize) -> f64 {
    let mut file = File::create(path).unwrap();
    let chunk = noise(bytes);
    let (started, mut count) = (Instant::now(), 0u32);
    while started.elapsed() < Duration::from_secs(3) {
        file.write_all(&chunk).unwrap();
        file.sync_data().unwrap();
        count += 1;
    }
    let rate = f64::from(count) / started.elapsed().as_secs_f64();
    fs::remove_file(path).unwrap();
    rate
}

/// What a ledger that costs nothing would do: shares of so many bytes come at a rate, a thread appends those
/// that have come and syncs. From when each was due to when it was on the disk.
pub(crate) fn ideal(path: &Path, rate: f64, each: usize, time: Duration) -> Vec<Duration> {
    let mut file = File::create(path).unwrap();
    let chunk = noise(each * rate as usize);
    let (started, mut count, mut delays) = (Instant::now(), 0, Vec::new());
    while started.elapsed() < time {
        let due = (started.elapsed().as_secs_f64() * rate) as usize;
        if due == count {
            std::thread::sleep(Duration::from_micros(100));
            continue;
        }
        file.write_all(&chunk[..(each * (due - count)).min(chunk.len())]).unwrap();
        file.sync_data().unwrap();
        let now = started.elapsed();
        delays.extend(
            (count..due).map(|share| now.saturating_sub(Duration::from_secs_f64(share as f64 / rate))),
        );
        count = due;
    }
    fs::remove_file(path).unwrap();
    delays
}

/// Bytes that do not compress.
fn noise(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at.wrapping_mul(2_654_435_761) >> 8) as u8).collect()
}
