//! The template sources as they are now: who leads, who is well, and on which tips they are.

use crate::reason::Reason;
use schemars::JsonSchema;
use serde::Serialize;
use std::sync::{Mutex, PoisonError};

/// All template sources, in the operator's order of preference.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct SourcesView {
    /// Each of them.
    pub sources: Vec<SourceView>,
    /// Those that answer are on the same tip, or have not been on different ones for long.
    pub tips_agree: bool,
}

/// One template source.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SourceView {
    /// What the operator calls it.
    pub name: String,
    /// Kind and address.
    pub address: String,
    /// How it is.
    pub state: SourceState,
    /// Since when, Unix time, milliseconds.
    pub since_ms: u64,
    /// The templates come from it.
    pub leads: bool,
    /// Its tip.
    pub tip: Option<String>,
    /// The height of its tip.
    pub height: Option<u32>,
    /// When its newest template came, Unix time, milliseconds.
    pub template_ms: Option<u64>,
    /// What is wrong with it.
    pub reason_code: Option<Reason>,
    /// The same in words.
    pub detail: Option<String>,
}

/// How a template source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SourceState {
    /// It has said nothing yet.
    Starting,
    /// It gives usable templates.
    Up,
    /// It fails.
    Down,
    /// It gave nothing new for longer than it may.
    Stale,
    /// Others have had a better tip for longer than blocks take to travel.
    Behind,
}

/// Where they are shown.
#[derive(Debug, Default)]
pub struct SourcesBoard(Mutex<SourcesView>);

impl SourcesBoard {
    /// From now on they are like this.
    pub fn show(&self, view: SourcesView) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = view;
    }

    /// How they are.
    pub fn look(&self) -> SourcesView {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The name of the source that leads.
    pub fn leader(&self) -> Option<String> {
        let view = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        view.sources.iter().find(|source| source.leads).map(|source| source.name.clone())
    }

    /// A source leads: there are templates.
    pub fn is_led(&self) -> bool {
        let view = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        view.sources.iter().any(|source| source.leads)
    }
}
