//! Guests that load and then misbehave while they judge: they do not end, take what is not theirs, trap.

use super::{
    engine::{
        alone, asked_often, assert_answer, assert_threads_end, evaluate, holds, load, load_set, loaded,
        patient, policy_threads, resident, spec,
    },
    guest::{Guest, ZEROS, words},
    templates::with_fees,
};
use reservegrid::{
    policy::{DEFAULT_FUEL, EngineLimits, PolicyEngine, PolicySet},
    reason::Reason,
};
use serde_json::json;
use std::time::{Duration, Instant};

/// Enough for every guest here to load and to begin, and spent in microseconds.
const LITTLE: u64 = 20_000;
/// Enough to ask for more memory than there is: growing costs fuel by the page.
const GROWING: u64 = 400_000;

const FOREVER: &str = "(loop $again (br $again)) unreachable";

/// A loop around an instruction, for as long as the fuel lasts.
fn endless(body: &str) -> Guest {
    Guest::evaluating(&format!("(loop $again {body} (br $again)) unreachable"))
}

/// Asserts what one evaluation with the default fuel gives, without a clock.
fn holds_once(guest: &Guest, fuel: u64, reason: Reason, words: &str) {
    let _alone = alone();
    let set = loaded(guest, fuel);
    let begun = Instant::now();
    assert_answer(&evaluate(&set, &with_fees([1, 2, 3])), reason, words);
    println!("one evaluation: {:?}", begun.elapsed());
}

#[test]
fn a_well_behaved_guest_is_accepted_10_000_times_and_leaves_nothing_behind() {
    let _alone = alone();
    let set = loaded(&Guest::default(), LITTLE);
    asked_often(&set, &with_fees([1, 2, 3]), |judgement| assert!(judgement.verdict.accepted));
}

#[test]
fn an_endless_loop_runs_out_of_fuel() {
    holds(&Guest::evaluating(FOREVER), LITTLE, Reason::PolicyFuelExhausted, "its 20000 units");
    holds_once(&Guest::evaluating(FOREVER), DEFAULT_FUEL, Reason::PolicyFuelExhausted, "its 10000000 units");
}

#[test]
fn an_endless_loop_with_endless_fuel_is_stopped_by_the_clock_each_time() {
    let _alone = alone();
    let limits = EngineLimits { deadline: Duration::from_millis(1), ..EngineLimits::default() };
    let module = Guest::evaluating(FOREVER).component();
    let set = load(limits, &module, u64::MAX, json!({})).unwrap();
    for _ in 0..1000 {
        let judgement = evaluate(&set, &with_fees([1]));
        assert_answer(&judgement, Reason::PolicyDeadlineExceeded, "within 1 ms");
    }
}

#[test]
fn endless_recursion_runs_out_of_stack_or_fuel() {
    let mut guest = Guest::evaluating("(call $down (i64.const 1))");
    // The result is needed after the call, so it is a frame each and no tail call.
    guest.fields = "(func $down (param i64) (result i32) (i32.add (i32.const 1) (call $down (i64.add \
                    (local.get 0) (i64.const 1)))))"
        .into();
    holds(&guest, LITTLE, Reason::PolicyFuelExhausted, "");
    holds(&guest, DEFAULT_FUEL, Reason::PolicyTrapped, "call stack exhausted");
}

#[test]
fn endless_tail_calls_run_out_of_fuel() {
    let mut guest = Guest::evaluating("(return_call $down (i64.const 1))");
    guest.fields = "(func $down (param i64) (result i32) (return_call $down (local.get 0)))".into();
    holds(&guest, LITTLE, Reason::PolicyFuelExhausted, "");
}

#[test]
fn recursion_through_a_table_runs_out_of_stack() {
    let mut guest = Guest::evaluating("(call_indirect (result i32) (i32.const 0))");
    guest.fields = "(table 1 funcref) (elem (i32.const 0) $round) (func $round (result i32) (i32.add \
                    (i32.const 1) (call_indirect (result i32) (i32.const 0))))"
        .into();
    holds(&guest, DEFAULT_FUEL, Reason::PolicyTrapped, "call stack exhausted");
}

