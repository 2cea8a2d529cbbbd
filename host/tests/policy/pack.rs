//! The standard pack with settings that an ordinary pool might have, for tests and benches: through the
//! engine, and natively.

use super::templates;
use bitcoin::{consensus::encode::serialize, hashes::Hash};
use reservegrid::{
    policy::{DEFAULT_FUEL, Enforcement, Inputs, PolicySpec},
    template::Context,
};
use reservegrid_policy_sdk as sdk;
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// The policies in the order in which an operator lists them.
pub(crate) const NAMES: [&str; 6] =
    ["integrity", "limits", "coinbase-guard", "mempool-agreement", "revenue-guard", "fee-floor"];

/// The component of a policy, as `make policies` builds it.
pub(crate) fn module(name: &str) -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/policies");
    let dir = std::env::var_os("RESERVEGRID_POLICY_DIR").map_or(default, PathBuf::from);
    let path = dir.join(name).with_extension("wasm");
    assert!(path.is_file(), "{} is not there: run `make policies`", path.display());
    path
}

/// Settings under which [`inputs`] are accepted.
fn settings(name: &str) -> Value {
    match name {
        "coinbase-guard" => json!({ "tag": "/test/" }),
        "fee-floor" => json!({
            "min_avg_fee": { "low": 1, "mid": 1, "high": 1 }, "min_total_fees": 1, "min_fee_rate": 1_000
        }),
        _ => json!({}),
    }
}

pub(crate) fn spec(name: &str) -> PolicySpec {
    PolicySpec {
        name: name.into(),
        module: PathBuf::new(),
        sha256: None,
        settings: settings(name),
        fuel: DEFAULT_FUEL,
        enforcement: Enforcement::Enforce,
    }
}

/// The whole pack.
pub(crate) fn specs() -> Vec<PolicySpec> {
    NAMES.map(|name| PolicySpec { module: module(name), ..spec(name) }).to_vec()
}
