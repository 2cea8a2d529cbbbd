//! What the end-to-end tests stand on: the real binary, a real Bitcoin node, a pool backend.
//!
//! - [`node`]: a regtest node in a folder of its own, and its JSON-RPC
//! - [`scripted`]: a node that answers as told; [`stall`]: a way to a node that stops in the middle of an answer;
//!   [`front`]: one that changes, breaks or holds back the answers of a real node
//! - [`provider`]: a Template Provider in front of a node, honest or not
//! - [`mempool`]: coins, and thousands of real signed transactions in the node's mempool
//! - [`account`]: the promise of the ledger, checked from outside
//! - [`backend`]: a pool backend that checks every signature and records every share
//! - [`client`]: a raw Stratum V2 client on foreign code, polite or not
//! - [`sv1`]: a Stratum V1 miner, for proxies in front of the gateway
//! - [`browser`]: a headless Chromium; [`prometheus`]: a real Prometheus
//! - [`pair`]: a gateway with two miners and one policy
//! - [`gateway`]: the gateway and the CPU miner as processes, their configuration and their events
//!
//! Everything ends with its handle, waits for conditions with a deadline and for nothing else, and
//! returns errors that say what was awaited and what was there instead.

pub mod account;
pub mod backend;
pub mod browser;
pub mod client;
pub mod front;
pub mod gateway;
pub mod mempool;
pub mod node;
pub mod pair;
pub mod process;
pub mod prometheus;
pub mod provider;
pub mod scripted;
pub mod stall;
pub mod sv1;
pub mod tail;
pub mod wait;
