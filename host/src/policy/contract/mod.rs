//! The policy contract as the host answers it: one adapter per published version, the same state behind.
//!
//! The host keeps the template; the guest pulls what it needs, a range of rows a call. Nothing here
//! parses or hashes: the facts were derived once, in the template room. Each call is charged to a
//! budget of bytes, because wasmtime counts neither the host's work nor its copies as fuel.
//!
//! A version of the contract is a folder in `wit/` and a file here. Which one a module speaks is read
//! off the names of its imports, once, when it is loaded; from then on it is a [`Guest`] like any other,
//! whose answers have the types of the newest version.

mod v0_1_0;

use super::engine::{EngineLimits, Exceeded, Limiter};
use crate::template::{Context, Template, facts::Facts};
use std::{ops::Range, sync::Arc};
use wasmtime::{
    Engine, Store,
    component::{Component, Linker},
};

/// The types of the newest version: what every adapter's answers are made into.
pub(super) use v0_1_0::reservegrid::policy::types;

/// Interfaces that may be imported begin with this; anything else is refused when a module is loaded.
const INTERFACES: &str = "reservegrid:policy/";

/// Most rows of a column in one call.
const MAX_ROWS: usize = 16_384;
/// What one evaluation may be given in all, bytes.
const MAX_BYTES: usize = 64 << 20;
/// What a call costs on top of the bytes that it copies.
const CALL_COST: usize = 64;
/// Lines and bytes a line that `log` keeps.
const MAX_LOG_LINES: u32 = 64;
const MAX_LOG_LINE: usize = 512;

/// A published version of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `reservegrid:policy@0.1.0`.
    V0_1_0,
}

impl Version {
    /// Every version that modules may be built against, oldest first.
    pub const SERVED: &'static [Self] = &[Self::V0_1_0];

    /// As it stands behind the `@` of import names.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
        }
    }

    /// The version that a component speaks, by its imports; one without imports cannot tell, and is
    /// taken to speak the oldest.
    ///
    /// # Errors
    /// What is imported that may not be, in words.
    pub(super) fn of(engine: &Engine, component: &Component) -> Result<Self, String> {
        let mut found = None;
        for (name, _) in component.component_type().imports(engine) {
            let shown = super::verdict::shown(name);
            let Some((_, version)) = name.strip_prefix(INTERFACES).and_then(|rest| rest.split_once('@'))
            else {
                return Err(format!(
                    "the module imports {shown}; a policy may import {INTERFACES}* and nothing else"
                ));
            };
            let served = Self::SERVED.iter().find(|served| served.as_str() == version);
            match (served, found) {
                (None, _) => {
                    let served: Vec<_> = Self::SERVED.iter().map(|version| version.as_str()).collect();
                    return Err(format!(
                        "the module imports {shown}; this gateway serves version {} of the contract",
                        served.join(", ")
                    ));
                }
                (Some(version), Some(other)) if *version != other => {
                    return Err("the module imports two versions of the contract".into());
                }
                (version, _) => found = version.copied(),
            }
        }
        Ok(found.unwrap_or(Self::SERVED[0]))
    }
}

/// A component that is linked to the contract and has not been started.
pub(super) trait Guest: Send + Sync {
    /// Makes an instance in a store, and calls nothing.
    fn instantiate(&self, store: &mut Store<State>) -> wasmtime::Result<Box<dyn Instance>>;
}

/// An instance of a component. Its functions take the store that it was made in.
pub(super) trait Instance: Send {
    fn metadata(&self, store: &mut Store<State>) -> wasmtime::Result<types::PolicyMetadata>;

    fn validate_settings(
        &self,
        store: &mut Store<State>,
        settings: &str,
    ) -> wasmtime::Result<Result<(), Vec<types::SettingsFault>>>;

    fn evaluate(&self, store: &mut Store<State>, settings: &str) -> wasmtime::Result<types::Verdict>;
}

/// The linkers of all versions. Made once an engine.
pub(super) struct Linkers {
    v0_1_0: Linker<State>,
}

