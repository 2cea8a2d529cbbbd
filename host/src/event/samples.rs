//! One of each event, as it could happen. The documentation shows them, and tests hold them against the
//! schema and the list of names.

use super::{Event, Stamped, schema::*};
use crate::{
    gate::Mode,
    policy::{ContextValue, Enforcement, Verdict, compare::Counts},
    reason::{PolicyCode, Reason, VerdictCode},
    template::Provenance,
};

const TIP: &str = "00000000000000000001e2b7d8a3c5f60718293a4b5c6d7e8f90a1b2c3d4e5f6";
const TEMPLATE: &str = "8d1f0c5b7a6e4d3c2b1a09f8e7d6c5b4a3928170f6e5d4c3b2a1908f7e6d5c4b";
const SET: &str = "5c4b3a29181706f5e4d3c2b1a0f9e8d7c6b5a4938271605f4e3d2c1b0a9f8e7d";
const OTHER_SET: &str = "17f5e4d3c2b1a0f9e8d7c6b5a4938271605f4e3d2c1b0a9f8e7d6c5b4a392817";
const SHARE: &str = "000000000001a3b5c7d9ebfd0f2143658798a9bacbdcedfe0f1021324354657687";

fn rejection() -> Verdict {
    Verdict {
        accepted: false,
        reason_code: PolicyCode::new("avg_fee_below_minimum").map(VerdictCode::Policy),
        reason_detail: Some("the average fee is 412 sat, at least 1000 are required (mempool: mid)".into()),
        policy_context: [
            ("avg_fee".to_owned(), ContextValue::Unsigned(412)),
            ("required".to_owned(), ContextValue::Unsigned(1_000)),
            ("mempool".to_owned(), ContextValue::Text("mid".into())),
        ]
        .into(),
    }
}

fn policies() -> Vec<PolicyVerdict> {
    let policy = |name: &str, enforcement, verdict, duration_us| PolicyVerdict {
        name: name.into(),
        enforcement,
        verdict,
        fuel: Some(182_044),
        memory_bytes: Some(1_179_648),
        duration_us,
        infrastructure_fault: false,
    };
    vec![
        policy("integrity", Enforcement::Enforce, Verdict::accept(), 804),
        policy("fee-floor", Enforcement::Enforce, rejection(), 512),
    ]
}

fn judged() -> TemplateJudged {
    TemplateJudged {
        template: TEMPLATE.into(),
        height: 870_001,
        previous_block_hash: TIP.into(),
        provenance: Provenance::Node,
        transactions: 3_204,
        total_fees: 1_320_048,
        total_weight: 3_991_212,
        total_sigops: 11_873,
        coinbase_value: 313_820_048,
        policy_set: SET.into(),
        verdict: rejection(),
        decided_by: Some("fee-floor".into()),
        infrastructure_fault: false,
        policies: policies(),
        mode: Mode::Inline,
        enforced: Enforced::Refused,
        duration_us: 1_398,
    }
}

fn share() -> ShareAccepted {
    ShareAccepted {
        share_id: SHARE.into(),
        user_identity: "alice.rig7".into(),
        worker: Some("rig7".into()),
        connection: 12,
        channel: 2,
        job: 481,
        template: TEMPLATE.into(),
        height: 870_001,
        previous_block_hash: TIP.into(),
        difficulty: 65_536.0,
        version: 0x2000_0000,
        ntime: 1_795_377_600,
        nonce: 3_141_592_653,
        extranonce: "a1b2c3d400000007000000000000002a".into(),
        held: false,
        solves_block: false,
    }
}

/// One of each, in the order of the schema, a second apart.
pub(crate) fn all() -> Vec<Stamped> {
    let text = str::to_owned;
    let events = of_gateway(text).into_iter().chain(of_gate(text)).chain(of_miners(text));
    let stamped =
        |(second, event): (u64, Event)| Stamped { time_ms: 1_795_377_600_000 + 1_000 * second, event };
    (0..).zip(events).map(stamped).collect()
}

