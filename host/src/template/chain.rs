//! The embedded chain: a regtest network of one, in this process, for demonstrations and tests.
//!
//! It starts from the real regtest genesis, mines itself enough blocks that their coins can be spent,
//! and from then on hands out templates full of real transactions: signed P2WPKH and taproot spends,
//! chained ones among them, with fees that follow from its own coins. Every block of it is valid for a
//! regtest node, as long as `bits` stays regtest's easiest target. A submitted block is checked
//! (file `state`) and becomes the tip; while there is none, the content changes every `refresh`.
//!
//! What it is for: the whole gateway on a laptop without a node, with blocks that a CPU finds, and
//! template content that policies have something to say about (`low_fee_every`). It remembers its
//! coins and its last headers, not its blocks, so it can run for ever.

mod mint;
mod state;
mod wallet;

use super::{
    ChainTip, CoinbaseParts, CoinbaseSpec, Context, Declared, DeclaredTransaction, MempoolState, NextBlock,
    Place, Provenance, SourceError, SourceTip, Sourced, SubmitOutcome, TemplateDigest, TemplateSource, facts,
};
use crate::reason::Reason;
use async_trait::async_trait;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, Network, ScriptBuf, Target, TxOut, block::Version, consensus,
};
use mint::Minter;
use state::{State, Tip};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::{sync::Notify, time::Instant};
use wallet::Wallet;

/// Regtest's easiest target, every second hash: what the chain mines for itself.
pub const EASIEST_BITS: u32 = 0x207f_ffff;
/// More transactions than this do not fit into a block.
const MAX_TRANSACTIONS: usize = 4_000;
/// Outputs of a coinbase that stocks up the wallet.
const COINS_PER_BLOCK: usize = 500;
/// Blocks until a coinbase may be spent.
const MATURITY: u32 = 100;
/// Headers at start lie this far apart, seconds.
const BOOT_SPACING: u32 = 60;
/// Nobody waits longer.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// What the chain should be like.
#[derive(Clone, Debug)]
pub struct EmbeddedConfig {
    /// Compact target of the templates. Regtest's easiest is `0x207fffff`; a harder one makes a demo
    /// whose blocks take a while, and which a regtest node would not accept.
    pub bits: CompactTarget,
    /// Transactions in a template, at most 4,000.
    pub transactions_per_template: usize,
    /// How often the content changes while the tip stays.
    pub refresh: Duration,
    /// Every n-th template pays 1 sat/vB only, for a fee policy to refuse; 0 for never.
    pub low_fee_every: u32,
    /// Decides keys and transactions: the same seed gives the same content, apart from times.
    pub seed: u64,
    /// What the coinbase of the templates is like.
    pub coinbase: CoinbaseSpec,
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        Self {
            bits: CompactTarget::from_consensus(EASIEST_BITS),
            transactions_per_template: 200,
            refresh: Duration::from_secs(10),
            low_fee_every: 0,
            seed: 1,
            // Anyone can spend it: nothing on this chain is worth anything.
            coinbase: CoinbaseSpec { payout: ScriptBuf::from_bytes(vec![0x51]).into(), tag: String::new() },
        }
    }
}

/// The embedded chain as a source of templates.
#[derive(Debug)]
pub struct EmbeddedChain {
    inner: Arc<Mutex<Inner>>,
    changed: Notify,
}

#[derive(Debug)]
struct Inner {
    config: EmbeddedConfig,
    wallet: Wallet,
    minter: Minter,
    state: State,
    /// Header time of the first block, Unix seconds.
    started: u32,
    made: u32,
    current: Option<Current>,
}

#[derive(Clone, Debug)]
struct Current {
    sourced: Sourced,
    until: Instant,
}

