//! A miner that sends many shares at once and keeps a book of those it was told Success for.

use anyhow::{Result, ensure};
use parsers_sv2::MiningOwned;
use reservegrid_tests::{
    client::{BITS, Client, Message, OpenChannel, Share},
    gateway::{Gateway, GatewayConfig, policy},
};
use serde_json::json;
use std::collections::VecDeque;

/// A gateway on the embedded chain for these tests: every hash is a share, and its policies are compiled once.
pub(crate) fn config() -> Result<GatewayConfig> {
    let floor = json!({ "min_avg_fee": { "low": 1, "mid": 1, "high": 1 } });
    let config = GatewayConfig::new("inline")?;
    let cache = config.folder().join("code");
    config
        .embedded(BITS, 5)
        .set("source", "refresh", "1h")
        .set("source", "stale_after", "1h")
        .set("gate", "verdict_timeout", "10s")
        .set("gate", "hold_timeout", "2m")
        .set("engine", "code_cache", cache.display().to_string())
        .set("miners", "vardiff", "off")
        .set("miners", "min_difficulty", 0.0)
        .set("miners", "max_shares_per_second", 1_000_000)
        .policy("fee-floor", &policy("fee-floor")?, &floor)
}

/// The miner.
pub(crate) struct Miner {
    client: Client,
    channel: OpenChannel,
    nonce: u32,
    /// Sent and not answered: sequence number and share id.
    sent: VecDeque<(u32, String)>,
    /// Ids that were told Success.
    pub(crate) acked: Vec<String>,
    /// Error codes that were told.
    pub(crate) refused: Vec<String>,
}

impl Miner {
    /// Connects and opens a channel.
    pub(crate) async fn start(gateway: &Gateway, user: &str) -> Result<Self> {
        let mut client = Client::connect(gateway).await?;
        client.setup(0).await?;
        let channel = client.open_standard(user).await?;
        Ok(Self { client, channel, nonce: 0, sent: VecDeque::new(), acked: Vec::new(), refused: Vec::new() })
    }

    /// The channel, and a share for it that nobody has sent yet.
    pub(crate) fn next_share(&mut self) -> Result<Share> {
        let share = self.channel.good_share(self.nonce)?;
        self.nonce = share.nonce + 1;
        Ok(share)
    }

    /// The id of a share.
    pub(crate) fn id(&self, share: &Share) -> String {
        self.channel.header(share).block_hash().to_string()
    }

    /// Sends so many shares, without waiting for anything.
    pub(crate) async fn send(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            let share = self.next_share()?;
            self.send_share(&share).await?;
        }
        Ok(())
    }

    /// Sends this share.
    pub(crate) async fn send_share(&mut self, share: &Share) -> Result<()> {
        let id = self.id(share);
        let number = self.client.send_share(self.channel.id, share).await?;
        self.sent.push_back((number, id));
        Ok(())
    }

    /// Takes answers until at most so many are awaited.
    pub(crate) async fn settle(&mut self, left: usize) -> Result<()> {
        while self.sent.len() > left {
            match self.client.next_message().await? {
                Message::Mining(MiningOwned::SubmitSharesSuccess(m)) => {
                    for _ in 0..m.new_submits_accepted_count {
                        let (number, id) = self.sent.pop_front().expect("an answer to a share");
                        ensure!(number <= m.last_sequence_number, "an answer out of turn");
                        self.acked.push(id);
                    }
                }
                Message::Mining(MiningOwned::SubmitSharesError(m)) => {
                    let at = self.sent.iter().position(|(number, _)| *number == m.sequence_number);
                    self.sent.remove(at.expect("an answer to a share"));
                    self.refused.push(m.error_code.as_utf8_or_hex());
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Mines, and leaves with shares sent and answers not read.
    pub(crate) async fn until_killed(&mut self, shares: usize) -> Result<()> {
        self.mine(shares).await?;
        self.send(96).await?;
        self.settle(48).await
    }

    /// Sends and takes answers until the gateway is gone, or so many shares were sent.
    pub(crate) async fn mine(&mut self, shares: usize) -> Result<()> {
        const AT_ONCE: usize = 32;
        for sent in (0..shares).step_by(AT_ONCE) {
            self.send(AT_ONCE.min(shares - sent)).await?;
            self.settle(4 * AT_ONCE).await?;
        }
        self.settle(0).await
    }
}