fn of_gateway(text: fn(&str) -> String) -> Vec<Event> {
    vec![
        Event::GatewayStarted(GatewayStarted {
            version: "0.1.0",
            mode: Mode::Inline,
            source: text("node http://127.0.0.1:8332"),
            policy_set: text(SET),
            policies: vec![text("integrity"), text("fee-floor")],
            listen: Some(text("0.0.0.0:34255")),
            authority_key: Some(text("9bXiEd8boQVhq7WddEcERUL5tyyJVFYdU8th3HfbNXK3Yw6GRXh")),
            api: Some(text("127.0.0.1:34256")),
        }),
        Event::GatewayStopped { reason: Reason::ShutdownDrain },
        Event::SourceUp { source: text("main"), address: text("node http://127.0.0.1:8332") },
        Event::SourceDown(SourceDown {
            source: text("main"),
            address: text("node http://127.0.0.1:8332"),
            reason: Reason::TemplateSourceUnreachable,
            detail: text("connection refused"),
            retry_in_ms: 250,
        }),
        Event::SourceStale { source: text("main"), reason: Reason::TemplateSourceStale },
        Event::SourceLeads(SourceLeads {
            reason: Reason::SourceFailedOver,
            source: Some(text("second")),
            from: Some(text("main")),
            tip: Some(text(TIP)),
            height: Some(870_000),
            tip_before: Some(text(TIP)),
            height_before: Some(870_000),
        }),
        Event::SourceTips(SourceTips {
            reason: Reason::SourceTipsAgree,
            tips: vec![TipOfSource { source: text("main"), tip: text(TIP), height: 870_000, leads: true }],
        }),
        Event::ProposalAnswered(ProposalAnswered {
            reason: Reason::ProposalAccepted,
            template: text(TEMPLATE),
            source: text("main"),
            detail: String::new(),
            duration_ms: 71,
        }),
        Event::TemplateJudged(Box::new(judged())),
        Event::PolicyMonitored(Box::new(PolicyMonitored {
            reason: None,
            template: text(TEMPLATE),
            policy_set: text(SET),
            policies: vec![],
        })),
        Event::PolicySetSwapped(PolicySetSwapped {
            reason: Reason::PolicySetSwapped,
            trigger: Trigger::Http,
            from: text(SET),
            to: text(OTHER_SET),
            policies: vec![text("integrity")],
            difference: Counts { replayed: 16, same: 13, newly_accepted: 3, ..Counts::default() },
            duration_ms: 212,
        }),
        Event::PolicySetUnchanged {
            reason: Reason::PolicySetUnchanged,
            trigger: Trigger::Signal,
            policy_set: text(SET),
        },
        Event::PolicySetRolledBack(PolicySetRolledBack {
            reason: Reason::PolicySetRolledBack,
            trigger: Trigger::Http,
            from: text(OTHER_SET),
            to: text(SET),
            policies: vec![text("integrity"), text("fee-floor")],
        }),
        Event::PolicySwapRefused(PolicySwapRefused {
            reason: Reason::PolicySwapRefused,
            trigger: Trigger::File,
            running: text(SET),
            detail: text("the configuration has 1 faults; nothing was changed"),
            faults: vec![SwapFault {
                place: text("inline.toml:41"),
                policy: Some(text("fee-floor")),
                reason: Reason::PolicySettingsInvalid,
                detail: text("min_avg_fee.low: -1 is less than 0"),
            }],
        }),
        Event::ConfigReloaded {
            reason: Reason::ConfigReloaded,
            trigger: Trigger::Signal,
            keys: vec![text("[gate] hold_timeout")],
        },
        Event::ConfigRestartNeeded {
            reason: Reason::ConfigRestartNeeded,
            keys: vec![text("[miners] listen")],
        },
    ]
}