#[test]
fn recursion_through_the_boundary_of_a_component_is_stopped_at_once() {
    let mut guest = Guest::evaluating("(call $up) i32.const 960");
    guest.before = r#"
(core module $Shim (table (export "table") 1 funcref) (func (export "up") (call_indirect (i32.const 0))))
(core instance $shim (instantiate $Shim))
(func $up (canon lift (core func $shim "up")))
(component $Child
  (import "up" (func $up))
  (core func $up (canon lower (func $up)))
  (core module $M (import "" "up" (func $up)) (func (export "down") (call $up)))
  (core instance $m (instantiate $M (with "" (instance (export "up" (func $up))))))
  (func (export "down") (canon lift (core func $m "down"))))
(instance $child (instantiate $Child (with "up" (func $up))))
(core func $down (canon lower (func $child "down")))
(core module $Fix (import "" "table" (table 1 funcref)) (import "" "down" (func $down)) (elem (i32.const 0) func $down))
(core instance (instantiate $Fix (with "" (instance
  (export "table" (table $shim "table")) (export "down" (func $down))))))
"#
    .into();
    guest.given = vec![("up", "$shim \"up\"", "")];
    holds(&guest, DEFAULT_FUEL, Reason::PolicyTrapped, "");
}

#[test]
fn a_memory_bomb_is_stopped_at_the_limit() {
    let bomb = endless("(drop (memory.grow (i32.const 16)))");
    holds(&bomb, DEFAULT_FUEL, Reason::PolicyMemoryExceeded, "67108864 bytes");
    let at_once = endless("(drop (memory.grow (i32.const 65000)))");
    holds(&at_once, DEFAULT_FUEL, Reason::PolicyFuelExhausted, "");
    holds(&at_once, 20_000_000, Reason::PolicyMemoryExceeded, "67108864 bytes");
}

#[test]
fn a_guest_that_fills_all_the_memory_it_may_have_gives_it_back() {
    let _alone = alone();
    let fill = "(drop (memory.grow (i32.const 1020))) \
                (memory.fill (i32.const 65536) (i32.const 1) (i32.const 67043328)) i32.const 960";
    let mut guest = Guest::evaluating(fill);
    guest.data(ZEROS, &words(&[0, 0, 0]));
    let set = loaded(&guest, 200_000_000);
    let template = with_fees([1]);
    assert!(evaluate(&set, &template).verdict.accepted);
    let (before, begun) = (resident(), Instant::now());
    for _ in 0..30 {
        assert!(evaluate(&set, &template).verdict.accepted);
    }
    println!("an evaluation that fills 64 MiB: {:?}", begun.elapsed() / 30);
    assert!(resident() <= before + (8 << 20));
}

#[test]
fn bulk_operations_pay_by_the_byte_before_they_begin() {
    let big = "(drop (memory.grow (i32.const 1020)))";
    for instruction in [
        "(memory.fill (i32.const 0) (i32.const 1) (i32.const 67108864))",
        "(memory.copy (i32.const 0) (i32.const 65536) (i32.const 67043328))",
    ] {
        let guest = Guest::evaluating(&format!("{big} (loop $again {instruction} (br $again)) unreachable"));
        holds(&guest, 1_000_000, Reason::PolicyFuelExhausted, "its 1000000 units");
    }
    // With fuel for it, one of them is all that can pass the deadline.
    let _alone = alone();
    let fill = format!(
        "{big} (loop $again (memory.fill (i32.const 0) (i32.const 1) (i32.const 67108864)) (br $again)) unreachable"
    );
    let module = Guest::evaluating(&fill).component();
    let set = load(EngineLimits::default(), &module, u64::MAX, json!({})).unwrap();
    for _ in 0..5 {
        let judgement = evaluate(&set, &with_fees([1]));
        assert_answer(&judgement, Reason::PolicyDeadlineExceeded, "within 50 ms");
        println!("64 MiB fills until the deadline of 50 ms: {:?}", judgement.duration);
    }
}

