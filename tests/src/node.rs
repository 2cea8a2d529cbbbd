//! A real Bitcoin node on regtest: a folder of its own, a free port, nobody to talk to.
//!
//! The programs come from `scripts/get-node.sh`; `RESERVEGRID_NODE_DIR` says where they are (`make test`
//! sets it). Nothing reaches the network: nodes listen on the loopback interface only, for RPC and for one another.

use crate::{process::Process, wait};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tempfile::TempDir;

const START: Duration = Duration::from_secs(60);

/// How the node knows its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// The cookie file that it writes itself.
    Cookie,
    /// User [`USER`] and password [`PASSWORD`].
    Password,
}

/// The user of [`Auth::Password`].
pub const USER: &str = "tester";
/// The password of [`Auth::Password`].
pub const PASSWORD: &str = "only-on-regtest";

/// Bitcoin's test chains that a node can have alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    /// Blocks cost nothing, and the target never changes.
    Regtest,
    /// A signet that anybody may mine: a block costs millions of hashes, the target changes every other block.
    Signet,
}

impl Chain {
    fn name(self) -> &'static str {
        match self {
            Self::Regtest => "regtest",
            Self::Signet => "signet",
        }
    }

    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Regtest => &["-regtest"],
            // The challenge is OP_TRUE. The target follows the time of 14 days' worth of blocks, which are two.
            Self::Signet => &["-signet", "-signetchallenge=51", "-signetblocktime=604800", "-connect=0"],
        }
    }
}

/// A running node. It ends with this handle, and its chain with it.
#[derive(Debug)]
pub struct Node {
    /// JSON-RPC with the credentials of the node.
    pub rpc: Rpc,
    /// How it knows its clients.
    pub auth: Auth,
    process: Process,
    url: String,
    /// Where other nodes connect.
    peers: String,
    /// Where it publishes new blocks by ZMQ.
    zmq: String,
    chain: Chain,
    folder: TempDir,
}

impl Node {
    /// Starts a node with a cookie file.
    ///
    /// # Errors
    /// When the programs are not there, or the node is not ready in time.
    pub async fn start() -> Result<Self> {
        Self::start_with(Auth::Cookie).await
    }