fn of_gate(text: fn(&str) -> String) -> Vec<Event> {
    let (mode, tip, template) = (Mode::Inline, Some(text(TIP)), Some(text(TEMPLATE)));
    vec![
        Event::TemplateSuperseded { reason: Reason::TemplateSuperseded, template: text(TEMPLATE) },
        Event::WorkReleased(WorkReleased {
            reason: Reason::PrevhashSwitched,
            job: 481,
            template: text(TEMPLATE),
            height: 870_001,
            previous_block_hash: text(TIP),
            mode,
            would_reject: None,
            coinbase_only: false,
            since_tip_ms: 4,
            held_ms: None,
            connections: 812,
        }),
        Event::WorkAhead(WorkAhead {
            reason: Reason::TemplateAhead,
            job: 482,
            template: text(TEMPLATE),
            height: 870_002,
            mode,
            would_reject: None,
            coinbase_only: true,
        }),
        Event::CoinbaseOnlyWanted(CoinbaseOnlyWanted {
            reason: Reason::CoinbaseOnlyWanted,
            mode,
            tip: text(TIP),
            template: text(TEMPLATE),
            since_tip_ms: 2_000,
        }),
        Event::TipChanged(TipChanged {
            reason: Reason::PrevhashMoved,
            mode,
            tip: text(TIP),
            template: template.clone(),
        }),
        Event::TipServed(TipServed {
            reason: Reason::PrevhashServed,
            job: 481,
            tip: text(TIP),
            connections: 812,
            since_tip_us: 9_120,
            since_release_us: 5_004,
        }),
        Event::GateHeld(GateHeld {
            reason: Reason::PrevhashHeld,
            mode,
            tip: tip.clone(),
            template: template.clone(),
            since_tip_ms: 4,
        }),
        Event::GateResumed(GateResumed {
            reason: Reason::WorkResumed,
            mode,
            tip: tip.clone(),
            template: template.clone(),
            held_ms: Some(820),
        }),
        Event::GateExpired(GateExpired {
            reason: Reason::PrevhashHoldExpired,
            mode,
            tip: tip.clone(),
            template: template.clone(),
            since_tip_ms: Some(5_001),
            held_ms: Some(4_997),
            connections: 812,
        }),
        Event::ModeChanged(ModeChanged {
            reason: Reason::ModeChanged,
            trigger: Trigger::Http,
            from: Mode::Inline,
            to: Mode::Observe,
            tip,
            template,
        }),
        Event::WorkFailed {
            reason: Reason::TemplateSourceInvalid,
            detail: text("the coinbase does not parse"),
        },
    ]
}

fn of_miners(text: fn(&str) -> String) -> Vec<Event> {
    vec![
        Event::ConnectionClosed(ConnectionClosed {
            connection: 12,
            peer: text("192.0.2.17:50112"),
            reason: Reason::IdleTimeout,
            detail: String::new(),
        }),
        Event::ConnectionsRefused { reason: Reason::PrevhashHoldExpired, count: 4_211 },
        Event::ChannelOpened(ChannelOpened {
            connection: 12,
            channel: 2,
            kind: "extended",
            user_identity: text("alice.rig7"),
            device: text("Bitaxe Gamma 2.4.1"),
            difficulty: 65_536.0,
        }),
        Event::TargetChanged(TargetChanged {
            connection: 12,
            channel: 2,
            user_identity: text("alice.rig7"),
            difficulty: 131_072.0,
            hashrate: 5.6e13,
            window_s: 60.0,
            shares: 12,
        }),
        Event::ChannelRefused {
            connection: 12,
            user_identity: text("mallory"),
            reason: Reason::UserUnknown,
            detail: Reason::UserUnknown.meaning().into(),
        },
        Event::ShareAccepted(share()),
        Event::ShareRejected(ShareRejected {
            reason: Reason::ShareStale,
            connection: 12,
            channel: 2,
            user_identity: text("alice.rig7"),
            sequence_number: 90_210,
            untold: 0,
        }),
        Event::ShareForwardResult(ShareForwardResult {
            share_id: text(SHARE),
            reason: Reason::ForwardAccepted,
            detail: String::new(),
            attempts: 1,
        }),
        Event::ForwardStatus(ForwardStatus {
            reason: Reason::ForwardRetrying,
            detail: text("the backend answered 503 Service Unavailable"),
            shares: 512,
        }),
        Event::LedgerFailed { reason: Reason::LedgerWriteFailed, detail: text("no space left on device") },
        Event::LedgerStatus { reason: Reason::LedgerBacklogHigh, detail: text("shares wait for the pool") },
        Event::BlockFound(BlockFound {
            reason: Reason::BlockSubmitted,
            hash: text(SHARE),
            height: 870_001,
            user_identity: text("alice.rig7"),
            detail: String::new(),
            coinbase_value: 313_820_048,
        }),
        Event::BlockAnswered(BlockAnswered {
            reason: Reason::BlockKnown,
            source: text("second"),
            hash: text(SHARE),
            detail: String::new(),
            attempts: 1,
            duration_ms: 212,
        }),
        Event::RecordingFailed {
            reason: Reason::RecordDropped,
            detail: text("the disk is slower than templates come"),
            lost: 3,
        },
        Event::EventsDropped { count: 40 },
    ]
}
