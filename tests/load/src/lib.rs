//! A load generator for Stratum V2 pools.
//!
//! It speaks nothing but the protocol, so it can drive any SV2 pool: give it an address and, for
//! processor time and memory, the id of the pool's process. Without an address it starts the gateway.
//! It is made to cost little, since it often shares the machine with what it measures: shares are mined and
//! sealed before the clock starts, many frames go in one write, and all connections share few tasks.
//!
//! - [`link`]: one connection; [`pool`]: what is measured; [`usage`]: its processor time and memory
//! - [`samples`]: latencies and their percentiles
//! - [`scenario`]: the measurements; [`hostile`]: peers that mean harm
//! - [`bare`]: the mining server alone, with a ledger that keeps nothing

pub mod bare;
pub mod hostile;
pub mod link;
pub mod pool;
pub mod samples;
pub mod scenario;
pub mod usage;
