//! The share ledger, on the real binary: disks and backends that misbehave, crashes, and the tools that look
//! at it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod backends;
mod crash;
mod disks;
mod miner;
mod receiver;
mod rude;
mod tools;
