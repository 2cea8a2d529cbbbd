//! The mode of the gateway: what a verdict is allowed to do.
//!
//! |                                                | shadow | observe                      | inline             |
//! |------------------------------------------------|--------|------------------------------|--------------------|
//! | miners are served                              | no     | yes                          | yes                |
//! | templates are judged                           | yes    | yes                          | yes                |
//! | a rejected template reaches miners             | n/a    | yes, logged `would_reject`   | never              |
//! | a verdict that does not come in time           | logged | logged, the template is used | held (fail closed) |
//! | a policy set that cannot be loaded at start    | exit   | exit                         | exit               |
//! | shares are validated, accounted and forwarded  | n/a    | yes                          | yes                |
//!
//! One key selects it, `mode`; changing it needs no other key.

use schemars::JsonSchema;
use serde::Serialize;
use std::{fmt, str::FromStr};

/// What a verdict is allowed to do. `Display`, `FromStr` and JSON use the lower-case name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Judge templates and log the verdicts; serve nobody.
    Shadow,
    /// Serve miners whatever the verdict, and log what would have been refused.
    Observe,
    /// Serve miners admitted templates only; without a verdict nothing new goes out.
    Inline,
}

impl Mode {
    /// Every mode, from the one that may do least to the one that may do most.
    pub const ALL: [Mode; 3] = [Mode::Shadow, Mode::Observe, Mode::Inline];

    /// The name used in configuration, events and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Shadow => "shadow",
            Mode::Observe => "observe",
            Mode::Inline => "inline",
        }
    }

    /// Whether miners are served, and shares accounted for, in this mode.
    pub const fn serves_miners(self) -> bool {
        !matches!(self, Mode::Shadow)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text names no mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(r#"is not a mode; write "shadow", "observe" or "inline""#)]
pub struct NotAMode;

impl FromStr for Mode {
    type Err = NotAMode;

    fn from_str(text: &str) -> Result<Self, NotAMode> {
        Self::ALL.into_iter().find(|mode| mode.name() == text).ok_or(NotAMode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mode_is_read_back_from_its_name() {
        for mode in Mode::ALL {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        assert_eq!("Inline".parse::<Mode>(), Err(NotAMode), "names are lower case");
    }

    #[test]
    fn only_shadow_serves_nobody() {
        assert_eq!(Mode::ALL.map(Mode::serves_miners), [false, true, true]);
    }
}
