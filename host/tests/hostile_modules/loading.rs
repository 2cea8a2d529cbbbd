//! Modules that a gateway does not take, each refused by name while it loads: wrong imports, wrong
//! versions, lies about itself, too much of everything.

use super::{
    engine::{alone, assert_fault, assert_printable, load, patient, refused, resident},
    guest::{Guest, ZEROS, words},
};
use reservegrid::{policy::DEFAULT_FUEL, reason::Reason};
use serde_json::{Value, json};

/// How often a module that has to be compiled is refused.
const TIMES: usize = 20;
const FOREVER: &str = "(loop $again (br $again)) unreachable";
const LITTLE: u64 = 400_000;

/// Asserts that a module is refused each time, in the same words, and that nothing is left behind.
fn stays_out(module: &[u8], fuel: u64, reason: Reason, words: &str) {
    let _alone = alone();
    let first = refused(module, fuel);
    assert_fault(&first, reason, words);
    let mut before = 0;
    for round in 0..TIMES {
        if round == TIMES / 2 {
            before = resident();
        }
        assert_eq!(without_path(refused(module, fuel).detail), without_path(first.detail.clone()));
    }
    assert!(resident() <= before + (8 << 20), "{} bytes more", resident() - before);
}

/// The file has another name each time.
fn without_path(detail: String) -> String {
    detail.split(' ').filter(|word| !word.contains("hostile.wasm")).collect()
}

fn text(component: &str) -> Vec<u8> {
    wat::parse_str(component).unwrap_or_else(|error| panic!("{error}"))
}

/// A guest with an import that the contract does not have, or not so.
fn importing(import: &str) -> Vec<u8> {
    Guest { before: import.into(), ..Guest::default() }.component()
}

