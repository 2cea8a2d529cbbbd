//! The embedded chain in front of a real judge: every block of it is accepted by a regtest node.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "template/solve.rs"]
mod solve;

use bitcoin::{CompactTarget, Network, ScriptBuf};
use reservegrid::template::{
    ChainTip, CoinbaseSpec, SubmitOutcome, TemplateSource,
    chain::{EmbeddedChain, EmbeddedConfig},
    node::{Auth, NodeConfig, NodeSource},
};
use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const DEADLINE: Duration = Duration::from_secs(120);
const LONG: Duration = Duration::from_secs(60);

/// A regtest node of its own; ends with this value.
struct Node {
    process: Child,
    data: tempfile::TempDir,
    port: u16,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn node_dir() -> PathBuf {
    let default = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.cache/node"));
    std::env::var_os("RESERVEGRID_NODE_DIR").map_or_else(default, PathBuf::from)
}

impl Node {
    fn start() -> Self {
        let bitcoind = node_dir().join("bitcoind");
        assert!(
            bitcoind.exists(),
            "no node at {}: run `make node`, or set RESERVEGRID_NODE_DIR",
            bitcoind.display()
        );
        let data = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Command::new(bitcoind)
            .arg("-regtest")
            .arg(format!("-datadir={}", data.path().display()))
            .arg(format!("-rpcport={port}"))
            .args(["-server", "-listen=0", "-blockmaxweight=3996000", "-blockmaxsize=4000000"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, data, port }
    }

    /// By cookie, as an operator would.
    fn source(&self) -> NodeSource {
        let cookie = self.data.path().join("regtest/.cookie");
        NodeSource::new(NodeConfig {
            url: format!("http://127.0.0.1:{}", self.port),
            auth: Auth::Cookie(cookie),
            network: Network::Regtest,
            request_timeout: LONG,
            zmq_hashblock: None,
            coinbase: CoinbaseSpec {
                payout: ScriptBuf::from_bytes(vec![0x51]).into(),
                tag: "/tests/".to_owned(),
            },
        })
        .unwrap()
    }
}

/// Asks until the node answers; every failure on the way must be one that passes.
async fn ready(source: &NodeSource) {
    let start = Instant::now();
    while let Err(error) = source.next_template(None, LONG).await {
        assert!(start.elapsed() < DEADLINE, "the node does not come up: {error}");
        assert_eq!(error.reason.code(), "template_source_unreachable", "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_real_node_accepts_every_block_of_the_embedded_chain() {
    let node = Node::start();
    let real = node.source();
    ready(&real).await;

    let config = EmbeddedConfig { transactions_per_template: 150, ..Default::default() };
    let embedded = EmbeddedChain::new(config).unwrap();
    for (height, block) in (1..).zip(embedded.boot_blocks()) {
        assert_eq!(real.submit_block(&block).await.unwrap(), SubmitOutcome::Accepted, "block {height}");
    }
    for found in 1..=12 {
        let block = if found == 6 {
            embedded.mine_elsewhere().unwrap()
        } else {
            let template = embedded.next_template(None, LONG).await.unwrap().unwrap().template;
            let block = solve::solved(&template);
            assert_eq!(block.txdata.len(), 151);
            assert_eq!(embedded.submit_block(&block).await.unwrap(), SubmitOutcome::Accepted);
            block
        };
        assert_eq!(real.submit_block(&block).await.unwrap(), SubmitOutcome::Accepted, "block {found}");
        assert_eq!(real.submit_block(&block).await.unwrap(), SubmitOutcome::Known, "delivered again");
        let sourced = real.next_template(None, LONG).await.unwrap().unwrap();
        let next = sourced.template;
        let (height, tip) = embedded.tip();
        assert_eq!(next.discrepancies, []);
        let next_bits = Some(CompactTarget::from_consensus(0x207f_ffff));
        assert_eq!(sourced.context.tip, Some(ChainTip { hash: tip, height, next_bits }));
        assert_eq!(sourced.context.known.unwrap().len(), next.transactions.len());
        assert_eq!((next.height, next.previous_block_hash), (height + 1, tip), "the node is on another tip");
    }
}

#[tokio::test]
async fn a_real_nodes_long_poll_brings_the_new_tip_at_once() {
    let node = Node::start();
    let real = std::sync::Arc::new(node.source());
    ready(&real).await;
    let first = real.next_template(None, LONG).await.unwrap().unwrap().template;
    let waiting = tokio::spawn({
        let (real, digest) = (std::sync::Arc::clone(&real), first.digest);
        async move { real.next_template(Some(digest), LONG).await }
    });
    let block = solve::solved(&first);
    let submitted = Instant::now();
    assert_eq!(real.submit_block(&block).await.unwrap(), SubmitOutcome::Accepted);
    let second = waiting.await.unwrap().unwrap().unwrap().template;
    assert_eq!(second.previous_block_hash, block.block_hash());
    // The node's own timer would have taken a minute.
    assert!(submitted.elapsed() < Duration::from_secs(30), "{:?}", submitted.elapsed());
    assert_eq!(
        real.submit_block(&solve::grind(first.to_block(
            solve::coinbase(&first),
            first.version,
            first.current_time + 1,
            0
        )))
        .await
        .unwrap(),
        SubmitOutcome::Rejected("inconclusive".to_owned()),
        "a late block of the old tip"
    );
}