impl Linkers {
    pub(super) fn new(engine: &Engine) -> wasmtime::Result<Self> {
        Ok(Self { v0_1_0: v0_1_0::linker(engine)? })
    }

    /// Links a component to the version that it speaks.
    pub(super) fn link(&self, version: Version, component: &Component) -> wasmtime::Result<Box<dyn Guest>> {
        match version {
            Version::V0_1_0 => v0_1_0::link(&self.v0_1_0, component),
        }
    }
}

/// What a template is judged by: itself, and the world around it at that moment.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// The template.
    pub template: Arc<Template>,
    /// The world around it.
    pub context: Arc<Context>,
}

/// A guest asked for the template while it was loaded.
#[derive(Debug, thiserror::Error)]
#[error("it asked for the template while it was loaded; there is one in `evaluate` alone")]
pub(super) struct TooEarly;

/// A guest asked for something that nobody knows of this template, and that its contract has no word for.
#[derive(Debug, thiserror::Error)]
#[error(
    "it asked for {0}, which the source of the template does not say; use a node as source, or settings of the policy that do not need it"
)]
pub(super) struct Unknown(pub(super) &'static str);

/// What the store of one instance holds.
pub(super) struct State {
    /// `None` while a module is loaded, or an instance made: there is nothing to look at yet.
    pub(super) inputs: Option<Inputs>,
    pub(super) limiter: Limiter,
    /// The guest asked how the template differs from what was declared.
    pub(super) asked_for_discrepancies: bool,
    bytes_left: usize,
    log_lines: u32,
}

impl State {
    pub(super) fn new(limits: &EngineLimits) -> Self {
        Self {
            inputs: None,
            limiter: Limiter::new(limits),
            asked_for_discrepancies: false,
            bytes_left: MAX_BYTES,
            log_lines: 0,
        }
    }

    fn inputs(&self) -> wasmtime::Result<&Inputs> {
        self.inputs.as_ref().ok_or_else(|| TooEarly.into())
    }

    fn template(&self) -> wasmtime::Result<&Template> {
        Ok(&self.inputs()?.template)
    }

    fn context(&self) -> wasmtime::Result<&Context> {
        Ok(&self.inputs()?.context)
    }

    fn charge(&mut self, bytes: usize) -> wasmtime::Result<()> {
        match self.bytes_left.checked_sub(bytes.saturating_add(CALL_COST)) {
            Some(left) => self.bytes_left = left,
            None => return Err(Exceeded { limit: MAX_BYTES, unit: "bytes of template data" }.into()),
        }
        Ok(())
    }

    /// The asked-for rows that exist, charged at `width` bytes each.
    fn rows(&mut self, start: u32, count: u32, width: usize) -> wasmtime::Result<(&Inputs, Range<usize>)> {
        let total = self.template()?.transactions.len();
        let start = (start as usize).min(total);
        let rows = start..total.min(start + (count as usize).min(MAX_ROWS));
        self.charge(rows.len() * width)?;
        Ok((self.inputs()?, rows))
    }

    /// Rows of a column: all of them as they are, a part of them as a copy.
    fn column<T: Clone>(
        &mut self,
        start: u32,
        count: u32,
        of: impl Fn(&Facts) -> Result<&Arc<[T]>, Unknown>,
    ) -> wasmtime::Result<Arc<[T]>> {
        let (inputs, rows) = self.rows(start, count, size_of::<T>())?;
        let column = of(&inputs.template.facts)?;
        Ok(if rows.len() == column.len() { column.clone() } else { column[rows].into() })
    }

    /// One line of a guest's log; what is too much is dropped.
    fn log(&mut self, message: &str) -> wasmtime::Result<()> {
        self.charge(message.len())?;
        if self.log_lines < MAX_LOG_LINES {
            self.log_lines += 1;
            let end = message.floor_char_boundary(MAX_LOG_LINE);
            tracing::debug!(target: "reservegrid::policy::guest", "{:?}", &message[..end]);
        }
        Ok(())
    }
}
