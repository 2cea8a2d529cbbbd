//! Why nothing was changed: every reason, with its place.

use super::mode::Ended;
use crate::{
    config::{Config, ConfigFaults},
    event::schema::SwapFault,
    policy::{
        PolicyFault,
        store::{Busy, NoPreviousSet},
    },
    reason::Reason,
};
use schemars::JsonSchema;
use serde::Serialize;

/// Why nothing was changed.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Refused {
    /// The code.
    pub reason_code: Reason,
    /// The same in words.
    pub detail: String,
    /// Every single fault, where there are some.
    pub faults: Vec<SwapFault>,
}

impl Refused {
    /// For faults that were found when the rooms and the policies looked at a configuration.
    pub(super) fn new(config: &Config, of_rooms: Vec<String>, of_policies: Vec<PolicyFault>) -> Self {
        let place = |line: Option<usize>| {
            let line = line.map_or_else(String::new, |line| format!(":{line}"));
            format!("{}{line}", config.file.display())
        };
        let reason_code =
            if of_policies.is_empty() { Reason::ConfigInvalid } else { Reason::PolicySwapRefused };
        let line = |name: &str| config.policies.iter().find(|p| p.name == name).map(|p| p.line);
        let of_rooms = of_rooms.into_iter().map(|detail| SwapFault {
            place: place(None),
            policy: None,
            reason: Reason::ConfigInvalid,
            detail,
        });
        let of_policies = of_policies.into_iter().map(|fault| SwapFault {
            place: place(line(&fault.policy)),
            policy: Some(fault.policy).filter(|name| !name.is_empty()),
            reason: fault.reason,
            detail: fault.detail,
        });
        let faults: Vec<_> = of_rooms.chain(of_policies).collect();
        let detail = format!("the configuration has {} faults; nothing was changed", faults.len());
        Self { reason_code, detail, faults }
    }
}

impl From<ConfigFaults> for Refused {
    fn from(faults: ConfigFaults) -> Self {
        let fault = |(place, message): (String, &str)| SwapFault {
            place,
            policy: None,
            reason: Reason::ConfigInvalid,
            detail: message.to_owned(),
        };
        let faults: Vec<_> =
            faults.iter().map(|fault| (faults.place(fault), fault.message.as_str())).map(fault).collect();
        let detail = format!("the configuration has {} faults; nothing was changed", faults.len());
        Self { reason_code: Reason::ConfigInvalid, detail, faults }
    }
}

impl From<Ended> for Refused {
    fn from(_: Ended) -> Self {
        let detail = "the gateway is ending; the mode counts no more".into();
        Self { reason_code: Reason::ShutdownDrain, detail, faults: Vec::new() }
    }
}

impl From<Busy> for Refused {
    fn from(busy: Busy) -> Self {
        Self { reason_code: Busy::REASON, detail: busy.to_string(), faults: Vec::new() }
    }
}

impl From<NoPreviousSet> for Refused {
    fn from(none: NoPreviousSet) -> Self {
        Self { reason_code: NoPreviousSet::REASON, detail: none.to_string(), faults: Vec::new() }
    }
}