#[test]
fn a_table_bomb_is_stopped_at_the_limit() {
    let mut bomb = endless("(drop (table.grow $t (ref.null func) (i32.const 1000)))");
    bomb.fields = "(table $t 0 funcref)".into();
    holds(&bomb, DEFAULT_FUEL, Reason::PolicyMemoryExceeded, "table elements");
    let mut at_once = endless("(drop (table.grow $t (ref.null func) (i32.const -1)))");
    at_once.fields = "(table $t 0 funcref)".into();
    holds(&at_once, DEFAULT_FUEL, Reason::PolicyFuelExhausted, "");
}

#[test]
fn growth_that_a_guests_own_bound_forbids_fails_inside_and_takes_nothing() {
    let _alone = alone();
    let body = "(local $left i32) (local.set $left (i32.const 1000)) \
                (loop $again (drop (memory.grow (i32.const 1000))) (drop (table.grow $t (ref.null func) (i32.const 9000))) \
                (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1))))) i32.const 960";
    let mut guest = Guest::evaluating(body);
    guest.memory = "4 8".into();
    guest.fields = "(table $t 1 10 funcref)".into();
    let set = loaded(&guest, 1_000_000_000);
    let judgement = evaluate(&set, &with_fees([1]));
    assert!(judgement.verdict.accepted, "{:?}", judgement.verdict);
    assert_eq!(judgement.policies[0].memory_bytes, Some(4 << 16));
}

#[test]
fn traps_are_answered_with_what_they_were() {
    for (evaluate, words) in [
        ("unreachable", "unreachable"),
        ("(i32.div_u (i32.const 1) (i32.const 0))", "divide by zero"),
        ("(i32.div_s (i32.const 0x80000000) (i32.const -1))", "integer overflow"),
        ("(i32.trunc_f64_s (f64.const nan))", "invalid conversion to integer"),
        ("(i32.load (i32.const -4))", "out of bounds memory access"),
        ("(memory.fill (i32.const 262144) (i32.const 0) (i32.const 1)) i32.const 960", "out of bounds"),
        ("(drop (memory.grow (i32.const 1))) (i32.load (i32.const 0x7fffffff))", "out of bounds"),
    ] {
        holds(&Guest::evaluating(evaluate), LITTLE, Reason::PolicyTrapped, words);
    }
}

#[test]
fn wrong_calls_through_a_table_trap() {
    for (at, words) in
        [(0, "uninitialized element"), (1, "indirect call type mismatch"), (9, "undefined element")]
    {
        let mut guest = Guest::evaluating(&format!("(call_indirect (result i32) (i32.const {at}))"));
        guest.fields = "(table 2 funcref) (elem (i32.const 1) $other) (func $other)".into();
        holds(&guest, LITTLE, Reason::PolicyTrapped, words);
    }
}

#[test]
fn what_cabi_realloc_does_is_answered_like_what_evaluate_does() {
    // The engine asks for memory to put the settings into before `evaluate` runs; `validate-settings` is
    // asked first, so the guest behaves once its memory says that it is judging.
    let judging = "(call $fees (i32.const 0) (i32.const 3) (i32.const 80)) i32.const 960";
    for (realloc, reason, words) in [
        ("unreachable", Reason::PolicyTrapped, "unreachable"),
        (FOREVER, Reason::PolicyFuelExhausted, ""),
        ("(memory.grow (i32.const 1100))", Reason::PolicyMemoryExceeded, "bytes of memory"),
        ("i32.const -8", Reason::PolicyOutputInvalid, ""),
        ("i32.const 262144", Reason::PolicyOutputInvalid, ""),
        ("i32.const 1", Reason::PolicyOutputInvalid, ""),
    ] {
        let mut guest = Guest::evaluating(judging);
        // Eight bytes at a time are asked for by nobody but the column of fees.
        guest.realloc = format!(
            "(if (i32.eq (local.get 2) (i32.const 8)) (then (return (block (result i32) {realloc})))) i32.const 65536"
        );
        holds(&guest, GROWING, reason, words);
    }
}

