//! From a file to something that can be instantiated: read, checked against its pin, compiled, linked.
//!
//! A module's identity is the SHA-256 of its file. One that is loaded already is not loaded again, so a
//! swap of sets compiles only what is new; one that was compiled by an earlier run comes from the
//! [`CodeCache`](super::cache::CodeCache). Compiling can take long and cannot be stopped: it happens on
//! a thread of its own, one module at a time, and whoever waits for it gives up after a while.

use super::{
    contract::{Guest, Version},
    engine::PolicyEngine,
    shape,
    verdict::one_line,
};
use crate::reason::Reason;
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    fs::File,
    io::Read,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
        mpsc::{RecvTimeoutError, sync_channel},
    },
    thread,
    time::Instant,
};
use wasmtime::{Engine, component::Component};

/// A module that is ready to be instantiated.
pub(super) struct Module {
    /// SHA-256 of its file.
    pub(super) digest: [u8; 32],
    /// The version of the contract that it speaks.
    pub(super) version: Version,
    pub(super) guest: Box<dyn Guest>,
}

/// The modules that some policy set has in use, by digest.
#[derive(Default)]
pub(super) struct LoadedModules {
    known: Mutex<HashMap<[u8; 32], Weak<Module>>>,
    /// Held while a thread compiles; shared with that thread, which may outlive its caller's patience.
    compiling: Arc<Mutex<()>>,
    compiled: AtomicU64,
    from_cache: AtomicU64,
}

/// How often modules were made ready, since the engine started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loads {
    /// By compiling them.
    pub compiled: u64,
    /// From compiled code on disk.
    pub from_cache: u64,
}

/// Why there is no module: the code, and what is wrong, where, and what to do about it.
pub(super) type Refused = (Reason, String);

impl PolicyEngine {
    /// Loads the module in a file, which must have the digest `pinned` where one is given.
    pub(super) fn load(&self, path: &Path, pinned: Option<[u8; 32]>) -> Result<Arc<Module>, Refused> {
        let named = |problem: String| format!("{}: {problem}", path.display());
        let bytes =
            read(path, self.limits.module_bytes).map_err(|detail| (Reason::PolicySetUnavailable, detail))?;
        let digest: [u8; 32] = Sha256::digest(&bytes).into();
        if pinned.is_some_and(|pinned| pinned != digest) {
            let detail = format!(
                "{} has the sha256 {}, not the one that the configuration pins; take the pinned file, or pin \
                 this one if it is what you want",
                path.display(),
                hex::encode(digest)
            );
            return Err((Reason::PolicyModuleInvalid, detail));
        }
        if let Some(module) = self.modules.get(&digest) {
            return Ok(module);
        }
        let component =
            self.component(bytes, digest).map_err(|(reason, problem)| (reason, named(problem)))?;
        let version = Version::of(&self.engine, &component)
            .map_err(|problem| (Reason::PolicyImportRefused, named(problem)))?;
        let guest = self.linkers.link(version, &component).map_err(|error| {
            let problem = one_line(&format!("it does not fit the contract: {error:#}"));
            (Reason::PolicyModuleInvalid, named(problem))
        })?;
        let module = Arc::new(Module { digest, version, guest });
        self.modules.keep(&module);
        Ok(module)
    }

    /// How modules were made ready so far.
    pub fn loads(&self) -> Loads {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Loads { compiled: count(&self.modules.compiled), from_cache: count(&self.modules.from_cache) }
    }

    fn component(&self, bytes: Vec<u8>, digest: [u8; 32]) -> Result<Component, Refused> {
        let invalid = |problem: String| (Reason::PolicyModuleInvalid, problem);
        check_kind(&bytes).map_err(invalid)?;
        if let Some(component) = self.cache.as_ref().and_then(|cache| cache.get(&self.engine, &digest)) {
            self.modules.from_cache.fetch_add(1, Ordering::Relaxed);
            return Ok(component);
        }
        let component = self.compile(bytes)?;
        self.modules.compiled.fetch_add(1, Ordering::Relaxed);
        if let Some(cache) = &self.cache {
            cache.put(&digest, &component);
        }
        Ok(component)
    }

    fn compile(&self, bytes: Vec<u8>) -> Result<Component, Refused> {
        shape::check(&bytes).map_err(|problem| (Reason::PolicyModuleInvalid, problem))?;
        let limit = self.limits.compile_time;
        let began = Instant::now();
        let (engine, compiling) = (self.engine.clone(), self.modules.compiling.clone());
        let (done, outcome) = sync_channel(1);
        let compile = move || {
            let _one_at_a_time = compiling.lock().unwrap_or_else(PoisonError::into_inner);
            if began.elapsed() < limit {
                let _ = done.send(compile(&engine, &bytes)); // nobody listens when it took too long
            }
        };
        let failed = |detail: String| (Reason::PolicySetUnavailable, detail);
        thread::Builder::new()
            .name("policy-compiler".into())
            .spawn(compile)
            .map_err(|error| failed(format!("no thread to compile it on: {error}")))?;
        match outcome.recv_timeout(limit) {
            Ok(compiled) => compiled.map_err(|problem| (Reason::PolicyModuleInvalid, problem)),
            Err(RecvTimeoutError::Timeout) => Err((
                Reason::PolicyModuleInvalid,
                format!(
                    "it does not compile within {} s (or another module keeps the compiler busy); a policy should \
                     be small",
                    limit.as_secs()
                ),
            )),
            Err(RecvTimeoutError::Disconnected) => {
                Err(failed("the compiler did not finish; another module keeps it busy, or it failed".into()))
            }
        }
    }
}

impl LoadedModules {
    fn get(&self, digest: &[u8; 32]) -> Option<Arc<Module>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(digest)?.upgrade()
    }

    fn keep(&self, module: &Arc<Module>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, module| module.strong_count() > 0);
        known.insert(module.digest, Arc::downgrade(module));
    }
}

fn read(path: &Path, max: u64) -> Result<Vec<u8>, String> {
    let cannot = |error| format!("cannot read {}: {error}", path.display());
    let mut bytes = Vec::new();
    File::open(path).map_err(cannot)?.take(max + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > max {
        return Err(format!("{} is larger than {max} bytes, the limit for a module", path.display()));
    }
    Ok(bytes)
}

/// Says what a file is when it is no component, before the compiler says it in its own words.
fn check_kind(bytes: &[u8]) -> Result<(), String> {
    let advice = "build the policy with `reservegrid policy build`";
    match bytes.get(..8) {
        Some([0, b'a', b's', b'm', 1, 0, 0, 0]) => {
            Err(format!("this is a core WebAssembly module and not a component; {advice}"))
        }
        Some([0, b'a', b's', b'm', ..]) => Ok(()),
        _ => Err(format!("this is not WebAssembly; {advice}")),
    }
}

fn compile(engine: &Engine, bytes: &[u8]) -> Result<Component, String> {
    Component::from_binary(engine, bytes)
        .map_err(|error| one_line(&format!("this is not a component that the engine takes: {error:#}")))
}
