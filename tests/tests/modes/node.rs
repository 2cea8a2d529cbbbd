//! A node that answers as told: its tip moves on demand, with a template on it or with nonsense instead.

use anyhow::Result;
use axum::{Json, Router, extract::State, routing::post};
use reservegrid_tests::gateway::GatewayConfig;
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

/// The witness commitment of a block without transactions (BIP 141).
const COMMITMENT: &str = "6a24aa21a9ede2f61c3f71d1defd3fa999dfa36953755c690689799962b48bebd836974e8cf9";

/// What the node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Chain {
    height: u32,
    usable: bool,
}

impl Chain {
    fn tip(self) -> String {
        format!("{:064x}", 0xab00 + self.height)
    }

    fn long_poll_id(self) -> String {
        format!("{}-{}", self.height, self.usable)
    }
}

/// The node; it ends with this handle.
pub(crate) struct ScriptedNode {
    url: String,
    chain: watch::Sender<Chain>,
    task: JoinHandle<()>,
}

impl Drop for ScriptedNode {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ScriptedNode {
    pub(crate) async fn start() -> Result<Self> {
        let (chain, known) = watch::channel(Chain { height: 7, usable: true });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/", listener.local_addr()?);
        let router = Router::new().route("/", post(answer)).with_state(known);
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { url, chain, task })
    }

    /// Templates come from here.
    pub(crate) fn configure(&self, config: GatewayConfig) -> GatewayConfig {
        config
            .set("source", "kind", "node")
            .set("source", "url", self.url.as_str())
            .set("source", "network", "regtest")
            .set("source", "user", "tester")
            .set("coinbase", "payout_address", "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080")
            .variable("RESERVEGRID_SOURCE__PASSWORD", "not looked at")
    }

    /// Another tip, with or without a usable template on it; gives its hash.
    pub(crate) fn move_tip(&self, usable: bool) -> String {
        self.chain.send_modify(|chain| *chain = Chain { height: chain.height + 1, usable });
        self.chain.borrow().tip()
    }

    /// From now on there is a usable template on the tip.
    pub(crate) fn mend(&self) {
        self.chain.send_modify(|chain| chain.usable = true);
    }
}

async fn answer(State(mut known): State<watch::Receiver<Chain>>, Json(request): Json<Value>) -> Json<Value> {
    let now = *known.borrow();
    let result = match request["method"].as_str().unwrap_or_default() {
        "getblockchaininfo" => json!({
            "chain": "regtest", "initialblockdownload": false, "blocks": now.height, "bestblockhash": now.tip(),
        }),
        "getmininginfo" => json!({ "blocks": now.height }),
        "getmempoolinfo" => json!({ "size": 0, "bytes": 0, "total_fee": 0.0 }),
        "getbestblockhash" => json!(now.tip()),
        "getblocktemplate" => {
            let after = &request["params"][0]["longpollid"];
            // The test ends when its node does.
            let _ = known.wait_for(|chain| *after != *chain.long_poll_id()).await;
            template(*known.borrow())
        }
        other => {
            return Json(json!({ "result": null, "error": { "code": -32601, "message": other }, "id": 0 }));
        }
    };
    Json(json!({ "result": result, "error": null, "id": 0 }))
}

fn template(chain: Chain) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    if !chain.usable {
        return json!({ "version": "of another planet" });
    }
    json!({
        "capabilities": ["proposal"],
        "version": 0x2000_0000,
        "rules": ["csv", "!segwit", "taproot"],
        "previousblockhash": chain.tip(),
        "transactions": [],
        "coinbasevalue": 50_0000_0000_u64,
        "longpollid": chain.long_poll_id(),
        "target": format!("7fffff{}", "0".repeat(58)),
        "mintime": now - 600,
        "curtime": now,
        "bits": "207fffff",
        "height": chain.height + 1,
        "default_witness_commitment": COMMITMENT,
    })
}
