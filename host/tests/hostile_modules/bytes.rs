//! Files that are no modules: empty, cut off, changed, far too large, or no files at all.

use super::{
    engine::{alone, assert_fault, assert_printable, evaluate, load, most_resident, patient, refused, spec},
    guest::{Guest, value},
    templates::with_fees,
};
use proptest::{collection::vec, prelude::*, test_runner::Config};
use reservegrid::{policy::DEFAULT_FUEL, reason::Reason};
use serde_json::json;
use std::{fs::File, path::PathBuf, process::Command, sync::LazyLock};

static VALID: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let entry = (&b"entry"[..], value(1, 7));
    let mut guest = Guest::rejecting(b"listed_code", b"fine", &[entry]);
    guest.evaluate = "(call $fees (i32.const 0) (i32.const 9) (i32.const 80)) i32.const 1024".into();
    guest.component()
});

/// A module that was tampered with: whatever it is now, it does not load, or it judges; nothing panics.
fn survives(module: &[u8]) -> Result<(), TestCaseError> {
    match load(patient(), module, 20_000, json!({})) {
        Ok(set) => {
            let judgement = evaluate(&set, &with_fees([1, 2]));
            let detail = judgement.verdict.reason_detail.unwrap_or_default();
            assert_printable(&detail);
            prop_assert!(!detail.contains("the gateway itself failed"), "{detail}");
        }
        Err(faults) => {
            for fault in faults {
                assert_printable(&fault.detail);
                prop_assert!(!fault.detail.contains("the gateway itself failed"), "{fault}");
            }
        }
    }
    Ok(())
}

#[test]
fn an_empty_file_and_other_files_are_no_modules() {
    let _alone = alone();
    for bytes in [
        &b""[..],
        b"\0",
        b"\0asm",
        b"\0asm\x0d\0\x01",
        b"\x7fELF\x02\x01\x01\0",
        b"{}",
        &[0; 4096],
        &[0xff; 4096],
    ] {
        assert_fault(&refused(bytes, DEFAULT_FUEL), Reason::PolicyModuleInvalid, "");
    }
}

#[test]
fn a_module_that_is_cut_off_anywhere_is_refused() {
    let _alone = alone();
    // Every place in the part that says what there is, and every seventh after it.
    for end in (8..VALID.len()).filter(|end| *end < 400 || end % 7 == 0) {
        if let Err(faults) = load(patient(), &VALID[..end], 20_000, json!({})) {
            assert_fault(&faults[0], Reason::PolicyModuleInvalid, "");
        } else {
            panic!("{end} of {} bytes are a policy", VALID.len());
        }
    }
}

#[test]
fn what_is_appended_to_a_module_is_refused() {
    let _alone = alone();
    let twice = [VALID.as_slice(), VALID.as_slice()].concat();
    assert_fault(&refused(&twice, DEFAULT_FUEL), Reason::PolicyModuleInvalid, "");
    let tail = [VALID.as_slice(), &[0x77; 100]].concat();
    assert_fault(&refused(&tail, DEFAULT_FUEL), Reason::PolicyModuleInvalid, "");
}

proptest! {
    #![proptest_config(Config { failure_persistence: None, ..Config::with_cases(500) })]

    #[test]
    fn flipped_bits_never_panic(flips in vec((any::<prop::sample::Index>(), 0..8_u8), 1..4)) {
        let _alone = alone();
        let mut module = VALID.clone();
        for (at, bit) in flips {
            let at = at.index(module.len());
            module[at] ^= 1 << bit;
        }
        survives(&module)?;
    }

    #[test]
    fn replaced_bytes_never_panic(at in any::<prop::sample::Index>(), bytes in vec(any::<u8>(), 1..20)) {
        let _alone = alone();
        let mut module = VALID.clone();
        let at = at.index(module.len());
        let end = module.len().min(at + bytes.len());
        module.splice(at..end, bytes);
        survives(&module)?;
    }

    #[test]
    fn garbage_behind_a_components_first_bytes_never_panics(bytes in vec(any::<u8>(), 0..300)) {
        let _alone = alone();
        survives(&[&VALID[..8], &bytes].concat())?;
    }
}

#[test]
fn a_file_of_100_megabytes_is_refused_before_it_is_read_whole() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large.wasm");
    // 100 MB, and 100 TB: what the length says is not believed, and not read.
    for length in [100_000_000, 1 << 43] {
        let file = File::create(&path).unwrap();
        if file.set_len(length).is_err() {
            continue; // not every file system has such files
        }
        let before = most_resident();
        let fault = loading(path.clone());
        assert_fault(&fault, Reason::PolicySetUnavailable, "larger than 33554432 bytes");
        let grown = most_resident() - before;
        println!("refusing {length} bytes takes {grown} bytes");
        assert!(grown < 100_000_000, "{grown}");
    }
}

#[test]
fn what_is_no_file_is_refused() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    assert_fault(&loading(dir.path().to_owned()), Reason::PolicySetUnavailable, "cannot read");
    assert_fault(&loading(dir.path().join("gone.wasm")), Reason::PolicySetUnavailable, "cannot read");
    assert_fault(&loading("/dev/zero".into()), Reason::PolicySetUnavailable, "it is not a file");
    // Opening it would wait for somebody who writes into it.
    let pipe = dir.path().join("pipe.wasm");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert_fault(&loading(pipe), Reason::PolicySetUnavailable, "it is not a file");
}

fn loading(path: PathBuf) -> reservegrid::policy::PolicyFault {
    let specs = [spec("hostile", path, DEFAULT_FUEL, json!({}))];
    super::engine::load_set(patient(), &specs).unwrap_err().remove(0)
}
