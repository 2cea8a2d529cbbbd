//! Policies written by hand: a core module in WAT with the contract's exports, made a component with the
//! WIT files that host and SDK use.

use anyhow::Result;
use std::path::Path;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// A policy that loads without fault and whose `evaluate` has this body: `(param i32 i32) (result i32)`,
/// the settings in, the address of a verdict out. At 1024 there is one that accepts.
pub(crate) fn component(evaluate: &str) -> Result<Vec<u8>> {
    let module = format!(
        r#"(module
  (memory (export "memory") 2)
  (data (i32.const 16) "by-hand")
  (data (i32.const 32) "{{}}")
  ;; metadata at 128: name, version, summary, no codes, settings schema
  (data (i32.const 128) "{metadata}")
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    ;; settings and rows all go to the same place: nobody here reads them
    i32.const 65536)
  (func (export "metadata") (result i32) i32.const 128)
  (func (export "validate-settings") (param i32 i32) (result i32) i32.const 1024)
  (func (export "evaluate") (param i32 i32) (result i32) {evaluate})
)"#,
        metadata = words(&[16, 7, 16, 7, 16, 7, 0, 0, 32, 2]),
    );
    let mut module = wat::parse_str(&module)?;
    let mut resolve = Resolve::default();
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit/policy-0.1.0");
    let (package, _) = resolve.push_path(wit)?;
    let world = resolve.select_world(&[package], Some("template-policy"))?;
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    ComponentEncoder::default().validate(true).module(&module)?.encode()
}

/// 32-bit numbers as the bytes of a WAT data segment.
fn words(numbers: &[u32]) -> String {
    numbers.iter().flat_map(|number| number.to_le_bytes()).map(|byte| format!("\\{byte:02x}")).collect()
}
