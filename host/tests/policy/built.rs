//! The policies as `make policies` builds them.

use std::path::{Path, PathBuf};

/// The component of a policy.
pub(crate) fn module(name: &str) -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/policies");
    let dir = std::env::var_os("RESERVEGRID_POLICY_DIR").map_or(default, PathBuf::from);
    let path = dir.join(name).with_extension("wasm");
    assert!(path.is_file(), "{} is not there: run `make policies`", path.display());
    path
}