#[test]
fn what_is_outside_the_contract_cannot_be_imported() {
    for (import, words) in [
        (r#"(import "wasi:cli/environment@0.2.0" (instance))"#, "imports \"wasi:cli/environment@0.2.0\""),
        (
            r#"(import "wasi:clocks/wall-clock@0.2.0" (instance (export "now" (func (result u64)))))"#,
            "wall-clock",
        ),
        (r#"(import "sneaky" (func))"#, "imports \"sneaky\""),
        (r#"(import "other:policy/template@0.1.0" (instance))"#, "imports \"other:policy/template@0.1.0\""),
        (r#"(import "reservegrid:policyx/template@0.1.0" (instance))"#, "imports"),
    ] {
        stays_out(&importing(import), DEFAULT_FUEL, Reason::PolicyImportRefused, words);
    }
}

#[test]
fn an_import_that_the_contract_does_not_have_is_refused_even_under_its_name() {
    for import in [
        r#"(import "reservegrid:policy/files@0.1.0" (instance (export "read" (func (result string)))))"#,
        r#"(import "reservegrid:policy/template@0.1.0" (instance (export "summary2" (func (result u64)))))"#,
        r#"(import "reservegrid:policy/log@0.1.0" (instance (export "debug" (func (param "message" u64)))))"#,
        r#"(import "reservegrid:policy/log@0.1.0" (instance (export "debug" (func (param "a" string) (result u8)))))"#,
        r#"(import "reservegrid:policy/log@0.1.0" (func))"#,
        r#"(import "reservegrid:policy/log@0.1.0" (instance (export "debug" (type (sub resource)))))"#,
        r#"(import "reservegrid:policy/template@0.1.0" (instance (export "fees" (func (param "start" u64) (param "count" u32) (result (list u64))))))"#,
    ] {
        stays_out(&importing(import), DEFAULT_FUEL, Reason::PolicyModuleInvalid, "does not fit the contract");
    }
}

#[test]
fn another_version_of_the_contract_is_refused_by_name() {
    for version in ["@0.2.0", "@1.0.0", "@0.1.1", "@0.1.0-rc.1", "@10.1.0"] {
        let import = format!(r#"(import "reservegrid:policy/log{version}" (instance))"#);
        stays_out(&importing(&import), DEFAULT_FUEL, Reason::PolicyImportRefused, "serves version 0.1.0");
    }
}

#[test]
fn the_contract_without_a_version_is_refused() {
    let none = r#"(import "reservegrid:policy/log" (instance))"#;
    stays_out(
        &importing(none),
        DEFAULT_FUEL,
        Reason::PolicyImportRefused,
        "imports \"reservegrid:policy/log\"",
    );
}

#[test]
fn what_is_no_policy_is_refused() {
    for (component, words) in [
        ("(component)", "does not fit the contract"),
        (r#"(component (core module (func (export "evaluate"))))"#, "does not fit the contract"),
        (
            r#"(component (component (export "evaluate" (func $f)) (core module $m (func (export "f"))) (core instance $i (instantiate $m)) (func $f (canon lift (core func $i "f")))))"#,
            "does not fit",
        ),
        ("(module)", "a core WebAssembly module"),
        (
            r#"(module (func (export "evaluate") (param i32 i32) (result i32) i32.const 0))"#,
            "core WebAssembly module",
        ),
    ] {
        let component = component.replace(
            r#"(export "evaluate" (func $f)) (core module $m (func (export "f"))) (core instance $i (instantiate $m)) (func $f (canon lift (core func $i "f")))"#,
            r#"(core module $m (func (export "f"))) (core instance $i (instantiate $m)) (func $f (canon lift (core func $i "f"))) (export "evaluate" (func $f))"#,
        );
        stays_out(&text(&component), DEFAULT_FUEL, Reason::PolicyModuleInvalid, words);
    }
}

#[test]
fn features_that_could_make_two_machines_disagree_are_not_there() {
    for fields in [
        "(memory $shared 1 1 shared)",
        "(memory $wide i64 1)",
        "(func (drop (i8x16.relaxed_swizzle (v128.const i64x2 0 0) (v128.const i64x2 0 0))))",
        "(tag $error) (func (throw $error))",
        "(type (struct (field i32)))",
        "(memory $second 1)",
    ] {
        let guest = Guest { fields: fields.into(), ..Guest::default() };
        stays_out(
            &guest.component(),
            DEFAULT_FUEL,
            Reason::PolicyModuleInvalid,
            "not a component that the engine takes",
        );
    }
}

#[test]
fn what_a_module_calls_its_parts_is_escaped_before_it_is_shown() {
    for before in [
        r#"(core module $Evil (import "\1b[31mred\0a" "field\07" (func))) (core instance (instantiate $Evil))"#,
        r#"(core module $Evil (func (export "evil\1b[2J\0d\0a"))) (core instance $e (instantiate $Evil)) (alias core export $e "not\1b[2Jthere" (core func $x))"#,
        r#"(core module $Evil (func (export "a\0a")) (func (export "a\0a")))"#,
    ] {
        let guest = Guest { before: before.into(), ..Guest::default() };
        stays_out(&guest.component(), DEFAULT_FUEL, Reason::PolicyModuleInvalid, "");
    }
    let long = format!(
        r#"(import "reservegrid:policy/{}@0.1.0" (instance (export "f" (func))))"#,
        "a".repeat(50_000)
    );
    stays_out(&importing(&long), DEFAULT_FUEL, Reason::PolicyModuleInvalid, "");
    let far = format!(r#"(import "{}" (func))"#, "a".repeat(50_000));
    stays_out(&importing(&far), DEFAULT_FUEL, Reason::PolicyImportRefused, "...");
}

#[test]
fn a_start_function_is_answered_like_an_export() {
    for (body, reason, words) in [
        ("unreachable", Reason::PolicyTrapped, "unreachable"),
        ("(loop $again (br $again))", Reason::PolicyFuelExhausted, "units of fuel"),
        ("(drop (memory.grow (i32.const 1100)))", Reason::PolicyMemoryExceeded, "bytes of memory"),
        ("(call $f)", Reason::PolicyTrapped, "call stack exhausted"),
    ] {
        let guest = Guest {
            fields: format!("(func $start {body}) (start $start) (func $f (call $f) (call $f))"),
            ..Guest::default()
        };
        stays_out(&guest.component(), LITTLE * 10, reason, words);
    }
}

#[test]
fn a_start_function_that_calls_the_host_wrongly_is_the_policys_fault() {
    let guest = Guest {
        fields: "(func $start (call $fees (i32.const 0) (i32.const 1) (i32.const 80))) (start $start)".into(),
        ..Guest::default()
    };
    stays_out(&guest.component(), LITTLE, Reason::PolicyOutputInvalid, "in `evaluate` alone");
}

#[test]
fn what_a_start_function_hands_over_is_the_policys_fault_and_not_the_machines() {
    let guest = Guest {
        fields: "(func $start (call $debug (i32.const -1) (i32.const 8))) (start $start)".into(),
        ..Guest::default()
    };
    stays_out(&guest.component(), LITTLE, Reason::PolicyOutputInvalid, "");
}

#[test]
fn a_call_that_does_not_end_while_loading_is_told_with_the_time_for_that_call() {
    let _alone = alone();
    let guest = Guest { metadata: FOREVER.into(), ..Guest::default() };
    let fault = refused(&guest.component(), u64::MAX);
    assert_fault(&fault, Reason::PolicyDeadlineExceeded, "no answer within 2000 ms");
}

#[test]
fn there_is_no_template_before_evaluate() {
    let call = "(call $fees (i32.const 0) (i32.const 1) (i32.const 80)) i32.const 128";
    let guest = Guest { metadata: call.into(), ..Guest::default() };
    stays_out(&guest.component(), LITTLE, Reason::PolicyOutputInvalid, "in `evaluate` alone");
    let guest = Guest { validate: call.into(), ..Guest::default() };
    stays_out(&guest.component(), LITTLE, Reason::PolicyOutputInvalid, "in `evaluate` alone");
}

#[test]
fn metadata_and_validate_settings_are_bounded_like_evaluate() {
    for (body, reason, words) in [
        ("unreachable", Reason::PolicyTrapped, "unreachable"),
        (FOREVER, Reason::PolicyFuelExhausted, "units of fuel"),
        ("(memory.grow (i32.const 1100))", Reason::PolicyMemoryExceeded, "bytes of memory"),
        ("i32.const -4", Reason::PolicyOutputInvalid, ""),
        ("i32.const 3", Reason::PolicyOutputInvalid, ""),
    ] {
        let guest = Guest { metadata: body.into(), ..Guest::default() };
        stays_out(&guest.component(), LITTLE, reason, words);
        let guest = Guest { validate: body.into(), ..Guest::default() };
        stays_out(&guest.component(), LITTLE, reason, words);
    }
}

#[test]
fn metadata_that_lies_is_refused() {
    type Change = fn(&mut Guest);
    let cases: [(Change, &str); 15] = [
        (|guest| guest.words[0].clear(), "its name"),
        (|guest| guest.words[0] = b"Evil Name".to_vec(), "its name"),
        (|guest| guest.words[0] = b"evil\x1b[31m".to_vec(), "its name"),
        (|guest| guest.words[0] = vec![b'a'; 65], "its name"),
        (|guest| guest.words[0] = vec![b'a'; 60_000], "its name"),
        (|guest| guest.words[1] = b"1\n2".to_vec(), "its version contains the control character"),
        (|guest| guest.words[1] = vec![b'1'; 65], "its version is 65 bytes long"),
        (|guest| guest.words[2] = vec![b'x'; 513], "its summary is 513 bytes long"),
        (|guest| guest.words[2] = b"\xff\xff".to_vec(), ""),
        (|guest| guest.words[3] = b"[]".to_vec(), "not a JSON object"),
        (|guest| guest.words[3] = b"{\"a\":".to_vec(), "not a JSON object"),
        (|guest| guest.words[3] = [b"{\"a\":".repeat(10_000), b"1".to_vec()].concat(), "not a JSON object"),
        (|guest| guest.words[3] = vec![b' '; 65_537], ""),
        (|guest| guest.codes = vec![b"Bad Code".to_vec()], "its code"),
        (|guest| guest.codes = vec![b"code_\x07".to_vec()], "its code"),
    ];
    for (change, words) in cases {
        let mut guest = Guest { memory: "8".into(), ..Guest::default() };
        change(&mut guest);
        stays_out(&guest.component(), LITTLE, Reason::PolicyOutputInvalid, words);
    }
    for many in [65_u32, 3000] {
        let codes = (0..many).map(|code| format!("code_{code}").into_bytes()).collect();
        let guest = Guest { codes, memory: "8".into(), ..Guest::default() };
        let words = format!("lists {many} codes");
        stays_out(&guest.component(), LITTLE, Reason::PolicyOutputInvalid, &words);
    }
}

#[test]
fn thousands_of_faults_in_the_settings_are_cut_to_what_people_can_read() {
    let _alone = alone();
    let mut guest = Guest { validate: "i32.const 960".into(), ..Guest::default() };
    guest.data(ZEROS, &words(&[1, 65_536, 3000]));
    guest.memory = "16".into();
    let faults = load(patient(), &guest.component(), LITTLE, json!({})).unwrap_err();
    assert!(faults.len() <= 64, "{}", faults.len());
    for fault in &faults {
        assert_fault(fault, Reason::PolicySettingsInvalid, "");
    }
}

#[test]
fn a_fault_in_the_settings_is_shown_escaped_and_short() {
    let _alone = alone();
    let mut guest = Guest { validate: "i32.const 960".into(), ..Guest::default() };
    guest.data(ZEROS, &words(&[1, 2048, 1]));
    guest.data(2048, &words(&[3000, 9, 262_144, 200_000]));
    guest.data(3000, b"\x1b[31m\nbad");
    guest.memory = "16".into();
    let faults = load(patient(), &guest.component(), LITTLE, json!({})).unwrap_err();
    assert_eq!(faults.len(), 1);
    assert_fault(&faults[0], Reason::PolicySettingsInvalid, "\\u{1b}[31m\\nbad");
}

#[test]
fn settings_that_are_no_json_object_are_refused_before_a_policy_sees_them() {
    let _alone = alone();
    let module = Guest::default().component();
    for settings in [Value::Null, json!(true), json!(7), json!("text"), json!([]), json!([{}])] {
        let faults = load(patient(), &module, DEFAULT_FUEL, settings.clone()).map(|_| ());
        let faults = faults.expect_err(&format!("settings {settings} were taken"));
        assert_fault(&faults[0], Reason::PolicySettingsInvalid, "");
    }
}

#[test]
fn settings_of_megabytes_fit_no_guest_and_harm_nobody() {
    let _alone = alone();
    let settings = json!({ "words": "x".repeat(1 << 20) });
    let faults = load(patient(), &Guest::default().component(), DEFAULT_FUEL, settings).unwrap_err();
    assert_printable(&faults[0].detail);
    assert_eq!(faults[0].reason, Reason::PolicyOutputInvalid);
}

#[test]
fn more_memory_at_the_start_than_a_policy_may_have_is_refused() {
    for memory in ["1025", "65536"] {
        let guest = Guest { memory: memory.into(), ..Guest::default() };
        stays_out(&guest.component(), DEFAULT_FUEL, Reason::PolicyModuleInvalid, "");
    }
    let guest = Guest { fields: "(table 1000000 funcref)".into(), ..Guest::default() };
    stays_out(&guest.component(), DEFAULT_FUEL, Reason::PolicyModuleInvalid, "");
}

#[test]
fn more_parts_than_a_policy_may_have_are_refused() {
    for (many, part) in [
        (127, "(core module (;@;)) (core instance (instantiate @))"),
        (5, "(core module (;@;) (memory 1)) (core instance (instantiate @))"),
        (17, "(core module (;@;) (table 1 funcref)) (core instance (instantiate @))"),
    ] {
        // Each is a module of its own: `$Main` and `$Heap` are two more.
        let before: String = (1..=many).map(|at| part.replace('@', &at.to_string())).collect();
        let guest = Guest { before, ..Guest::default() };
        stays_out(&guest.component(), DEFAULT_FUEL, Reason::PolicyModuleInvalid, "");
    }
}
