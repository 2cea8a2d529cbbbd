//! The policy engine as the tools of this room use it.
//!
//! The clock is generous here: a machine that compiles beside it must not decide a test. Fuel, which
//! does not depend on the machine, is limited as in the gateway.

use super::InputFault;
use crate::{
    policy::{
        DEFAULT_FUEL, Enforcement, EngineLimits, Inputs, Judgement, PolicyEngine, PolicyFault, PolicyInfo,
        PolicySet, PolicySpec,
    },
    template::{Context, Template},
};
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

/// Time for a set to judge one template.
const DEADLINE: Duration = Duration::from_secs(30);

/// The engine, as the tools use it.
pub(super) struct Engine {
    engine: Arc<PolicyEngine>,
}

impl Engine {
    pub(super) fn start() -> Result<Self, InputFault> {
        Self::with_memory(EngineLimits::default().memory_bytes)
    }

    /// With so many bytes of memory for each policy, on which verdicts depend.
    pub(super) fn with_memory(memory_bytes: usize) -> Result<Self, InputFault> {
        let limits = EngineLimits { deadline: DEADLINE, memory_bytes, ..EngineLimits::default() };
        let engine = PolicyEngine::start(limits, None).map_err(|fault| InputFault(list(&[fault])))?;
        Ok(Self { engine })
    }

    pub(super) fn load(&self, specs: &[PolicySpec]) -> Result<PolicySet, Vec<PolicyFault>> {
        PolicySet::load(&self.engine, specs)
    }

    /// A set of one policy, and how long it took to load it.
    pub(super) fn load_one(
        &self,
        module: &Path,
        settings: serde_json::Value,
    ) -> Result<(PolicySet, Duration), InputFault> {
        let spec = PolicySpec {
            name: module.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            module: module.to_owned(),
            sha256: None,
            settings,
            fuel: DEFAULT_FUEL,
            enforcement: Enforcement::Enforce,
        };
        let started = Instant::now();
        match self.load(&[spec]) {
            Ok(set) => Ok((set, started.elapsed())),
            Err(faults) => Err(InputFault(list(&faults))),
        }
    }

    /// What a module says about itself, whatever settings it needs.
    pub(super) fn describe(&self, module: &Path) -> Result<PolicyInfo, PolicyFault> {
        self.engine.describe(module)
    }
}

/// Judges a template.
pub(super) fn judge(set: &PolicySet, template: &Arc<Template>, context: &Context) -> Judgement {
    set.evaluate(&Inputs { template: template.clone(), context: Arc::new(context.clone()) })
}

/// Memory that the first policy of a set came to have, bytes; `None` where the engine did not say.
pub(super) fn memory(judgement: &Judgement) -> Option<u64> {
    judgement.policies.first()?.memory_bytes.map(|bytes| bytes as u64)
}

/// Faults, one a line.
pub(super) fn list(faults: &[PolicyFault]) -> String {
    let lines: Vec<_> = faults.iter().map(|fault| format!("{}: {}", fault.reason, fault.detail)).collect();
    lines.join("\n")
}