#[test]
fn what_post_return_does_is_answered_like_what_evaluate_does() {
    for (post_return, reason, words) in [
        ("unreachable", Reason::PolicyTrapped, "unreachable"),
        (FOREVER, Reason::PolicyFuelExhausted, ""),
        ("(drop (memory.grow (i32.const 1100)))", Reason::PolicyMemoryExceeded, "bytes of memory"),
        ("(call $debug (i32.const 0) (i32.const 1))", Reason::PolicyTrapped, ""),
    ] {
        let guest = Guest { post_return: post_return.into(), ..Guest::default() };
        holds(&guest, GROWING, reason, words);
    }
}

#[test]
fn a_million_handles_are_stopped_at_the_first_few() {
    let mut guest = endless("(drop (call $new (i32.const 7)))");
    guest.before = "(type $thing (resource (rep i32))) (core func $new (canon resource.new $thing))".into();
    guest.given = vec![("new", "$new", "(param i32) (result i32)")];
    holds(&guest, DEFAULT_FUEL, Reason::PolicyOutputInvalid, "handle limit exceeded");
}

#[test]
fn a_handle_that_is_not_there_cannot_be_dropped_or_read() {
    for call in ["(call $drop (i32.const 77)) i32.const 960", "(call $rep (i32.const 77))"] {
        let mut guest = Guest::evaluating(call);
        guest.before = "(type $thing (resource (rep i32))) (core func $drop (canon resource.drop $thing)) \
                        (core func $rep (canon resource.rep $thing))"
            .into();
        guest.given = vec![("drop", "$drop", "(param i32)"), ("rep", "$rep", "(param i32) (result i32)")];
        holds(&guest, LITTLE, Reason::PolicyOutputInvalid, "unknown handle");
    }
}

#[test]
fn a_flood_of_log_lines_costs_fuel_and_then_the_budget() {
    let flood = endless("(call $debug (i32.const 0) (i32.const 100))");
    holds(&flood, LITTLE / 10, Reason::PolicyFuelExhausted, "");
    holds_once(&flood, u64::MAX, Reason::PolicyMemoryExceeded, "bytes of template data");
}

#[test]
fn a_log_line_of_megabytes_is_not_even_copied() {
    for length in [300_000, 33_554_432, -1] {
        let mut guest = endless(&format!("(call $debug (i32.const 0) (i32.const {length}))"));
        guest.memory = "600".into();
        holds(&guest, LITTLE, Reason::PolicyOutputInvalid, "");
    }
    let mut long = endless("(call $debug (i32.const 262144) (i32.const 200000))");
    long.memory = "8".into();
    holds(&long, 500, Reason::PolicyFuelExhausted, "");
    long.evaluate = long.evaluate.replace("200000", "262144");
    holds_once(&long, u64::MAX, Reason::PolicyMemoryExceeded, "bytes of template data");
}

#[test]
fn a_log_line_that_is_no_text_stops_the_guest() {
    for (at, length) in [(512, 4), (i64::from(u32::MAX), 1), (262_140, 8)] {
        let mut guest = endless(&format!("(call $debug (i32.const {at}) (i32.const {length}))"));
        guest.data(512, b"\xff\xfe\xc0\x80");
        holds(&guest, LITTLE, Reason::PolicyOutputInvalid, "");
    }
}

#[test]
fn a_column_asked_for_without_end_costs_fuel_and_then_the_budget() {
    let mut guest = endless("(call $fees (i32.const 0) (i32.const -1) (i32.const 80))");
    guest.realloc = "i32.const 65536".into();
    holds(&guest, LITTLE / 10, Reason::PolicyFuelExhausted, "");
    holds_once(&guest, u64::MAX, Reason::PolicyMemoryExceeded, "bytes of template data");
    let mut nothing = endless("(call $raw-transaction (i32.const -1) (i32.const 80))");
    nothing.realloc = "i32.const 65536".into();
    holds_once(&nothing, u64::MAX, Reason::PolicyMemoryExceeded, "bytes of template data");
}

#[test]
fn a_large_column_fits_no_small_guest_and_nothing_is_written_beside_its_memory() {
    let _alone = alone();
    let mut guest =
        Guest::evaluating("(call $txids (i32.const 0) (i32.const -1) (i32.const 80)) i32.const 960");
    guest.realloc = "i32.const 65536".into();
    let set = loaded(&guest, DEFAULT_FUEL);
    // 10,000 rows of 32 bytes do not fit into the 192 KiB that are left.
    let template = with_fees(0..10_000);
    for _ in 0..100 {
        assert_answer(&evaluate(&set, &template), Reason::PolicyOutputInvalid, "");
    }
}

