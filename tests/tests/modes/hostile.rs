//! Every kind of hostile policy that can be loaded, in inline mode: each holds the work with its code, and
//! a rollback resumes it. What cannot be loaded changes nothing.

use super::{ask, config, done, event_after, gate, wat_policy, with_floor};
use anyhow::{Result, ensure};
use reqwest::{Method, StatusCode};
use reservegrid_tests::{
    backend::Backend,
    gateway::{Gateway, GatewayConfig},
};
use serde_json::{Value, json};
use std::{fs, fs::File, path::Path};

/// Name, body of `evaluate`, and the code that answers it.
const HOSTILE: [(&str, &str, &str); 7] = [
    ("endless-loop", "(loop $for-ever (br $for-ever)) unreachable", "policy_fuel_exhausted"),
    ("endless-recursion", "(call 3 (i32.const 0) (i32.const 0))", "policy_trapped"), // 3 is `evaluate`
    (
        "memory-bomb",
        "(loop $more (drop (memory.grow (i32.const 64))) (br $more)) unreachable",
        "policy_memory_exceeded",
    ),
    ("trap", "unreachable", "policy_trapped"),
    (
        "trap-in-post-return",
        "i32.const 1024) (func (export \"cabi_post_evaluate\") (param i32) unreachable",
        "policy_trapped",
    ),
    ("pointer-out-of-range", "i32.const 0x7ffffff0", "policy_output_invalid"),
    (
        "code-that-is-none", // a rejection whose code is "by-hand"
        "(i32.store (i32.const 2048) (i32.const 1)) (i32.store (i32.const 2052) (i32.const 16)) \
         (i32.store (i32.const 2056) (i32.const 7)) i32.const 2048",
        "policy_output_invalid",
    ),
];

fn with_module(config: &GatewayConfig, name: &str, module: &Path) -> Result<()> {
    config.clone().without_policies().policy(name, module, &json!({}))?.write()
}

async fn holds(gateway: &mut Gateway, name: &str, body: &str, code: &str) -> Result<()> {
    let module = gateway.config().folder().join(name).with_extension("wasm");
    fs::write(&module, wat_policy::component(body)?)?;
    with_module(gateway.config(), name, &module)?;
    let skip = gateway.events()?.len();
    done(gateway, Method::POST, "/v1/policies/swap", "").await?;
    let judged = event_after(gateway, skip, "template_judged").await?;
    ensure!(judged["verdict"]["accepted"] == false, "{name}: {judged}");
    ensure!(judged["verdict"]["reason_code"] == code, "{name}: {judged}");
    let held = event_after(gateway, skip, "gate_held").await?;
    ensure!(held["reason"] == "work_withdrawn", "{name}: {held}");
    let shown = gate(gateway).await?;
    ensure!(shown["phase"] == "holding" && shown["held"] == true, "{name}: {shown}");

    let skip = gateway.events()?.len();
    done(gateway, Method::POST, "/v1/policies/rollback", "").await?;
    event_after(gateway, skip, "gate_resumed").await?;
    Ok(())
}

#[tokio::test]
async fn every_hostile_policy_holds_the_work_with_its_code_and_a_rollback_resumes_it() -> Result<()> {
    let backend = Backend::start("test", "a secret of the pool").await?;
    let config = config(&backend, "inline", "1h", 1)?.set("gate", "hold_timeout", "10m");
    let mut gateway = Gateway::start(&config).await?;
    event_after(&mut gateway, 0, "work_released").await?;
    for (name, body, code) in HOSTILE {
        holds(&mut gateway, name, body, code).await?;
    }

    // A file of 100 MB, and one that is no WebAssembly.
    let skip = gateway.events()?.len();
    let module = config.folder().join("large.wasm");
    File::create(&module)?.set_len(100_000_000)?;
    for (name, words) in [("large", "larger than"), ("text", "not WebAssembly")] {
        if name == "text" {
            fs::write(&module, "not a policy")?;
        }
        with_module(&config, name, &module)?;
        let (status, answer) = ask(&gateway, Method::POST, "/v1/policies/swap", "").await?;
        ensure!(status == StatusCode::UNPROCESSABLE_ENTITY, "{name}: {status}: {answer}");
        ensure!(answer.to_string().contains(words), "{name}: {answer}");
    }
    let shown = gate(&gateway).await?;
    ensure!(shown["phase"] == "following" && shown["held"] == false, "{shown}");
    let held = |e: &&Value| e["event"] == "gate_held";
    ensure!(gateway.events()?[skip..].iter().find(held).is_none(), "a refused policy changes nothing");
    ensure!(gateway.stop().await?.success());
    Ok(())
}

/// Little enough that no pool of instances fits, and enough for a few single ones, KiB.
const ADDRESS_SPACE: u64 = 24 << 20;

#[tokio::test]
async fn where_address_space_is_short_policies_judge_without_a_pool_and_it_is_said() -> Result<()> {
    let backend = Backend::start("test", "a secret of the pool").await?;
    let config = config(&backend, "inline", "1h", 1)?.address_space(ADDRESS_SPACE);
    let mut gateway = Gateway::start(&config).await?;
    event_after(&mut gateway, 0, "work_released").await?;
    let warned = gateway.process().stderr();
    ensure!(warned.contains("no address space for a pool of policy instances"), "{warned}");
    // Again and again: nothing of an instance stays behind.
    for floor in 2..12 {
        with_floor(config.clone(), floor)?.write()?;
        let skip = gateway.events()?.len();
        done(&gateway, Method::POST, "/v1/policies/swap", "").await?;
        let judged = event_after(&mut gateway, skip, "template_judged").await?;
        ensure!(judged["verdict"]["accepted"] == true, "{judged}");
    }
    holds(&mut gateway, HOSTILE[0].0, HOSTILE[0].1, HOSTILE[0].2).await?;
    ensure!(gateway.stop().await?.success());
    Ok(())
}