impl EmbeddedChain {
    /// Makes a chain and mines its first blocks.
    ///
    /// # Errors
    /// `ConfigInvalid` for a target that regtest does not allow, too many transactions, or no refresh
    /// time.
    pub fn new(config: EmbeddedConfig) -> Result<Self, SourceError> {
        let invalid = |detail: String| Err(SourceError { reason: Reason::ConfigInvalid, detail });
        let target = Target::from_compact(config.bits);
        if target == Target::ZERO || target > Target::MAX_ATTAINABLE_REGTEST {
            return invalid(format!("bits {:#010x} is no regtest target", config.bits.to_consensus()));
        }
        if config.transactions_per_template > MAX_TRANSACTIONS {
            let wanted = config.transactions_per_template;
            return invalid(format!(
                "{wanted} transactions do not fit into a block; at most {MAX_TRANSACTIONS} do"
            ));
        }
        if config.refresh.is_zero() {
            return invalid("the refresh time of the embedded chain must be more than zero".to_owned());
        }
        let wallet = Wallet::new(config.seed);
        let count = boot_coinbases(&config, &wallet).len() as u32;
        let started = now().saturating_sub(count * BOOT_SPACING);
        let mut state = State::new();
        for block in boot(&config, &wallet, started) {
            let easiest = CompactTarget::from_consensus(EASIEST_BITS);
            state.connect(&block, easiest, now(), &wallet).map_err(|words| SourceError {
                reason: Reason::TemplateSourceInvalid,
                detail: format!("the embedded chain refuses its own block: {words}"),
            })?;
        }
        let minter = Minter::new(config.seed);
        let inner = Inner { config, wallet, minter, state, started, made: 0, current: None };
        Ok(Self { inner: Arc::new(Mutex::new(inner)), changed: Notify::new() })
    }

    /// Height and hash of the tip.
    pub fn tip(&self) -> (u32, BlockHash) {
        let Tip { height, hash, .. } = lock(&self.inner).state.tip();
        (height, hash)
    }

    /// The blocks the chain began with, after the genesis block, for showing them to a real node.
    pub fn boot_blocks(&self) -> Vec<Block> {
        let inner = lock(&self.inner);
        boot(&inner.config, &inner.wallet, inner.started)
    }

    /// Moves the tip by an empty block, as if another miner had found it. It has regtest's easiest
    /// target and is returned.
    ///
    /// # Errors
    /// `TemplateSourceInvalid` when the chain does not accept its own block.
    pub fn mine_elsewhere(&self) -> Result<Block, SourceError> {
        let mut inner = lock(&self.inner);
        let tip = inner.state.tip();
        let height = tip.height + 1;
        let time = now().max(inner.state.median_time_past() + 1);
        let anyone = TxOut { value: subsidy(height), script_pubkey: ScriptBuf::from_bytes(vec![0x51]) };
        let block = wallet::mine(tip.hash, height, time, vec![anyone]);
        let Inner { state, wallet, current, .. } = &mut *inner;
        let easiest = CompactTarget::from_consensus(EASIEST_BITS);
        state.connect(&block, easiest, now(), wallet).map_err(|words| SourceError {
            reason: Reason::TemplateSourceInvalid,
            detail: format!("the embedded chain refuses its own block: {words}"),
        })?;
        *current = None;
        drop(inner);
        self.changed.notify_waiters();
        Ok(block)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Inner) -> Result<T, SourceError> + Send + 'static,
    ) -> Result<T, SourceError> {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || work(&mut lock(&inner))).await.map_err(|e| SourceError {
            reason: Reason::TemplateSourceInvalid,
            detail: format!("the embedded chain failed: {e}"),
        })?
    }
}

#[async_trait]
impl TemplateSource for EmbeddedChain {
    fn name(&self) -> String {
        "embedded chain (regtest)".to_owned()
    }

    async fn next_template(
        &self,
        after: Option<TemplateDigest>,
        patience: Duration,
    ) -> Result<Option<Sourced>, SourceError> {
        let deadline = Instant::now() + patience.min(LONGEST_WAIT);
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let Current { sourced, until } = self.blocking(Inner::current).await?;
            if after != Some(sourced.template.digest) {
                return Ok(Some(sourced));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep_until(until.min(deadline)) => {}
            }
        }
    }

    async fn tip(&self) -> Result<Option<SourceTip>, SourceError> {
        self.blocking(|inner| {
            let Tip { height, hash, .. } = inner.state.tip();
            let min_time = inner.state.median_time_past() + 1;
            let next = NextBlock { height: height + 1, bits: inner.config.bits, min_time };
            let place = Place { hash, height, work: None };
            Ok(Some(SourceTip { hash, next: Some(next), place: Some(place) }))
        })
        .await
    }

    async fn submit_block(&self, block: &Block) -> Result<SubmitOutcome, SourceError> {
        let block = block.clone();
        let outcome = self.blocking(move |inner| Ok(inner.submit(&block))).await?;
        self.changed.notify_waiters();
        Ok(match outcome {
            Ok(()) => SubmitOutcome::Accepted,
            Err("duplicate") => SubmitOutcome::Known,
            Err(words) => SubmitOutcome::Rejected(words.to_owned()),
        })
    }
}

