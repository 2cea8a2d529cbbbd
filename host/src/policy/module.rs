//! From a file to something that can be instantiated: read, checked against its pin, compiled, linked.
//!
//! A module's identity is the SHA-256 of its file. One that is loaded already is not loaded again, so a
//! swap of sets compiles only what is new; one that was compiled by an earlier run comes from the
//! [`CodeCache`](super::cache::CodeCache). Compiling can take long and cannot be stopped: it happens on
//! a thread of its own, one module at a time, and whoever waits for it gives up after a while. What it
//! made nevertheless is in the cache for the next attempt.

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
    fs::{self, File},
    io::{self, Read},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
        mpsc::{RecvTimeoutError, sync_channel},
    },
    thread,
    time::Duration,
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
        let component = self.compile(bytes, digest)?;
        self.modules.compiled.fetch_add(1, Ordering::Relaxed);
        Ok(component)
    }

    fn compile(&self, bytes: Vec<u8>, digest: [u8; 32]) -> Result<Component, Refused> {
        shape::check(&bytes).map_err(|problem| (Reason::PolicyModuleInvalid, problem))?;
        let limit = self.limits.compile_time;
        let (engine, cache) = (self.engine.clone(), self.cache.clone());
        let compile = move || {
            let component = compile(&engine, &bytes)?;
            // Here, so that a compilation that nobody waited for is not for nothing.
            if let Some(cache) = cache {
                cache.put(&digest, &component);
            }
            Ok(component)
        };
        let unavailable = |detail: String| (Reason::PolicySetUnavailable, detail);
        match in_turn(&self.modules.compiling, [limit; 2], compile) {
            Ok(compiled) => compiled.map_err(|problem| (Reason::PolicyModuleInvalid, problem)),
            Err(NotDone::TookTooLong) => Err((
                Reason::PolicyModuleInvalid,
                format!("it does not compile within {} s; a policy should be small", limit.as_secs()),
            )),
            Err(NotDone::NotBegun) => Err(unavailable(format!(
                "it was not compiled: for {} s the compiler was busy with another module; try again when that is \
                 done",
                limit.as_secs()
            ))),
            Err(NotDone::Failed) => {
                Err(unavailable("the compiler itself failed on it; please report it".into()))
            }
            Err(NotDone::NoThread(error)) => Err(unavailable(format!("no thread to compile it on: {error}"))),
        }
    }
}

/// Why there is no result of [`in_turn`].
#[derive(Debug)]
enum NotDone {
    /// Others had their turn for too long.
    NotBegun,
    /// It goes on, and nobody waits for it any more.
    TookTooLong,
    /// It panicked.
    Failed,
    NoThread(io::Error),
}

/// Runs work on a thread of its own when its turn comes. Waits for its turn, and then for its end, up to
/// so long each. Work that has begun goes on to its end, for the sake of what it leaves behind.
fn in_turn<T: Send + 'static>(
    turn: &Arc<Mutex<()>>,
    [for_turn, for_end]: [Duration; 2],
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, NotDone> {
    let turn = turn.clone();
    let (begin, begun) = sync_channel(0);
    let (done, outcome) = sync_channel(1);
    let run = move || {
        let _one_at_a_time = turn.lock().unwrap_or_else(PoisonError::into_inner);
        if begin.send(()).is_ok() {
            let _ = done.send(work()); // nobody listens when it took too long
        }
    };
    thread::Builder::new().name("policy-compiler".into()).spawn(run).map_err(NotDone::NoThread)?;
    begun.recv_timeout(for_turn).map_err(|_| NotDone::NotBegun)?;
    outcome.recv_timeout(for_end).map_err(|error| match error {
        RecvTimeoutError::Timeout => NotDone::TookTooLong,
        RecvTimeoutError::Disconnected => NotDone::Failed,
    })
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
    // Asked before it is opened: opening a pipe waits for somebody to write into it, perhaps for ever.
    if !fs::metadata(path).map_err(cannot)?.is_file() {
        return Err(format!("cannot read {}: it is not a file", path.display()));
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::EngineLimits;

    const SHORT: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn work_whose_turn_does_not_come_is_not_begun() {
        let turn = Arc::default();
        let busy = Mutex::lock(&turn).unwrap();
        let result = in_turn(&turn, [SHORT, LONG], || unreachable!("it has no turn"));
        assert!(matches!(result, Err::<(), _>(NotDone::NotBegun)));
        drop(busy);
        assert_eq!(in_turn(&turn, [LONG; 2], || 7).unwrap(), 7);
    }

    #[test]
    fn work_that_nobody_waits_for_any_more_goes_on_to_its_end() {
        let turn = Arc::default();
        let (go, may_end) = sync_channel::<()>(1);
        let (end, ended) = sync_channel(1);
        let work = move || {
            may_end.recv().unwrap();
            end.send("the end").unwrap();
        };
        let result = in_turn(&turn, [LONG, SHORT], work);
        assert!(matches!(result, Err(NotDone::TookTooLong)), "{result:?}");
        go.send(()).unwrap();
        assert_eq!(ended.recv_timeout(LONG).unwrap(), "the end");
    }

    #[test]
    fn work_that_panics_is_told_apart_from_work_that_takes_long() {
        let result = in_turn(&Arc::default(), [LONG; 2], || panic!("a defect"));
        assert!(matches!(result, Err::<(), _>(NotDone::Failed)));
    }

    #[test]
    fn a_module_behind_another_one_is_not_called_invalid() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("empty.wasm");
        fs::write(&path, wat::parse_str("(component)").unwrap()).unwrap();
        let limits = EngineLimits { compile_time: SHORT, ..EngineLimits::default() };
        let engine = PolicyEngine::start(limits, None).unwrap();
        let _busy = engine.modules.compiling.lock().unwrap();
        let (reason, detail) = engine.load(&path, None).map(drop).unwrap_err();
        assert_eq!(reason, Reason::PolicySetUnavailable);
        assert!(detail.contains("busy with another module"), "{detail}");
    }
}
