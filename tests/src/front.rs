//! Something between the gateway and a real node: it passes questions and answers on, or changes, breaks and
//! holds back what a test wants changed, broken or held back.

use crate::{
    gateway::GatewayConfig,
    node::{Node, Rpc},
};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// What happens to an answer.
#[derive(Clone, Copy)]
pub enum Twist {
    /// Nothing.
    Honest,
    /// Connections end as soon as they are made.
    Away,
    /// Every question is answered with this error code of the node.
    Fault(i64, &'static str),
    /// Every question is answered with this HTTP status.
    Status(u16),
    /// Every answer ends in its middle.
    CutOff,
    /// No question is answered.
    Silence,
    /// Long polls are not answered, everything else is.
    NoLongPoll,
    /// Answers to this method are changed.
    Change(&'static str, fn(&mut Value)),
    /// Block proposals are answered so.
    Proposal(&'static str),
}

/// The front; it ends with this handle.
pub struct Front {
    url: String,
    twist: Arc<watch::Sender<Twist>>,
    task: JoinHandle<()>,
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Front {
    /// Starts it, honest.
    ///
    /// # Errors
    /// When there is no port for it.
    pub async fn start(node: &Node) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/", listener.local_addr()?);
        let twist = Arc::new(watch::channel(Twist::Honest).0);
        let (rpc, switch) = (node.rpc.clone(), twist.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (rpc, mut twisted) = (rpc.clone(), switch.subscribe());
                tokio::spawn(async move {
                    let mut changes = twisted.clone();
                    changes.mark_unchanged();
                    // Whoever waits for an answer of before is cut off.
                    tokio::select! {
                        _ = serve(stream, rpc, *twisted.borrow_and_update()) => {}
                        _ = changes.changed() => {}
                    }
                });
            }
        });
        Ok(Self { url, twist, task })
    }

    /// Another twist, from now on; open connections end.
    pub fn twist(&self, twist: Twist) {
        self.twist.send_replace(twist);
    }

    /// Templates come from here; credentials are not looked at.
    #[must_use]
    pub fn configure(&self, config: GatewayConfig) -> GatewayConfig {
        config
            .set("source", "kind", "node")
            .set("source", "url", self.url.as_str())
            .set("source", "network", "regtest")
            .set("source", "user", "tester")
            .set("coinbase", "payout_address", "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080")
            .variable("RESERVEGRID_SOURCE__PASSWORD", "not looked at")
    }
}

async fn serve(stream: TcpStream, rpc: Rpc, twist: Twist) -> Result<()> {
    let mut stream = BufReader::new(stream);
    if matches!(twist, Twist::Away) {
        return Ok(());
    }
    loop {
        let request = read(&mut stream).await?;
        let method = request["method"].as_str().unwrap_or_default();
        let asked = &request["params"][0];
        let (status, mut answer) = match twist {
            Twist::Silence => std::future::pending().await,
            Twist::NoLongPoll if !asked["longpollid"].is_null() => std::future::pending().await,
            Twist::Status(status) => (status, Value::Null),
            Twist::Fault(code, message) => {
                (500, json!({ "result": null, "error": { "code": code, "message": message }, "id": 0 }))
            }
            Twist::Proposal(words) if asked["mode"] == "proposal" => {
                (200, json!({ "result": words, "error": null, "id": 0 }))
            }
            _ => (200, rpc.post(&request).await?),
        };
        if let Twist::Change(changed, change) = twist
            && changed == method
        {
            change(&mut answer["result"]);
        }
        let body = answer.to_string();
        let head = format!("HTTP/1.1 {status} Words\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await?;
        if matches!(twist, Twist::CutOff) {
            return Ok(stream.write_all(&body.as_bytes()[..body.len() / 2]).await?);
        }
        stream.write_all(body.as_bytes()).await?;
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> Result<Value> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head)?.to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.context("a request without a length")?.parse()?];
    stream.read_exact(&mut body).await?;
    Ok(serde_json::from_slice(&body)?)
}