impl Inner {
    fn submit(&mut self, block: &Block) -> Result<(), &'static str> {
        self.state.connect(block, self.config.bits, now(), &self.wallet)?;
        self.current = None;
        Ok(())
    }

    /// The current template, newly made when the tip has moved or its time is over.
    fn current(&mut self) -> Result<Current, SourceError> {
        if let Some(current) = self.current.as_ref().filter(|current| Instant::now() < current.until) {
            return Ok(current.clone());
        }
        let sourced = self.make()?;
        let current = Current { sourced, until: Instant::now() + self.config.refresh.min(LONGEST_WAIT) };
        self.current = Some(current.clone());
        Ok(current)
    }

    fn make(&mut self) -> Result<Sourced, SourceError> {
        self.made = self.made.wrapping_add(1);
        let low_fees = self.config.low_fee_every != 0 && self.made.is_multiple_of(self.config.low_fee_every);
        let tip = self.state.tip();
        let height = tip.height + 1;
        let coins = self.state.spendable(height);
        let minted = self.minter.mint(&self.wallet, coins, self.config.transactions_per_template, low_fees);
        let min_time = self.state.median_time_past() + 1;
        let fees: u64 = minted.iter().map(|m| m.fee).sum();
        let wtxids: Vec<_> = minted.iter().map(|m| m.tx.compute_wtxid()).collect();
        let transactions = minted.into_iter().zip(&wtxids).map(|(m, wtxid)| DeclaredTransaction {
            bytes: consensus::serialize(&m.tx),
            txid: Some(m.tx.compute_txid()),
            wtxid: Some(*wtxid),
            weight: Some(m.tx.weight().to_wu()),
            fee: Some(m.fee),
            spent: Some(m.spent),
            ..Default::default()
        });
        let bits = self.config.bits;
        let declared = Declared {
            network: Network::Regtest,
            provenance: Provenance::Node,
            height,
            version: Version::from_consensus(0x2000_0000),
            previous_block_hash: tip.hash,
            bits,
            target: Some(Target::from_compact(bits).to_be_bytes()),
            min_time,
            current_time: now().max(min_time),
            coinbase_value: subsidy(height).to_sat() + fees,
            coinbase: CoinbaseParts::Planned(self.config.coinbase.clone()),
            merkle_path: None,
            transaction_count: None,
            witness_commitment_script: Some(facts::witness_commitment_script(&wtxids)),
            transactions: transactions.collect(),
        };
        let template = facts::assemble(&declared)?;
        let mempool = MempoolState {
            transaction_count: template.transactions.len() as u64,
            total_vsize: template.facts.weights.iter().map(|w| u64::from(w.div_ceil(4))).sum(),
            total_fees: template.facts.total_fees,
        };
        let context = Context {
            tip: Some(ChainTip { hash: tip.hash, height: tip.height, next_bits: Some(bits) }),
            mempool: Some(mempool),
            known: Some(vec![true; template.transactions.len()].into()),
            ..Context::default()
        };
        Ok(Sourced::new(declared, template, context))
    }
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    // The state changes only after all checks, so a panic leaves nothing half done.
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> u32 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

fn subsidy(height: u32) -> Amount {
    Amount::from_sat(facts::subsidy(height, Network::Regtest))
}

/// Outputs of the first coinbases, by height from 1: some stock up the wallet, a hundred more let
/// those mature.
fn boot_coinbases(config: &EmbeddedConfig, wallet: &Wallet) -> Vec<Vec<TxOut>> {
    let stocks = (2 * config.transactions_per_template).div_ceil(COINS_PER_BLOCK).max(1);
    let count = stocks + MATURITY as usize;
    let coinbases = (1..=count).map(|height| {
        let coins = if height <= stocks { COINS_PER_BLOCK } else { 1 };
        let value = subsidy(height as u32) / coins as u64;
        let output = |i: usize| TxOut { value, script_pubkey: wallet.script(i.is_multiple_of(2)).to_owned() };
        (0..coins).map(output).collect()
    });
    coinbases.collect()
}

fn boot(config: &EmbeddedConfig, wallet: &Wallet, started: u32) -> Vec<Block> {
    let mut previous = bitcoin::constants::genesis_block(Network::Regtest).block_hash();
    let mut blocks = Vec::new();
    for (height, outputs) in (1u32..).zip(boot_coinbases(config, wallet)) {
        let block = wallet::mine(previous, height, started + height * BOOT_SPACING, outputs);
        previous = block.block_hash();
        blocks.push(block);
    }
    blocks
}
