//! Every reason code of the gateway: its category, who is at fault, how grave it is, and the SV2
//! error code a miner sees where there is one.
//!
//! A code has one meaning for ever: it appears unchanged in events, logs, metrics, the HTTP surface
//! and the documentation. Nothing else in the gateway spells a code. Codes that *policies* return
//! are theirs ([`PolicyCode`]); they are checked for form here and never collide in meaning, since a
//! record always names the policy that gave them.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use std::{borrow::Cow, fmt};

/// Who has to act for a reason to go away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The miner or proxy on the other side of a connection.
    Peer,
    /// The operator: configuration, limits, keys.
    Operator,
    /// The author of a policy module.
    Policy,
    /// The Bitcoin node or another template source.
    Node,
    /// The pool backend that receives shares.
    Upstream,
    /// The gateway itself.
    Us,
    /// Nobody: a normal course of events.
    Nobody,
}

/// How much attention a reason deserves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Normal operation.
    Info,
    /// Worth a look by day.
    Warning,
    /// Costs money while it lasts.
    Error,
}

macro_rules! reasons {
    ($( $category:ident { $( $variant:ident = $code:literal, $fault:ident, $severity:ident, $wire:expr, $meaning:literal; )+ } )+) => {
        /// A machine-readable reason of the gateway. `Display` and JSON give the code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $( $( #[doc = $meaning] $variant, )+ )+ }

        impl Reason {
            /// The whole catalogue, in the order of the flow.
            pub const ALL: &'static [Reason] = &[ $( $( Reason::$variant, )+ )+ ];

            /// The code: lower snake case, stable for ever.
            pub const fn code(self) -> &'static str {
                match self { $( $( Reason::$variant => $code, )+ )+ }
            }
            /// The stage of the flow the code belongs to.
            pub const fn category(self) -> &'static str {
                match self { $( $( Reason::$variant => stringify!($category), )+ )+ }
            }
            /// Who has to act.
            pub const fn fault(self) -> Fault {
                match self { $( $( Reason::$variant => Fault::$fault, )+ )+ }
            }
            /// How much attention it deserves.
            pub const fn severity(self) -> Severity {
                match self { $( $( Reason::$variant => Severity::$severity, )+ )+ }
            }
            /// The error code in the SV2 message that tells a miner, where one does.
            pub const fn sv2_code(self) -> Option<&'static str> {
                match self { $( $( Reason::$variant => $wire, )+ )+ }
            }
            /// One sentence for people.
            pub const fn meaning(self) -> &'static str {
                match self { $( $( Reason::$variant => $meaning, )+ )+ }
            }
        }
    };
}

