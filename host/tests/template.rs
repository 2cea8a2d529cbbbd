//! The template room from outside: real blocks through parsing and facts, the embedded chain and its
//! refusals, a node that misbehaves.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "template/blocks.rs"]
mod blocks;
#[path = "template/chain.rs"]
mod chain;
#[path = "template/coinbase.rs"]
mod coinbase;
#[path = "template/context.rs"]
mod context;
#[path = "template/discrepancies.rs"]
mod discrepancies;
#[path = "template/node.rs"]
mod node;
#[path = "template/polling.rs"]
mod polling;
#[path = "template/record.rs"]
mod record;
#[path = "template/server.rs"]
mod server;
#[path = "template/solve.rs"]
mod solve;