#[test]
fn a_guest_cannot_remember_so_it_cannot_answer_differently() {
    let _alone = alone();
    // It rejects when a global, its memory or its table say that it was asked before.
    let mut guest = Guest::evaluating(
        "(if (i32.or (global.get $asked) (i32.or (i32.load (i32.const 4000)) (i32.or \
           (i32.ne (memory.size) (i32.const 4)) (i32.ne (table.size $t) (i32.const 0))))) (then unreachable)) \
         (global.set $asked (i32.const 1)) (i32.store (i32.const 4000) (i32.const 1)) \
         (drop (memory.grow (i32.const 1))) (drop (table.grow $t (ref.null func) (i32.const 1))) i32.const 960",
    );
    guest.fields = "(global $asked (mut i32) (i32.const 0)) (table $t 0 funcref)".into();
    let set = loaded(&guest, LITTLE);
    let template = with_fees([1, 2, 3]);
    let fuel = evaluate(&set, &template).policies[0].fuel;
    asked_often(&set, &template, |judgement| {
        assert!(judgement.verdict.accepted, "{:?}", judgement.verdict);
        assert_eq!(judgement.policies[0].fuel, fuel);
    });
}

#[test]
fn new_memory_is_zero_whoever_had_it_before() {
    let _alone = alone();
    let mut dirty = Guest::evaluating(
        "(drop (memory.grow (i32.const 4))) (memory.fill (i32.const 65536) (i32.const 255) (i32.const 458752)) i32.const 960",
    );
    dirty.memory = "4".into();
    // Adds up every word of what it grew by: anything that is not zero traps.
    let mut nosy = Guest::evaluating(
        "(local $at i32) (local.set $at (i32.const 262144)) (drop (memory.grow (i32.const 4))) \
         (loop $next (if (i64.ne (i64.load (local.get $at)) (i64.const 0)) (then unreachable)) \
           (local.set $at (i32.add (local.get $at) (i32.const 8))) \
           (br_if $next (i32.lt_u (local.get $at) (i32.const 524288)))) i32.const 960",
    );
    nosy.memory = "4".into();
    let dir = tempfile::tempdir().unwrap();
    let specs = [("dirty", dirty), ("nosy", nosy)].map(|(name, guest)| {
        let module = dir.path().join(name);
        std::fs::write(&module, guest.component()).unwrap();
        spec(name, module, 2_000_000, json!({}))
    });
    let set = load_set(patient(), &specs).unwrap();
    for _ in 0..300 {
        let judgement = evaluate(&set, &with_fees([1]));
        assert!(judgement.verdict.accepted, "{:?}", judgement.verdict);
    }
}

#[test]
fn evaluations_at_the_same_time_do_not_see_each_other() {
    let _alone = alone();
    let set = loaded(&Guest::evaluating("unreachable"), LITTLE);
    let template = with_fees([1, 2, 3]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1000 {
                    let judgement = evaluate(&set, &template);
                    // Too many at once for the pool is an answer too: that of this machine.
                    if !judgement.infrastructure_fault {
                        assert_answer(&judgement, Reason::PolicyTrapped, "unreachable");
                    }
                }
            });
        }
    });
}

#[test]
fn an_engine_that_is_dropped_takes_its_thread_with_it() {
    let _alone = alone();
    let before = policy_threads();
    let dir = tempfile::tempdir().unwrap();
    let module = dir.path().join("hostile.wasm");
    std::fs::write(&module, Guest::evaluating(FOREVER).component()).unwrap();
    for _ in 0..20 {
        let engine = PolicyEngine::start(patient(), None).unwrap();
        let set = PolicySet::load(&engine, &[spec("hostile", module.clone(), LITTLE, json!({}))]).unwrap();
        assert!(!evaluate(&set, &with_fees([1])).verdict.accepted);
    }
    assert_threads_end(before);
}
