//! Components written by hand: a core module in WAT with the contract's exports, made a component with
//! the WIT files that host and SDK use. Each test supplies the body of `evaluate`.

use std::path::Path;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// A policy that loads without fault and whose `evaluate` has this body: `(param i32 i32) (result
/// i32)`, the settings in, the address of a verdict out. At 1024 there is one that accepts.
pub(crate) fn component(evaluate: &str) -> Vec<u8> {
    let module = format!(
        r#"(module
  (import "reservegrid:policy/template@0.1.0" "raw-transaction" (func $raw-transaction (param i32 i32)))
  (import "reservegrid:policy/template@0.1.0" "discrepancies" (func $discrepancies (param i32)))
  (memory (export "memory") 2)
  (data (i32.const 16) "hostile")
  (data (i32.const 32) "{{}}")
  (data (i32.const 48) "listed_code")
  ;; metadata at 128: name, version, summary, one code, settings schema
  (data (i32.const 128) "{metadata}")
  (data (i32.const 192) "{code}")
  (global $next (mut i32) (i32.const 65536))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    ;; settings and rows all go to the same place: nobody here reads them
    (global.get $next))
  (func (export "metadata") (result i32) i32.const 128)
  (func (export "validate-settings") (param i32 i32) (result i32) i32.const 1024)
  (func $recurse (param i32) (call $recurse (local.get 0)) (call $recurse (local.get 0)))
  (func (export "evaluate") (param i32 i32) (result i32) {evaluate})
)"#,
        metadata = words(&[16, 7, 16, 7, 16, 7, 192, 1, 32, 2]),
        code = words(&[48, 11, 16, 7]),
    );
    let mut module = wat::parse_str(&module).expect("the WAT is well-formed");
    let mut resolve = Resolve::default();
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit/policy-0.1.0");
    let (package, _) = resolve.push_path(wit).expect("the contract parses");
    let world =
        resolve.select_world(&[package], Some("template-policy")).expect("the contract has its world");
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
        .expect("metadata is embedded");
    let encoder = ComponentEncoder::default().validate(true).module(&module).expect("the module fits");
    { encoder }.encode().expect("the component is encoded")
}

/// A body of `evaluate` that rejects with this code, this detail, and so many context entries, all
/// of them `entry: false`.
pub(crate) fn reject(code: &str, detail: &str, entries: u32) -> String {
    let (code_at, detail_at, name_at, entries_at) = (2048, 4096, 8192, 16384);
    let mut body = String::new();
    for (at, text) in [(code_at, code), (detail_at, detail), (name_at, "entry")] {
        for (offset, byte) in text.bytes().enumerate() {
            body += &format!("(i32.store8 (i32.const {}) (i32.const {byte}))\n", at + offset);
        }
    }
    // An entry: name (address, length), discriminant 0 for a boolean, value 0; 24 bytes.
    for entry in 0..entries.min(20) as usize {
        let at = entries_at + 24 * entry;
        body += &format!("(i32.store (i32.const {at}) (i32.const {name_at}))\n");
        body += &format!("(i32.store (i32.const {}) (i32.const 5))\n", at + 4);
    }
    let fields = [1, code_at, code.len(), detail_at, detail.len(), entries_at, entries as usize];
    for (index, field) in fields.into_iter().enumerate() {
        body += &format!("(i32.store (i32.const {}) (i32.const {field}))\n", 1024 + 4 * index);
    }
    body + "i32.const 1024"
}

/// 32-bit numbers as the bytes of a WAT data segment.
fn words(numbers: &[u32]) -> String {
    numbers.iter().flat_map(|number| number.to_le_bytes()).map(|byte| format!("\\{byte:02x}")).collect()
}
