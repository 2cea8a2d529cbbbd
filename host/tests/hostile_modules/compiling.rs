//! Modules that are made to be slow, or large, to compile: refused before the compiler sees them, because
//! it cannot be stopped once it began.
//!
//! The sizes are those at which a module would take minutes or gigabytes (measured with wasmtime 48; see
//! `host/src/policy/shape.rs`). A test that let one through would not end.

use super::{
    engine::{alone, assert_fault, loaded, most_resident, patient, refused, spec},
    guest::Guest,
};
use reservegrid::{
    policy::{DEFAULT_FUEL, EngineLimits, Loads, PolicyEngine, PolicyFault, PolicySet},
    reason::Reason,
};
use serde_json::json;
use std::{
    fs, thread,
    time::{Duration, Instant},
};

/// Asserts that a module is refused for what there is too much of, and cheaply.
fn too_much(guest: &Guest, words: &str) {
    let module = guest.component();
    let _alone = alone();
    let before = most_resident();
    let fault = refused(&module, DEFAULT_FUEL);
    assert_fault(&fault, Reason::PolicyModuleInvalid, words);
    let grown = most_resident().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes to refuse {} bytes", module.len());
}

fn fields(fields: String) -> Guest {
    Guest { fields, ..Guest::default() }
}

#[test]
fn nested_components_cannot_multiply() {
    // Ten levels, each with ten copies of the one below it: ten thousand million instances in 600 bytes.
    let mut nested = "(component $c0 (core module $m) (core instance (instantiate $m)))".to_owned();
    for level in 1..10 {
        let below = format!("(instance (instantiate $c{}))", level - 1).repeat(10);
        nested = format!("(component $c{level} {nested} {below})");
    }
    let before = format!("{nested} (instance (instantiate $c9))");
    too_much(&Guest { before, ..Guest::default() }, "instances of nested components");
}

#[test]
fn more_modules_than_a_policy_can_need_are_refused() {
    let before = "(core module)".repeat(300);
    too_much(&Guest { before, ..Guest::default() }, "modules and components");
    let before = format!("(core module $m) {}", "(core instance (instantiate $m))".repeat(300));
    too_much(&Guest { before, ..Guest::default() }, "core instances");
}

#[test]
fn more_functions_than_an_interpreter_has_are_refused() {
    too_much(&fields("(func)".repeat(41_000)), "functions");
}

#[test]
fn a_function_that_is_larger_than_an_interpreters_main_loop_is_refused() {
    let body = "(i32.store (local.get 0) (i32.load (local.get 0)))".repeat(60_000);
    too_much(&fields(format!("(func (param i32) {body})")), "bytes in one function");
}

#[test]
fn more_code_than_an_interpreter_has_is_refused() {
    let body = "(i32.store (local.get 0) (i32.load (local.get 0)))".repeat(40_000);
    too_much(&fields(format!("(func (param i32) {body})").repeat(45)), "bytes of code");
}

#[test]
fn loops_inside_each_other_are_bounded() {
    let (begin, end) = ("(loop ".repeat(10_000), "(br_if 0 (local.get 0)))".repeat(10_000));
    too_much(&fields(format!("(func (param i32) {begin}{end})")), "loops inside each other");
}

#[test]
fn local_variables_are_bounded() {
    too_much(&fields(format!("(func (local {}))", "i64 ".repeat(49_000))), "local variables");
}

#[test]
fn jump_tables_are_bounded() {
    let table = format!("(func (param i32) (block (br_table {} (local.get 0))))", "0 ".repeat(70_000));
    too_much(&fields(table), "jump targets");
}

#[test]
fn data_segments_are_bounded() {
    too_much(&fields("(data (i32.const 0) \"x\")".repeat(11_000)), "data segments");
}

#[test]
fn functions_and_blocks_with_hundreds_of_values_are_refused() {
    let many = "i64 ".repeat(900);
    too_much(&fields(format!("(type (func (param {many}) (result {many})))")), "parameters or results");
    let shape = "(type $t (func (param i64 i64) (result i64 i64)))";
    let blocks = "loop (type $t) (br_if 0 (i32.const 1)) end ".repeat(3000);
    let body = format!("{shape} (func (type $t) local.get 0 local.get 1 {blocks})");
    too_much(&fields(body), "blocks that take or give several values");
}

#[test]
fn a_module_that_does_not_compile_in_time_is_refused_and_its_code_is_there_the_next_time() {
    let _alone = alone();
    let body = "(i32.store (local.get 0) (i32.load (local.get 0)))".repeat(200);
    let module = fields(format!("(func (param i32) {body})").repeat(300)).component();
    let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = dir.path().join("slow.wasm");
    fs::write(&path, module).unwrap();
    let specs = [spec("slow", path, DEFAULT_FUEL, json!({}))];

    let hasty = EngineLimits { compile_time: Duration::from_millis(20), ..patient() };
    let engine = PolicyEngine::start(hasty, Some(cache.path())).unwrap();
    // On a machine that is busy even the beginning may take so long, which is another answer.
    let began = |fault: &PolicyFault| fault.reason != Reason::PolicySetUnavailable;
    let mut faults = (0..1_000).map(|_| PolicySet::load(&engine, &specs).unwrap_err().remove(0));
    assert_fault(&faults.find(began).unwrap(), Reason::PolicyModuleInvalid, "does not compile within");

    // It goes on to its end, for the sake of the next attempt.
    let is_code = |name: fs::DirEntry| name.file_name().to_string_lossy().ends_with(".code");
    let patience = Instant::now() + Duration::from_secs(120);
    while !fs::read_dir(cache.path()).unwrap().flatten().any(is_code) {
        assert!(Instant::now() < patience, "there is no code");
        thread::yield_now();
    }
    drop(PolicySet::load(&engine, &specs).expect("it is compiled"));
    assert_eq!(engine.loads(), Loads { compiled: 0, from_cache: 1 });
}

#[test]
fn what_real_compilers_make_is_within_the_bounds() {
    let _alone = alone();
    let nest = |depth: usize| format!("{}{}", "(block ".repeat(depth), ")".repeat(depth));
    let loops = format!("{}{}", "(loop ".repeat(30), ")".repeat(30));
    let targets = format!(
        "{} (block (br_table {} (local.get 0))) {}",
        "(block ".repeat(256),
        "7 ".repeat(256),
        ")".repeat(256)
    );
    let body = format!("(func (param i32) (local {}) {} {loops} {targets})", "i32 ".repeat(500), nest(300));
    drop(loaded(&fields(body), DEFAULT_FUEL));
}
