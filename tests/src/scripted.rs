//! A node that answers as told: its tip moves on demand, with a template on it or with something else instead.

use crate::gateway::GatewayConfig;
use anyhow::Result;
use axum::{Json, Router, extract::State, routing::post};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

/// The witness commitment of a block without transactions (BIP 141).
const COMMITMENT: &str = "6a24aa21a9ede2f61c3f71d1defd3fa999dfa36953755c690689799962b48bebd836974e8cf9";

/// What it gives when it is asked for a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gives {
    /// One on its tip.
    Template,
    /// Nonsense.
    Nonsense,
    /// One on the block before its tip.
    OldTemplate,
}

/// What the node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Chain {
    height: u32,
    /// Tells blocks of one height apart.
    branch: u32,
    gives: Gives,
}

impl Chain {
    fn tip(self) -> String {
        format!("{:064x}", 0x1_0000 * self.branch + 0xab00 + self.height)
    }

    fn long_poll_id(self) -> String {
        format!("{}-{}-{:?}", self.height, self.branch, self.gives)
    }
}

/// The node; it ends with this handle.
pub struct ScriptedNode {
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
    /// Starts it, with a template on its tip.
    ///
    /// # Errors
    /// When there is no port for it.
    pub async fn start() -> Result<Self> {
        let (chain, known) = watch::channel(Chain { height: 7, branch: 0, gives: Gives::Template });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/", listener.local_addr()?);
        let router = Router::new().route("/", post(answer)).with_state(known);
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { url, chain, task })
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Templates come from here.
    #[must_use]
    pub fn configure(&self, config: GatewayConfig) -> GatewayConfig {
        self.configure_at(&self.url, config)
    }

    /// Templates come from here, by way of another address.
    #[must_use]
    pub fn configure_at(&self, url: &str, config: GatewayConfig) -> GatewayConfig {
        config
            .set("source", "kind", "node")
            .set("source", "url", url)
            .set("source", "network", "regtest")
            .set("source", "user", "tester")
            .set("coinbase", "payout_address", "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080")
            .variable("RESERVEGRID_SOURCE__PASSWORD", "not looked at")
    }

    /// One block more; gives its hash.
    pub fn move_tip(&self, gives: Gives) -> String {
        self.chain.send_modify(|chain| *chain = Chain { height: chain.height + 1, gives, ..*chain });
        self.chain.borrow().tip()
    }

    /// Another block at the same height instead; gives its hash.
    pub fn flip_to(&self, branch: u32) -> String {
        self.chain.send_modify(|chain| chain.branch = branch);
        self.chain.borrow().tip()
    }

    /// From now on there is a usable template on the tip.
    pub fn mend(&self) {
        self.chain.send_modify(|chain| chain.gives = Gives::Template);
    }
}

async fn answer(State(mut known): State<watch::Receiver<Chain>>, Json(request): Json<Value>) -> Json<Value> {
    let now = *known.borrow();
    let result = match request["method"].as_str().unwrap_or_default() {
        "getblockchaininfo" => json!({
            "chain": "regtest", "initialblockdownload": false, "blocks": now.height, "bestblockhash": now.tip(),
            "mediantime": unix_time() - 600,
        }),
        "getmininginfo" => {
            json!({ "blocks": now.height, "next": { "height": now.height + 1, "bits": "207fffff" } })
        }
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

fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

fn template(chain: Chain) -> Value {
    let now = unix_time();
    let on = match chain.gives {
        Gives::Template => chain,
        Gives::OldTemplate => Chain { height: chain.height - 1, ..chain },
        Gives::Nonsense => return json!({ "version": "of another planet" }),
    };
    json!({
        "capabilities": ["proposal"],
        "version": 0x2000_0000,
        "rules": ["csv", "!segwit", "taproot"],
        "previousblockhash": on.tip(),
        "transactions": [],
        "coinbasevalue": 50_0000_0000_u64,
        "longpollid": chain.long_poll_id(),
        "target": format!("7fffff{}", "0".repeat(58)),
        "mintime": now - 600,
        "curtime": now,
        "bits": "207fffff",
        "height": on.height + 1,
        "default_witness_commitment": COMMITMENT,
    })
}
