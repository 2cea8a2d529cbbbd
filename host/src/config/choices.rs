//! Values that are one of a few words.

use super::{
    section::KeyInfo,
    sections::{EmbeddedSource, NodeKeys, ProviderSource, ReplaySource},
    value::{Value, named},
};
use crate::{policy::Enforcement, record::source::Pace};
use std::str::FromStr;

/// Which kind of source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SourceKind {
    /// A Bitcoin node.
    Node,
    /// An SV2 Template Provider.
    Provider,
    /// The chain inside the process.
    Embedded,
    /// Recorded templates.
    Replay,
}

impl SourceKind {
    /// Every kind.
    pub(super) const ALL: [Self; 4] = [Self::Node, Self::Provider, Self::Embedded, Self::Replay];

    /// The keys that belong to it, `kind` aside.
    pub(super) fn keys(self) -> &'static [KeyInfo] {
        match self {
            Self::Node => NodeKeys::KEYS,
            Self::Provider => ProviderSource::KEYS,
            Self::Embedded => EmbeddedSource::KEYS,
            Self::Replay => ReplaySource::KEYS,
        }
    }
}

/// Whether the node checks assembled blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProposalCheck {
    /// It is not asked.
    Off,
    /// It is asked beside, and its answer is told.
    Watch,
    /// Its rejection is a rejection of the template.
    Gate,
}

/// What shares on a held job are worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldShares {
    /// They are accepted and marked as held.
    Accept,
    /// They are refused.
    Refuse,
}

/// When the policies are asked about a template without transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoinbaseOnly {
    /// Never.
    Off,
    /// When nothing else on a new tip is admitted.
    Fallback,
    /// Then, and before each new tip.
    Ahead,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

/// What is shown in the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Console {
    /// One readable line for each event.
    Text,
    /// Nothing.
    Off,
}

/// The form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Readable lines.
    Text,
    /// A JSON object a line.
    Json,
}

/// Reads an enum from its names.
macro_rules! names {
    ($kind:ident { $($name:literal => $variant:ident),+ }, $expected:literal) => {
        impl FromStr for $kind {
            type Err = ();
            fn from_str(text: &str) -> Result<Self, ()> {
                match text {
                    $($name => Ok(Self::$variant),)+
                    _ => Err(()),
                }
            }
        }
        named!($kind, $expected);
    };
}
names!(
    SourceKind {
        "node" => Node, "template_provider" => Provider, "embedded" => Embedded, "replay" => Replay
    },
    r#"a source; write "node", "template_provider", "embedded" or "replay""#
);
names!(Pace { "recorded" => Recorded, "fast" => Fast }, r#"a choice; write "recorded" or "fast""#);
names!(
    ProposalCheck { "off" => Off, "watch" => Watch, "gate" => Gate },
    r#"a choice; write "off", "watch" or "gate""#
);
names!(HeldShares { "accept" => Accept, "refuse" => Refuse }, r#"a choice; write "accept" or "refuse""#);
names!(
    CoinbaseOnly { "off" => Off, "fallback" => Fallback, "ahead" => Ahead },
    r#"a choice; write "off", "fallback" or "ahead""#
);
names!(Switch { "on" => On, "off" => Off }, r#"a switch; write "on" or "off""#);
names!(Enforcement { "enforce" => Enforce, "monitor" => Monitor }, r#"a choice; write "enforce" or "monitor""#);
names!(LogFormat { "text" => Text, "json" => Json }, r#"a choice; write "text" or "json""#);
names!(Console { "text" => Text, "off" => Off }, r#"a choice; write "text" or "off""#);