    /// Starts a node and waits until it answers.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_with(auth: Auth) -> Result<Self> {
        Self::start_on(Chain::Regtest, auth).await
    }

    /// The same on another chain.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_on(chain: Chain, auth: Auth) -> Result<Self> {
        let program = program("bitcoind")?;
        let mut last = None;
        // Somebody else may take the port between our look and the node's start; it then ends at once.
        for _ in 0..3 {
            match Self::attempt(&program, chain, auth).await {
                Ok(node) => return Ok(node),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("the node was not started")))
    }

    async fn attempt(program: &Path, chain: Chain, auth: Auth) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("reservegrid-node-").tempdir()?;
        let (port, peers) = (free_port()?, format!("127.0.0.1:{}", free_port()?));
        let zmq = format!("tcp://127.0.0.1:{}", free_port()?);
        let mut command = Command::new(program);
        command.arg(format!("-datadir={}", folder.path().display())).arg(format!("-rpcport={port}")).args([
            "-server",
            "-listen=1",
            "-listenonion=0",
            "-discover=0",
            "-fixedseeds=0",
            "-dnsseed=0",
            "-disablewallet",
            "-printtoconsole=0",
            // A long poll keeps one, also when whoever asked is gone.
            "-rpcthreads=32",
            // Knots makes small blocks unless told otherwise.
            "-blockmaxweight=3996000",
            "-blockmaxsize=4000000",
        ]);
        command.args(chain.arguments());
        command.arg(format!("-bind={peers}")).arg(format!("-zmqpubhashblock={zmq}"));
        if auth == Auth::Password {
            command.arg(format!("-rpcuser={USER}")).arg(format!("-rpcpassword={PASSWORD}"));
        }
        let mut process = Process::start("bitcoind", command, folder.path())?;
        let cookie = folder.path().join(chain.name()).join(".cookie");
        let url = format!("http://127.0.0.1:{port}");
        let rpc = wait::until("the node to answer", START, async || {
            process.check_running()?;
            let credentials = match auth {
                Auth::Password => format!("{USER}:{PASSWORD}"),
                // It is written under another name first, so what can be read is whole.
                Auth::Cookie => match std::fs::read_to_string(&cookie) {
                    Ok(text) => text,
                    Err(_) => return Ok(None),
                },
            };
            let rpc = Rpc::new(&url, &credentials)?;
            Ok(rpc.call("getblockchaininfo", json!([])).await.is_ok().then_some(rpc))
        })
        .await?;
        Ok(Self { rpc, auth, process, url, peers, zmq, chain, folder })
    }

    /// The JSON-RPC address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The cookie file of [`Auth::Cookie`].
    pub fn cookie_file(&self) -> PathBuf {
        self.folder.path().join(self.chain.name()).join(".cookie")
    }

    /// Where it publishes new blocks by ZMQ, `tcp://HOST:PORT`.
    pub fn zmq(&self) -> &str {
        &self.zmq
    }

    /// The folder of its data.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The process, e.g. to stop it (`STOP`, `CONT`) or to end it at once.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Connects it to another node and waits until both know it; they exchange blocks from then on.
    ///
    /// # Errors
    /// When they do not find each other in time.
    pub async fn connect(&self, other: &Node) -> Result<()> {
        self.rpc.call("addnode", json!([other.peers, "onetry"])).await?;
        self.peers_are(other, true).await
    }

    /// Ends all its connections to other nodes; it has one.
    ///
    /// # Errors
    /// When the connection does not end in time.
    pub async fn disconnect(&self, other: &Node) -> Result<()> {
        self.rpc.call("disconnectnode", json!([other.peers])).await?;
        self.peers_are(other, false).await
    }

    async fn peers_are(&self, other: &Node, there: bool) -> Result<()> {
        wait::until("the nodes to know of their connection", START, async || {
            for node in [self, other] {
                let count = node.rpc.call("getconnectioncount", json!([])).await?;
                if (count.as_u64() > Some(0)) != there {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
        .await
    }

    /// Hash of its tip.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn tip(&self) -> Result<String> {
        let hash = self.rpc.call("getbestblockhash", json!([])).await?;
        Ok(hash.as_str().context("a tip that is no hash")?.to_owned())
    }

    /// Waits until its tip is this block.
    ///
    /// # Errors
    /// When it is not in time.
    pub async fn follows(&self, tip: &str) -> Result<()> {
        wait::until("the node to follow", START, async || Ok((self.tip().await? == tip).then_some(()))).await
    }

    /// Mines blocks that pay to nobody who is known; gives the hash of the last.
    ///
    /// # Errors
    /// When the node does not mine.
    pub async fn mine(&self, blocks: u64) -> Result<String> {
        let to = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
        self.rpc.call("generatetoaddress", json!([blocks, to])).await?;
        self.tip().await
    }

    /// The same with blocks that no other node makes: [`mine`](Self::mine) on two nodes within a second makes the
    /// same blocks twice.
    ///
    /// # Errors
    /// When the node does not mine.
    pub async fn mine_apart(&self, blocks: u64) -> Result<String> {
        self.rpc.call("generatetodescriptor", json!([blocks, "raw(51)"])).await?;
        self.tip().await
    }

    /// Height of its tip.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn height(&self) -> Result<u64> {
        self.rpc.call("getblockcount", json!([])).await?.as_u64().context("a height that is no number")
    }

    /// Transactions in its mempool.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn mempool_size(&self) -> Result<u64> {
        let info = self.rpc.call("getmempoolinfo", json!([])).await?;
        info["size"].as_u64().context("a mempool without a size")
    }

    /// A template as the gateway asks for it.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn template(&self) -> Result<Value> {
        self.rpc.call("getblocktemplate", json!([{ "rules": ["segwit", "signet"] }])).await
    }
}

/// A JSON-RPC client.
#[derive(Clone, Debug)]
pub struct Rpc {
    client: reqwest::Client,
    url: String,
    user: String,
    password: String,
}

impl Rpc {
    /// A client for credentials in the form `user:password`.
    ///
    /// # Errors
    /// When they have another form.
    pub fn new(url: &str, credentials: &str) -> Result<Self> {
        let (user, password) = credentials.trim().split_once(':').context("credentials without a colon")?;
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(120)).build()?;
        Ok(Self { client, url: url.into(), user: user.into(), password: password.into() })
    }

    /// Calls a method with a list of parameters and gives its result.
    ///
    /// # Errors
    /// When the node does not answer or answers with an error.
    pub async fn call(&self, method: &str, params: Value) -> Result<Value> {
        let body = json!({ "jsonrpc": "1.0", "id": 0, "method": method, "params": params });
        let mut answer = self.post(&body).await.with_context(|| method.to_owned())?;
        match answer["error"].take() {
            Value::Null => Ok(answer["result"].take()),
            error => bail!("{method}: {error}"),
        }
    }

    /// Passes a whole request on, and its answer back.
    ///
    /// # Errors
    /// When the node does not answer with JSON.
    pub async fn post(&self, body: &Value) -> Result<Value> {
        serde_json::from_slice(&self.raw(body).await?).context("an answer that is not JSON")
    }

    /// The same without a look at the answer.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn raw(&self, body: &Value) -> Result<Vec<u8>> {
        let request = self.client.post(&self.url).basic_auth(&self.user, Some(&self.password)).json(body);
        Ok(request.send().await?.bytes().await?.to_vec())
    }
}

fn program(name: &str) -> Result<PathBuf> {
    let folder = std::env::var_os("RESERVEGRID_NODE_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/node"), PathBuf::from);
    let path = folder.join(name);
    ensure!(path.exists(), "{} is missing: run `make node`", path.display());
    Ok(path)
}

/// A port of the loopback interface that nobody used a moment ago.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
