//! SetupConnection: what a client asks for and what it gets.

use crate::reason::Reason;
use common_messages_sv2::{Protocol, SetupConnection, SetupConnectionSuccess};

/// The protocol version of the specification.
pub const VERSION: u16 = 2;

/// Client flag: only standard jobs, no groups.
pub const REQUIRES_STANDARD_JOBS: u32 = 1 << 0;
/// Client flag: it brings its own templates.
pub const REQUIRES_WORK_SELECTION: u32 = 1 << 1;
/// Client flag: it rolls version bits.
pub const REQUIRES_VERSION_ROLLING: u32 = 1 << 2;

/// Server flag: only extended channels, which is what a client with templates of its own needs.
pub const REQUIRES_EXTENDED_CHANNELS: u32 = 1 << 1;

/// Flags the gateway can satisfy, each for itself.
const SUPPORTED: u32 = REQUIRES_STANDARD_JOBS | REQUIRES_WORK_SELECTION | REQUIRES_VERSION_ROLLING;

/// A connection on which mining may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The client handles standard jobs only.
    pub standard_jobs_only: bool,
    /// The client brings its own work: it gets extended channels and no jobs of the pool.
    pub work_selection: bool,
}

/// A SetupConnection that is answered with SetupConnection.Error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why; its SV2 code goes into the message.
    pub reason: Reason,
    /// The whole set of unsupported flags; 0 where flags are not the reason.
    pub flags: u32,
}

/// Judges a SetupConnection.
///
/// # Errors
/// The refusal to send, after which the connection is closed.
pub fn judge(setup: &SetupConnection<'_>) -> Result<(Agreed, SetupConnectionSuccess), Refusal> {
    if setup.protocol != Protocol::MiningProtocol {
        return Err(Refusal { reason: Reason::UnsupportedProtocol, flags: 0 });
    }
    if !(setup.min_version..=setup.max_version).contains(&VERSION) {
        return Err(Refusal { reason: Reason::UnsupportedProtocolVersion, flags: 0 });
    }
    let agreed = Agreed {
        standard_jobs_only: setup.flags & REQUIRES_STANDARD_JOBS != 0,
        work_selection: setup.flags & REQUIRES_WORK_SELECTION != 0,
    };
    let mut unsupported = setup.flags & !SUPPORTED;
    if agreed.standard_jobs_only && agreed.work_selection {
        // Work of its own takes an extended channel, which standard jobs rule out.
        unsupported |= REQUIRES_WORK_SELECTION;
    }
    if unsupported != 0 {
        return Err(Refusal { reason: Reason::UnsupportedFeatureFlags, flags: unsupported });
    }
    let flags = if agreed.work_selection { REQUIRES_EXTENDED_CHANNELS } else { 0 };
    Ok((agreed, SetupConnectionSuccess { used_version: VERSION, flags }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn setup(protocol: Protocol, versions: (u16, u16), flags: u32) -> SetupConnection<'static> {
        let text = || "".try_into().unwrap();
        SetupConnection {
            protocol,
            min_version: versions.0,
            max_version: versions.1,
            flags,
            endpoint_host: text(),
            endpoint_port: 0,
            vendor: text(),
            hardware_version: text(),
            firmware: text(),
            device_id: text(),
        }
    }

    #[test]
    fn a_miner_with_an_empty_vendor_is_welcome() {
        let (agreed, success) = judge(&setup(Protocol::MiningProtocol, (2, 2), 0b101)).unwrap();
        assert!(agreed.standard_jobs_only);
        assert_eq!((success.used_version, success.flags), (2, 0));
    }

    #[test]
    fn a_client_with_its_own_work_is_told_to_use_extended_channels() {
        let (agreed, success) = judge(&setup(Protocol::MiningProtocol, (2, 2), 0b110)).unwrap();
        assert!(agreed.work_selection && !agreed.standard_jobs_only);
        assert_eq!(success.flags, REQUIRES_EXTENDED_CHANNELS);
        let refusal = judge(&setup(Protocol::MiningProtocol, (2, 2), 0b011)).unwrap_err();
        assert_eq!(refusal, Refusal { reason: Reason::UnsupportedFeatureFlags, flags: 0b010 });
    }

    #[test]
    fn another_protocol_is_refused() {
        let refusal = judge(&setup(Protocol::TemplateDistributionProtocol, (2, 2), 0)).unwrap_err();
        assert_eq!(refusal, Refusal { reason: Reason::UnsupportedProtocol, flags: 0 });
    }

    #[test]
    fn versions_that_do_not_include_two_are_refused() {
        for versions in [(0, 1), (3, 9), (2, 1)] {
            let refusal = judge(&setup(Protocol::MiningProtocol, versions, 0)).unwrap_err();
            assert_eq!(refusal.reason, Reason::UnsupportedProtocolVersion);
        }
    }

    #[test]
    fn every_unsupported_flag_is_named_at_once() {
        let refusal = judge(&setup(Protocol::MiningProtocol, (2, 2), 0xf000_000d)).unwrap_err();
        assert_eq!(refusal, Refusal { reason: Reason::UnsupportedFeatureFlags, flags: 0xf000_0008 });
    }
}