reasons! {
    template {
        TemplateUndecodable = "template_undecodable", Node, Error, None,
            "The template, or a transaction in it, does not parse.";
    }
    engine {
        PolicyModuleInvalid = "policy_module_invalid", Policy, Error, None,
            "The file is not a WebAssembly component that exports the policy contract.";
        PolicyImportRefused = "policy_import_refused", Policy, Error, None,
            "The module imports something outside the policy contract.";
        PolicySettingsInvalid = "policy_settings_invalid", Operator, Error, None,
            "The policy does not accept the settings it was given.";
        PolicySetUnavailable = "policy_set_unavailable", Operator, Error, None,
            "The policy module cannot be read, or no evaluation slot was free.";
        PolicyFuelExhausted = "policy_fuel_exhausted", Policy, Error, None,
            "The policy used up its fuel before it gave a verdict.";
        PolicyDeadlineExceeded = "policy_deadline_exceeded", Policy, Error, None,
            "The policy did not give a verdict within the time budget of the set.";
        PolicyMemoryExceeded = "policy_memory_exceeded", Policy, Error, None,
            "The policy asked for more memory, or more data, than it may have.";
        PolicyTrapped = "policy_trapped", Policy, Error, None,
            "The policy stopped with a trap (a panic, or an instruction that cannot be executed).";
        PolicyOutputInvalid = "policy_output_invalid", Policy, Error, None,
            "The policy returned something that is not a well-formed verdict.";
        PolicyFactUnknown = "policy_fact_unknown", Operator, Error, None,
            "The policy asked for something that the source of the template does not say.";
        PolicyMonitorSkipped = "policy_monitor_skipped", Operator, Info, None,
            "The monitored policies were not asked about this template: they still judge an earlier one.";
    }
    swap {
        PolicySetSwapped = "policy_set_swapped", Operator, Info, None,
            "Another policy set judges from now on.";
        PolicySetRolledBack = "policy_set_rolled_back", Operator, Info, None,
            "The previous policy set judges again.";
        PolicySetUnchanged = "policy_set_unchanged", Operator, Info, None,
            "The proposed policy set is the one that runs already.";
        PolicySwapRefused = "policy_swap_refused", Operator, Error, None,
            "The proposed policy set has faults; the running set was left as it is.";
        PolicySwapBusy = "policy_swap_busy", Operator, Warning, None,
            "Another change of the policy set is under way.";
        PolicyRollbackUnavailable = "policy_rollback_unavailable", Operator, Warning, None,
            "There is no previous policy set to go back to.";
    }
    transport {
        NoiseHandshakeFailed = "noise_handshake_failed", Peer, Warning, None,
            "The Noise handshake was not valid.";
        NoiseHandshakeTimeout = "noise_handshake_timeout", Peer, Warning, None,
            "The Noise handshake was not finished within its deadline.";
        ConnectionLimitReached = "connection_limit_reached", Peer, Warning, None,
            "No more connections are accepted at the moment.";
        ConnectionRateLimited = "connection_rate_limited", Peer, Warning, None,
            "More handshakes are under way than the gateway takes at once.";
        PeerQuotaExceeded = "peer_quota_exceeded", Peer, Warning, Some("peer-quota-exceeded"),
            "The peer has as many connections, handshakes or shares without the pool's answer as one peer may have.";
        ConnectionClosed = "connection_closed", Nobody, Info, None,
            "The peer closed the connection.";
        IdleTimeout = "idle_timeout", Peer, Warning, None,
            "Nothing was heard from the peer for longer than allowed.";
        OutboundQueueFull = "outbound_queue_full", Peer, Warning, None,
            "The peer reads too slowly; what was queued for it did not leave in time.";
        ShutdownDrain = "shutdown_drain", Operator, Info, None,
            "The gateway is shutting down.";
    }
    framing {
        FrameDecodeFailed = "frame_decode_failed", Peer, Warning, None,
            "A message could not be decoded.";
        FrameTooLarge = "frame_too_large", Peer, Warning, None,
            "A message announces more bytes than its type may have.";
        FrameDecryptFailed = "frame_decrypt_failed", Peer, Warning, None,
            "A frame failed authentication.";
        MessageUnexpected = "message_unexpected", Peer, Warning, None,
            "A message arrived in a state in which it is not allowed.";
        MessageUnknownBudgetExceeded = "message_unknown_budget_exceeded", Peer, Warning, None,
            "The peer sent too many messages of unknown type.";
    }
    setup {
        UnsupportedProtocol = "unsupported_protocol", Peer, Warning, Some("unsupported-protocol"),
            "SetupConnection asks for another protocol than mining.";
        UnsupportedProtocolVersion = "unsupported_protocol_version", Peer, Warning, Some("protocol-version-mismatch"),
            "SetupConnection offers no protocol version that the gateway speaks.";
        UnsupportedFeatureFlags = "unsupported_feature_flags", Peer, Warning, Some("unsupported-feature-flags"),
            "SetupConnection demands features that the gateway does not have.";
        SetupTimeout = "setup_timeout", Peer, Warning, None,
            "No channel was opened within the time allowed after the handshake.";
    }
    auth {
        UserIdentityInvalid = "user_identity_invalid", Peer, Warning, Some("invalid-user-identity"),
            "The user identity is empty or not printable UTF-8.";
        UserUnknown = "user_unknown", Peer, Warning, Some("unknown-user"),
            "The pool does not know the user.";
        UserNotAllowed = "user_not_allowed", Peer, Warning, Some("unknown-user"),
            "The pool knows the user and does not let it mine.";
        UserCheckUnavailable = "user_check_unavailable", Upstream, Error, Some("user-check-unavailable"),
            "The pool gave no usable answer about the user in time, so it was not let in.";
    }
    channel {
        ChannelLimitExceeded = "channel_limit_exceeded", Peer, Warning, Some("channel-capacity-exhausted"),
            "The connection has as many channels as it may have.";
        ChannelCapacityExhausted = "channel_capacity_exhausted", Operator, Error, Some("channel-capacity-exhausted"),
            "The gateway has as many channels as it may have.";
        ChannelRateLimited = "channel_rate_limited", Peer, Warning, Some("channel-rate-limited"),
            "The connection opens or updates channels too often.";
        ChannelNotFound = "channel_not_found", Peer, Warning, Some("invalid-channel-id"),
            "The message names a channel that is not open on this connection.";
        MaxTargetOutOfRange = "max_target_out_of_range", Peer, Warning, Some("max-target-out-of-range"),
            "The requested maximum target is zero, or harder than the gateway serves.";
        NominalHashrateInvalid = "nominal_hashrate_invalid", Peer, Warning, Some("invalid-nominal-hashrate"),
            "The nominal hash rate is negative or not a number.";
        ExtranonceSizeUnsupported = "extranonce_size_unsupported", Peer, Warning, Some("unsupported-min-extranonce-size"),
            "The requested minimum extranonce size does not fit.";
        ChannelKindNotAllowed = "channel_kind_not_allowed", Peer, Warning, Some("extended-channels-not-supported-for-standard-jobs"),
            "The connection asked for standard jobs alone and cannot open an extended channel.";
        StandardChannelNotAllowed = "standard_channel_not_allowed", Peer, Warning, Some("standard-channels-not-supported-for-custom-work"),
            "The connection brings its own work and cannot open a standard channel.";
        JobDeclarationUnsupported = "job_declaration_unsupported", Peer, Info, Some("jd-not-supported"),
            "The miner declares a job of its own, which the gateway does not take.";
    }
    share {
        ShareStale = "share_stale", Peer, Info, Some("stale-share"),
            "The share was mined on a job of an earlier chain tip.";
        ShareHeld = "share_held", Nobody, Info, Some("stale-share"),
            "The share was mined on the last admitted job while newer work is held back.";
        ShareDifficultyTooLow = "share_difficulty_too_low", Peer, Warning, Some("difficulty-too-low"),
            "The share does not meet the target of its job.";
        ShareDuplicate = "share_duplicate", Peer, Warning, Some("duplicate-share"),
            "The same work was submitted before.";
        ShareJobUnknown = "share_job_unknown", Peer, Warning, Some("invalid-job-id"),
            "The share names a job that this channel never had.";
        ShareNtimeOutOfRange = "share_ntime_out_of_range", Peer, Warning, Some("invalid-share"),
            "The time in the share lies outside the window of its job.";
        ShareVersionBitsInvalid = "share_version_bits_invalid", Peer, Warning, Some("invalid-non-rollable-version-bit"),
            "The share changes version bits outside the rollable mask (BIP 323).";
        ShareExtranonceSizeInvalid = "share_extranonce_size_invalid", Peer, Warning, Some("bad-extranonce-size"),
            "The extranonce of the share has another length than the channel's.";
        ShareRateLimited = "share_rate_limited", Peer, Warning, Some("share-rate-limited"),
            "The connection sends more shares than it may, or has more under this tip than the gateway remembers.";
        ShareLedgerFull = "share_ledger_full", Us, Error, Some("share-ledger-full"),
            "The share cannot be recorded at the moment and was therefore not accepted.";
    }
    prevhash {
        TemplateAdmitted = "template_admitted", Nobody, Info, None,
            "The policy set accepted the template and it became work.";
        PrevhashSwitched = "prevhash_switched", Nobody, Info, None,
            "Work on the new chain tip was admitted and went to the miners.";
        PrevhashVerdictTimeout = "prevhash_verdict_timeout", Policy, Warning, None,
            "No verdict on work for the new tip came in time; miners are held.";
        PrevhashTemplateMissing = "prevhash_template_missing", Node, Warning, None,
            "The source has no usable template on the new tip; miners are held.";
        PrevhashHeld = "prevhash_held", Policy, Warning, None,
            "Work on the new tip was refused; miners keep their last job for now.";
        WorkWithdrawn = "work_withdrawn", Policy, Warning, None,
            "The work in use is refused after all (other policies, or another mode); miners keep it for now.";
        WorkResumed = "work_resumed", Nobody, Info, None,
            "What miners have is good work again; their shares are no longer marked.";
        PrevhashMoved = "prevhash_moved", Nobody, Info, None,
            "The chain has another tip; miners keep their last job until work on it is admitted.";
        PrevhashServed = "prevhash_served", Nobody, Info, None,
            "The last miner that was there has been sent the work on the new tip.";
        PrevhashActivated = "prevhash_activated", Nobody, Info, None,
            "The chain has another tip, and the work that was judged ahead for it goes on there.";
        TemplateAhead = "template_ahead", Nobody, Info, None,
            "A template for the tip after this one was admitted; miners have its job in advance.";
        CoinbaseOnlyWanted = "coinbase_only_wanted", Operator, Warning, None,
            "Nothing on the new tip was admitted; the policies are asked about a template without transactions.";
        CoinbaseOnlyAdmitted = "coinbase_only_admitted", Operator, Warning, None,
            "Miners were given a template without transactions until a better one is admitted.";
        CoinbaseOnlyUnavailable = "coinbase_only_unavailable", Node, Error, None,
            "A template without transactions cannot be made: the source does not say what the next block needs.";
        PrevhashHoldExpired = "prevhash_hold_expired", Policy, Error, None,
            "No work on the new tip was admitted in time; miners are disconnected.";
        TemplateSuperseded = "template_superseded", Nobody, Info, None,
            "A newer template took the place of this one before its verdict mattered.";
    }
    mode {
        ModeChanged = "mode_changed", Operator, Info, None,
            "Verdicts have another effect from now on.";
        ModeUnchanged = "mode_unchanged", Operator, Info, None,
            "The gateway is in this mode already.";
        ModeRestartNeeded = "mode_restart_needed", Operator, Warning, None,
            "To and from shadow mode the gateway changes at its start only: it serves miners, or it does not.";
    }
    source {
        TemplateSourceUnreachable = "template_source_unreachable", Node, Error, None,
            "The template source does not answer.";
        TemplateSourceRefused = "template_source_refused", Operator, Error, None,
            "The template source refuses the credentials or the request.";
        TemplateSourceInvalid = "template_source_invalid", Node, Error, None,
            "The template source answers with something that is not a usable template.";
        TemplateSourceStale = "template_source_stale", Node, Error, None,
            "The template source gave nothing new for longer than allowed.";
        ReplayEnded = "replay_ended", Nobody, Info, None,
            "Every recorded template was given; the source has no more.";
        TemplateProviderUntrusted = "template_provider_untrusted", Operator, Error, None,
            "Whoever answers at the Template Provider's address does not prove that it has the configured authority key.";
        TemplateProviderProtocol = "template_provider_protocol", Node, Error, None,
            "The Template Provider sent something that does not decode, or that is not allowed at that point.";
        TemplateMessageTooLarge = "template_message_too_large", Node, Error, None,
            "The Template Provider announced more bytes than a message of that type may have.";
        TemplateIdUnknown = "template_id_unknown", Node, Error, None,
            "The Template Provider named a template that it never sent, or does not know one that it sent.";
        TemplateOutdated = "template_outdated", Node, Warning, None,
            "The Template Provider calls its newest template stale and sends no other.";
        TemplateDataMissing = "template_data_missing", Node, Error, None,
            "The Template Provider did not send the transactions of its template in time.";
        SourceChosen = "source_chosen", Nobody, Info, None,
            "The first template source that can give templates was chosen.";
        SourceFailedOver = "source_failed_over", Node, Error, None,
            "The source that gave the templates failed; they come from another one from now on.";
        SourceBehind = "source_behind", Node, Error, None,
            "Other sources have had a tip with more work for longer than blocks take to travel.";
        SourceReturned = "source_returned", Nobody, Info, None,
            "A preferred template source is well again and gives the templates from now on.";
        SourceMissing = "source_missing", Node, Error, None,
            "No template source can be relied on at the moment; miners keep the work they have.";
        SourceTipsDisagree = "source_tips_disagree", Node, Error, None,
            "Template sources that answer have been on different tips for longer than blocks take to travel.";
        SourceTipsAgree = "source_tips_agree", Nobody, Info, None,
            "The template sources that answer are on the same tip again.";
        SourceRedundancyLost = "source_redundancy_lost", Node, Warning, None,
            "Miners are served, but not every template source is well: one failure less can be borne.";
    }
    proposal {
        ProposalAccepted = "proposal_accepted", Nobody, Info, None,
            "The node finds the assembled block valid but for its proof of work.";
        ProposalRejected = "proposal_rejected", Node, Error, None,
            "The node finds that the assembled block would not be valid.";
        ProposalUnanswered = "proposal_unanswered", Node, Warning, None,
            "The node did not say whether the assembled block would be valid.";
    }
    block {
        BlockSubmitted = "block_submitted", Nobody, Info, None,
            "A share solved the block and the template source accepted it.";
        BlockKnown = "block_known", Nobody, Info, None,
            "The source has the block already and found it valid: it came there by another way first.";
        BlockInconclusive = "block_inconclusive", Node, Warning, None,
            "The source keeps the block, but another one is its tip.";
        BlockParentUnknown = "block_parent_unknown", Node, Error, None,
            "The source does not have the block before this one, or found that one invalid.";
        BlockInvalid = "block_invalid", Us, Error, None,
            "The source finds the block invalid.";
        BlockRejectedByNode = "block_rejected_by_node", Node, Error, None,
            "A share solved the block and the template source refused it.";
        BlockUnconfirmed = "block_unconfirmed", Node, Warning, None,
            "A share solved the block; it went to a Template Provider, which gives no answer, and its tip is not this block.";
        BlockSubmitFailed = "block_submit_failed", Node, Error, None,
            "A share solved the block and it could not be delivered to the template source.";
    }
    forward {
        ForwardAccepted = "forward_accepted", Nobody, Info, None,
            "The pool backend took the share.";
        ForwardRejected = "forward_rejected", Upstream, Error, None,
            "The pool backend refused the share for good.";
        ForwardRetrying = "forward_retrying", Upstream, Warning, None,
            "The pool backend did not take the shares yet; they will be sent again.";
        ForwardRecovered = "forward_recovered", Nobody, Info, None,
            "The pool backend takes shares again, or shares of an earlier run were taken up.";
    }
    forward_key {
        ForwardKeyChanged = "forward_key_changed", Operator, Info, None,
            "Another key signs what goes to the pool from now on.";
        ForwardKeyUnusable = "forward_key_unusable", Operator, Error, None,
            "The file of the signing key has changed and cannot be used; the key of before goes on.";
    }
    ledger {
        LedgerTailCut = "ledger_tail_cut", Nobody, Warning, None,
            "A write that a crash had cut short was removed from the end of the share ledger.";
        LedgerWriteFailed = "ledger_write_failed", Operator, Error, None,
            "The share ledger can no longer be relied on; no share is accepted until the gateway is restarted.";
        LedgerDiskFull = "ledger_disk_full", Operator, Error, None,
            "There is no room for the share ledger; shares are refused until there is.";
        LedgerResumed = "ledger_resumed", Nobody, Info, None,
            "There is room for the share ledger again; shares are accepted.";
        LedgerBacklogHigh = "ledger_backlog_high", Upstream, Warning, None,
            "Many shares wait for the pool backend; acknowledgements are slowed down.";
        LedgerRetired = "ledger_retired", Operator, Info, None,
            "Old and fully answered segments of the share ledger were removed.";
        LedgerKeyChanged = "ledger_key_changed", Operator, Info, None,
            "Another key signs the records of the share ledger from now on.";
        LedgerKeyUnusable = "ledger_key_unusable", Operator, Error, None,
            "The file of the ledger's keys has changed and cannot be used; the key of before goes on.";
    }
    api {
        ApiUnauthorized = "api_unauthorized", Peer, Warning, None,
            "The HTTP request does not carry the token, or comes from a web page.";
        ApiRequestInvalid = "api_request_invalid", Peer, Info, None,
            "The HTTP request is none that the gateway answers.";
        ApiForbidden = "api_forbidden", Peer, Warning, None,
            "The HTTP request would change something, and its token may only look.";
        ApiRateLimited = "api_rate_limited", Peer, Warning, None,
            "The peer sends more HTTP requests, or more wrong tokens, than it may.";
        ApiCapacityReached = "api_capacity_reached", Operator, Warning, None,
            "As many readers follow the event stream as may.";
        EventReaderTooSlow = "event_reader_too_slow", Peer, Warning, None,
            "The reader of the event stream was too slow: what it had not read is no longer in memory.";
        EventGap = "event_gap", Peer, Info, None,
            "The event to go on from is not in memory any more, or was one of another run; events are missing.";
        ApiTimeout = "api_timeout", Us, Warning, None,
            "The answer to the HTTP request took too long; what it asked for may still happen.";
    }
    record {
        RecordDropped = "record_dropped", Operator, Warning, None,
            "Judged templates were not recorded because they came faster than the disk takes them.";
        RecordWriteFailed = "record_write_failed", Operator, Error, None,
            "A judged template could not be recorded; judging goes on without.";
    }
    gateway {
        WorkMissing = "work_missing", Node, Warning, None,
            "No template became work, or in shadow mode was judged, since the start.";
        InternalError = "internal_error", Us, Error, None,
            "Something happened that the gateway's authors thought impossible; please report it.";
    }
    config {
        ConfigInvalid = "config_invalid", Operator, Error, None,
            "The configuration has faults; each is listed with its place.";
        ConfigReloaded = "config_reloaded", Operator, Info, None,
            "Keys of the configuration file have other values, which are in force now.";
        ConfigRestartNeeded = "config_restart_needed", Operator, Warning, None,
            "The configuration file has other values in keys that take effect at the next start only.";
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl JsonSchema for Reason {
    fn schema_name() -> Cow<'static, str> {
        "Reason".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let codes: Vec<_> = Self::ALL.iter().map(|reason| reason.code()).collect();
        json_schema!({ "description": "A reason code of the gateway.", "type": "string", "enum": codes })
    }
}

/// A reason code given by a policy: `[a-z][a-z0-9_]{2,63}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PolicyCode(String);

impl PolicyCode {
    /// The longest code a policy may return, in bytes.
    pub const MAX_LEN: usize = 64;

    /// Takes a code from a guest; `None` when it has not the form of a code.
    pub fn new(code: impl Into<String>) -> Option<Self> {
        let code = code.into();
        let mut bytes = code.bytes();
        let well_formed = (3..=Self::MAX_LEN).contains(&code.len())
            && bytes.next().is_some_and(|b| b.is_ascii_lowercase())
            && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        well_formed.then_some(Self(code))
    }

    /// The code as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a template was refused: by the gateway, or by a policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum VerdictCode {
    /// The gateway's own reason (a fault of the engine or of the template).
    Gateway(Reason),
    /// A policy's reason.
    Policy(PolicyCode),
}

impl VerdictCode {
    /// The code as text.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Gateway(reason) => reason.code(),
            Self::Policy(code) => code.as_str(),
        }
    }
}

