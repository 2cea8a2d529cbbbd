#![allow(clippy::unwrap_used, clippy::expect_used)]
//! What the tests of the gate stand on: templates of numbered tips, and gates with round timeouts.

use super::{Action, Gate, Mode, Timings};
use crate::{
    policy::Verdict,
    reason::Reason,
    template::{CoinbaseParts, CoinbaseSpec, Declared, Provenance, Template, facts::assemble, future_tip},
};
use bitcoin::{BlockHash, CompactTarget, Network, ScriptBuf, block::Version, hashes::Hash};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

pub(super) const VERDICT: Duration = Duration::from_millis(50);
pub(super) const HOLD: Duration = Duration::from_secs(5);
pub(super) const AFTER: Duration = Duration::from_secs(1);

/// A template without transactions on tip number `tip`; `time` tells templates of one tip apart.
pub(super) fn template(tip: u8, time: u32) -> Arc<Template> {
    Arc::new(assemble(&declared(tip, time)).unwrap())
}

/// What its source says of it.
pub(super) fn declared(tip: u8, time: u32) -> Declared {
    Declared {
        network: Network::Regtest,
        provenance: Provenance::Node,
        height: 100,
        version: Version::from_consensus(0x2000_0000),
        previous_block_hash: BlockHash::from_byte_array([tip; 32]),
        bits: CompactTarget::from_consensus(0x207f_ffff),
        min_time: 1_700_000_000,
        current_time: 1_700_000_000 + time,
        coinbase_value: 50 * 100_000_000,
        coinbase: CoinbaseParts::Planned(CoinbaseSpec {
            payout: ScriptBuf::from_bytes(vec![0x51]).into(),
            tag: "/tests/".to_owned(),
        }),
        target: None,
        merkle_path: None,
        transaction_count: None,
        witness_commitment_script: None,
        transactions: Vec::new(),
    }
}

/// The same template for a tip that is still to come.
pub(super) fn future(time: u32) -> Arc<Template> {
    let declared = Declared { previous_block_hash: future_tip(), ..declared(0, time) };
    Arc::new(assemble(&declared).unwrap())
}

/// One that the gateway made.
pub(super) fn coinbase_only(tip: u8) -> Arc<Template> {
    let declared = Declared { provenance: Provenance::Gateway, ..declared(tip, 0) };
    Arc::new(assemble(&declared).unwrap())
}

pub(super) fn reject() -> Verdict {
    Verdict::fault(Reason::PolicyTrapped, "a test says no")
}

pub(super) fn gate(mode: Mode) -> (Gate, Instant) {
    let now = Instant::now();
    let timings = Timings { verdict_timeout: VERDICT, hold_timeout: HOLD, coinbase_only_after: None };
    (Gate::new(mode, timings, now), now)
}

/// A gate that follows tip 1.
pub(super) fn following(mode: Mode) -> (Gate, Instant) {
    let (mut gate, now) = gate(mode);
    let first = template(1, 0);
    gate.on_template(now, first.clone());
    let actions = gate.on_verdict(now, first.digest, &Verdict::accept());
    assert!(matches!(actions[..], [Action::Release { new_tip: true, .. }]), "{actions:?}");
    (gate, now)
}

/// A gate that follows tip 1 and asks for a template without transactions a second into a hold.
pub(super) fn with_fallback(mode: Mode) -> (Gate, Instant) {
    let now = Instant::now();
    let timings = Timings { verdict_timeout: VERDICT, hold_timeout: HOLD, coinbase_only_after: Some(AFTER) };
    let mut gate = Gate::new(mode, timings, now);
    let first = template(1, 0);
    gate.on_template(now, first.clone());
    gate.on_verdict(now, first.digest, &Verdict::accept());
    (gate, now)
}
