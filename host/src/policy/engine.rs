//! The wasmtime engine behind a policy set: what is switched on, what is limited, and its clock.
//!
//! Fuel decides, the clock only guards: fuel is counted by the compiled code and the same on every
//! machine, so running out of it is a fair verdict. The clock (a thread that ticks once a
//! millisecond) stops whatever fuel let through; missing it says something about this machine alone.
//! Everything that could make two machines disagree (threads, relaxed SIMD, NaN bits) is off.

use super::{cache::CodeCache, contract::Linkers, module::LoadedModules, ready::MAX_READY, set::PolicyFault};
use crate::reason::Reason;
use std::{
    fmt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, OperatorCost, PoolingAllocationConfig,
    ResourceLimiter, WasmFeatures,
};

/// Length of one epoch of the engine.
const TICK: Duration = Duration::from_millis(1);
/// Most core instances, memories and tables of one component. A Python component has 108 instances.
const MAX_INSTANCES: u32 = 128;
const MAX_MEMORIES: u32 = 4;
const MAX_TABLES: u32 = 16;
/// Most elements of all tables of one component together.
const MAX_TABLE_ELEMENTS: usize = 20_000;

/// The engine and the price list below. Change the number behind the `+` with every price.
const VERSION: &str = "wasmtime 48.0.8 + prices 1";

/// What a policy set may use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineLimits {
    /// Time for the whole set to judge one template, by the wall clock.
    pub deadline: Duration,
    /// Memory of one policy during one evaluation, bytes.
    pub memory_bytes: usize,
    /// Evaluations at the same time.
    pub workers: usize,
    /// Size of a module file, bytes.
    pub module_bytes: u64,
    /// Time to compile one module. A Python component takes half a minute.
    pub compile_time: Duration,
}

impl Default for EngineLimits {
    fn default() -> Self {
        Self {
            deadline: Duration::from_millis(50),
            memory_bytes: 64 << 20,
            workers: 2,
            module_bytes: 32 << 20,
            compile_time: Duration::from_secs(120),
        }
    }
}

