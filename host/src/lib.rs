//! ReserveGrid: a Stratum V2 gateway that lets a pool's own rules decide which templates become work.
//!
//! Data goes one way through the rooms: [`template`] (source and facts) → [`policy`] (WebAssembly) →
//! [`gate`] → [`job`] → [`miner`] → [`share`] → [`ledger`]. [`reason`] and [`event`] look at every stage;
//! [`gateway`] connects them. `ARCHITECTURE.md` is the map.

#![deny(unsafe_code)]

pub mod api;
pub mod author;
pub mod client;
pub mod config;
pub mod demo;
pub mod dial;
#[cfg(test)]
mod docs;
pub mod event;
pub mod gate;
pub mod gateway;
pub mod job;
pub mod ledger;
pub mod logs;
pub mod metrics;
pub mod miner;
pub mod noise;
pub mod policy;
pub mod reason;
pub mod record;
pub mod share;
pub mod sv2;
pub mod swap;
pub mod template;
pub mod view;
mod words;