impl fmt::Display for VerdictCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for VerdictCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl JsonSchema for VerdictCode {
    fn schema_name() -> Cow<'static, str> {
        "VerdictCode".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Why a template was refused: a reason code of the gateway, or one of a policy.",
            "type": "string",
            "pattern": "^[a-z][a-z0-9_]{2,63}$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn codes_are_unique_and_well_formed() {
        let mut seen = HashSet::new();
        for reason in Reason::ALL {
            assert!(PolicyCode::new(reason.code()).is_some(), "{reason} is not lower snake case");
            assert!(seen.insert(reason.code()), "{reason} is listed twice");
            assert!(reason.meaning().ends_with('.'), "{reason} has no sentence");
        }
    }

    #[test]
    fn wire_codes_are_printable_ascii() {
        for code in Reason::ALL.iter().filter_map(|r| r.sv2_code()) {
            assert!(code.bytes().all(|b| b.is_ascii_graphic()), "{code}");
        }
    }

    #[test]
    fn a_policy_code_with_odd_characters_is_refused() {
        for bad in ["", "ab", "Abc", "1abc", "a b c", "abc\n", "abc-def", &"a".repeat(65)] {
            assert!(PolicyCode::new(bad).is_none(), "{bad:?}");
        }
        assert!(PolicyCode::new("avg_fee_below_minimum").is_some());
    }
}