impl EngineLimits {
    /// Ticks of the engine's clock that a duration takes, at least one.
    pub(super) fn ticks(duration: Duration) -> u64 {
        u64::try_from(duration.as_millis() / TICK.as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

/// The engine of this process: compiler, pool of instances, clock, and the modules that are loaded.
/// Made once and shared, so that any number of policy sets have one pool and one clock.
pub struct PolicyEngine {
    pub(super) engine: Engine,
    pub(super) linkers: Linkers,
    pub(super) limits: EngineLimits,
    /// The deadline in force, nanoseconds; the one of the limits is where it began.
    deadline: AtomicU64,
    /// Shared with the thread that compiles, which may outlive its caller's patience.
    pub(super) cache: Option<Arc<CodeCache>>,
    pub(super) modules: LoadedModules,
    /// Places for instances that are made ahead.
    pub(super) ready: Arc<Semaphore>,
}

impl PolicyEngine {
    /// Makes an engine and starts its clock. Instances come from a pool; where the address space for
    /// one cannot be reserved (`ulimit -v`, small containers), they are allocated one by one. With a
    /// `cache` folder compiled code is kept there; without one, each start compiles anew.
    ///
    /// # Errors
    /// When wasmtime does not start on this machine, or the folder cannot be used.
    pub fn start(limits: EngineLimits, cache: Option<&Path>) -> Result<Arc<Self>, PolicyFault> {
        let unavailable = |detail: String| PolicyFault {
            policy: String::new(),
            reason: Reason::PolicySetUnavailable,
            detail,
        };
        let broken =
            |error: wasmtime::Error| unavailable(format!("the policy engine does not start: {error:#}"));
        let (engine, ready) = make(&limits).map_err(broken)?;
        let linkers = Linkers::new(&engine).map_err(broken)?;
        let cache =
            cache.map(|dir| CodeCache::open(dir, &engine)).transpose().map_err(unavailable)?.map(Arc::new);
        let ready = Arc::new(Semaphore::new(ready as usize));
        let deadline = AtomicU64::new(nanos(limits.deadline));
        Ok(Arc::new(Self {
            engine,
            linkers,
            limits,
            deadline,
            cache,
            modules: LoadedModules::default(),
            ready,
        }))
    }

    /// What an evaluation may use up.
    pub fn limits(&self) -> &EngineLimits {
        &self.limits
    }

    /// What one policy set may take for its verdict.
    pub fn deadline(&self) -> Duration {
        Duration::from_nanos(self.deadline.load(Ordering::Relaxed))
    }

    /// Another deadline from now on.
    pub fn set_deadline(&self, deadline: Duration) {
        self.deadline.store(nanos(deadline), Ordering::Relaxed);
    }

    /// What a verdict's fuel depends on besides the module: the engine and the price list of its
    /// instructions. Stands in records, so that a replay knows what it can compare.
    pub fn version() -> &'static str {
        VERSION
    }
}

impl fmt::Debug for PolicyEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyEngine").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// The engine, and how many instances may be made ahead: where there is no address space for the pool, what
/// waits would take it from what is asked.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn make(limits: &EngineLimits) -> wasmtime::Result<(Engine, u32)> {
    let mut config = config();
    // A place for each verdict and, beside those, for monitored policies, for the replay of a proposed
    // set, and for the loading of one; and the places of what is made ahead.
    let slots = u32::try_from(limits.workers).unwrap_or(u32::MAX).clamp(1, 64) + 4 + MAX_READY;
    config.allocation_strategy(pool(limits, slots));
    let pooled = Engine::new(&config).map(|engine| (engine, MAX_READY));
    let (engine, ready) = pooled.or_else(|error| {
        tracing::warn!(
            %error,
            "no address space for a pool of policy instances (`ulimit -v`, a small container?); they are \
             allocated one by one, which makes every evaluation slower"
        );
        config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
        Engine::new(&config).map(|engine| (engine, 0))
    })?;
    start_clock(&engine)?;
    Ok((engine, ready))
}

fn config() -> Config {
    let mut cost = OperatorCost::default();
    cost.variable.memory_grow_per_page = u8::MAX; // free by default, and the kernel's work is not

    let mut config = Config::new();
    config
        .consume_fuel(true)
        .operator_cost(cost)
        .epoch_interruption(true)
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        .wasm_features(WasmFeatures::all(), false)
        .wasm_features(allowed(), true)
        .concurrency_support(false)
        .shared_memory(false)
        .memory_init_cow(true)
        .wasm_backtrace_max_frames(None);
    config
}

/// What guests may use: what compilers emit by default, and nothing that is not deterministic.
fn allowed() -> WasmFeatures {
    WasmFeatures::FLOATS
        | WasmFeatures::MUTABLE_GLOBAL
        | WasmFeatures::SIGN_EXTENSION
        | WasmFeatures::SATURATING_FLOAT_TO_INT
        | WasmFeatures::BULK_MEMORY
        | WasmFeatures::MULTI_VALUE
        | WasmFeatures::REFERENCE_TYPES
        | WasmFeatures::SIMD
        | WasmFeatures::TAIL_CALL
        | WasmFeatures::EXTENDED_CONST
        | WasmFeatures::COMPONENT_MODEL
}

fn pool(limits: &EngineLimits, slots: u32) -> InstanceAllocationStrategy {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(slots)
        .total_core_instances(slots * MAX_INSTANCES)
        .total_memories(slots * MAX_MEMORIES)
        .total_tables(slots * MAX_TABLES)
        .max_core_instances_per_component(MAX_INSTANCES)
        .max_memories_per_component(MAX_MEMORIES)
        .max_tables_per_component(MAX_TABLES)
        .table_elements(MAX_TABLE_ELEMENTS)
        .max_memory_size(limits.memory_bytes)
        .max_unused_warm_slots(slots)
        .pagemap_scan(Enabled::Auto);
    // Keeping a used memory mapped saves the page faults of the next evaluation, but without the
    // kernel's help (Linux 6.7) all of it would be wiped each time, which costs more.
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        pool.linear_memory_keep_resident(4 << 20).table_keep_resident(1 << 12);
    }
    InstanceAllocationStrategy::Pooling(pool)
}

/// Ticks for as long as the engine lives. Missed ticks are made up for, so a late thread does not
/// give guests more time.
fn start_clock(engine: &Engine) -> wasmtime::Result<()> {
    let engine = engine.weak();
    thread::Builder::new().name("policy-clock".into()).spawn(move || {
        let started = Instant::now();
        let mut ticks = 0;
        while let Some(engine) = engine.upgrade() {
            let due = started.elapsed().as_millis() / TICK.as_millis();
            while ticks < due {
                engine.increment_epoch();
                ticks += 1;
            }
            drop(engine);
            thread::sleep(TICK);
        }
    })?;
    Ok(())
}

/// A guest asked for more memory, or more data, than it may have.
#[derive(Debug, thiserror::Error)]
#[error("it asked for more than {limit} {unit}")]
pub(super) struct Exceeded {
    pub(super) limit: usize,
    pub(super) unit: &'static str,
}

/// Counts what one instance of a policy takes.
#[derive(Debug)]
pub(super) struct Limiter {
    memory_left: usize,
    memory_limit: usize,
    elements_left: usize,
}

impl Limiter {
    pub(super) fn new(limits: &EngineLimits) -> Self {
        Self {
            memory_left: limits.memory_bytes,
            memory_limit: limits.memory_bytes,
            elements_left: MAX_TABLE_ELEMENTS,
        }
    }

    /// Memory that the instance has, bytes. Memories never shrink, so it is also the most it had.
    pub(super) fn memory(&self) -> usize {
        self.memory_limit - self.memory_left
    }
}

/// Growth beyond a limit stops the guest at once instead of failing inside it: the answer is then the
/// same whatever the guest makes of a failed allocation, and whether instances come from the pool (whose
/// bounds are a `maximum` too) or not. Growth beyond its own bound alone fails inside, and takes nothing.
impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let exceeded = Exceeded { limit: self.memory_limit, unit: "bytes of memory" };
        grow(&mut self.memory_left, current, desired, maximum, exceeded)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let exceeded = Exceeded { limit: MAX_TABLE_ELEMENTS, unit: "table elements" };
        grow(&mut self.elements_left, current, desired, maximum, exceeded)
    }

    fn instances(&self) -> usize {
        MAX_INSTANCES as usize
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES as usize
    }

    fn tables(&self) -> usize {
        MAX_TABLES as usize
    }
}

fn grow(
    left: &mut usize,
    current: usize,
    desired: usize,
    maximum: Option<usize>,
    exceeded: Exceeded,
) -> wasmtime::Result<bool> {
    let Some(remaining) = left.checked_sub(desired.saturating_sub(current)) else {
        return Err(exceeded.into());
    };
    let allowed = maximum.is_none_or(|maximum| desired <= maximum);
    if allowed {
        *left = remaining;
    }
    Ok(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_that_stands_in_records_is_that_of_the_engine_that_is_built_in() {
        let lock: toml::Table = toml::from_str(include_str!("../../../Cargo.lock")).unwrap();
        let wasmtime = lock["package"]
            .as_array()
            .unwrap()
            .iter()
            .find(|package| package["name"].as_str() == Some("wasmtime"));
        let version = wasmtime.unwrap()["version"].as_str().unwrap();
        assert!(VERSION.starts_with(&format!("wasmtime {version} + prices ")), "{VERSION}, but {version}");
    }
}
