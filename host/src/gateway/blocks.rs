//! Solved blocks go to the source at once, and again until it answers: a block is worth minutes of trying.
//!
//! Each is delivered by a task of its own, so that one that hangs holds up no other, and lies in a file
//! until the source has answered: whatever happens to the process, the next start tries it again, and an
//! operator can submit it by hand.

use crate::{
    event::{Event, Events, schema::BlockFound},
    ledger::Ledger,
    miner::Solved,
    reason::Reason,
    template::{SubmitOutcome, TemplateSource},
};
use bitcoin::{Block, consensus::encode};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinSet,
    time::sleep,
};

/// Blocks being delivered at once; more wait in the queue, and beyond that are told as not delivered.
const MAX_DELIVERIES: usize = 16;
const BACKOFF_FIRST: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// After that, somebody else has found a block on the same tip.
const GIVE_UP: Duration = Duration::from_secs(600);

/// What delivering needs.
#[derive(Clone)]
pub(super) struct Delivery {
    pub(super) source: Arc<dyn TemplateSource>,
    pub(super) ask: Arc<Notify>,
    pub(super) events: Events,
    /// Where the source's answers are written down.
    pub(super) ledger: Ledger,
    /// Where blocks lie until the source has answered.
    pub(super) folder: PathBuf,
    pub(super) down: watch::Receiver<bool>,
}

/// Submits blocks until every sender is gone and every delivery has ended.
pub(super) async fn submit(mut solved: mpsc::Receiver<Solved>, delivery: Delivery) {
    let mut deliveries = JoinSet::new();
    for file in left_behind(&delivery.folder) {
        deliveries.spawn(delivery.clone().deliver_again(file));
    }
    while let Some(solved) = solved.recv().await {
        while deliveries.try_join_next().is_some() {}
        if deliveries.len() == MAX_DELIVERIES {
            deliveries.join_next().await;
        }
        deliveries.spawn(delivery.clone().deliver(solved));
    }
    while deliveries.join_next().await.is_some() {}
}

/// The files of blocks for which an earlier run had no answer.
fn left_behind(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_block = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("block-") && name.ends_with(".hex")
    };
    files.filter(is_block).take(MAX_DELIVERIES).collect()
}

impl Delivery {
    async fn deliver_again(mut self, file: PathBuf) {
        let text = tokio::fs::read_to_string(&file).await.map_err(|error| error.to_string());
        let block = text.and_then(|text| {
            encode::deserialize_hex::<Block>(text.trim()).map_err(|error| error.to_string())
        });
        let block = match block {
            Ok(block) => block,
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "a solved block of an earlier run cannot be read");
                return;
            }
        };
        let (reason, words) = self.attempt(&block, &file).await;
        let paid =
            block.coinbase().map(|coinbase| coinbase.output.iter().map(|out| out.value.to_sat()).sum());
        self.tell(BlockFound {
            reason,
            hash: block.block_hash().to_string(),
            height: block.bip34_block_height().ok().and_then(|height| height.try_into().ok()).unwrap_or(0),
            // Its share has it.
            user_identity: String::new(),
            detail: format!("of an earlier run: {words}"),
            coinbase_value: paid.unwrap_or(0),
        });
    }

    /// Says what became of a block, and writes it down.
    fn tell(&self, found: BlockFound) {
        if found.reason == Reason::BlockSubmitted {
            // The source has a new tip now; do not wait until it says so by itself.
            self.ask.notify_one();
        }
        self.ledger.block(found.clone());
        self.events.emit(Event::BlockFound(found));
    }

    async fn deliver(mut self, solved: Solved) {
        let hash = solved.header.block_hash().to_string();
        let (reason, detail) = match solved.job.block(solved.header, &solved.extranonce) {
            Ok(block) => self.attempt(&block, &self.folder.join(format!("block-{hash}.hex"))).await,
            Err(error) => (Reason::BlockSubmitFailed, error.to_string()),
        };
        self.tell(BlockFound {
            reason,
            hash,
            height: solved.job.template.height,
            user_identity: solved.user_identity,
            detail,
            coinbase_value: solved.job.template.coinbase_value,
        });
    }

    async fn attempt(&mut self, block: &Block, file: &Path) -> (Reason, String) {
        // Beside the first attempt, not before it.
        let saved = tokio::spawn(tokio::fs::write(file.to_owned(), encode::serialize_hex(block)));
        let started = Instant::now();
        let mut backoff = BACKOFF_FIRST;
        loop {
            let error = match self.source.submit_block(block).await {
                Ok(outcome) => {
                    let _ = saved.await;
                    let (reason, words) = match outcome {
                        SubmitOutcome::Accepted => (Reason::BlockSubmitted, String::new()),
                        SubmitOutcome::Rejected(words) => (Reason::BlockRejectedByNode, words),
                        // Whatever the source made of it, a node can still be given the block.
                        SubmitOutcome::Unconfirmed(words) => {
                            return (Reason::BlockUnconfirmed, format!("{words}; {}", by_hand(file)));
                        }
                    };
                    let _ = tokio::fs::remove_file(file).await;
                    return (reason, words);
                }
                Err(error) => error,
            };
            if started.elapsed() > GIVE_UP || *self.down.borrow() {
                let detail = match saved.await {
                    Ok(Ok(())) => format!("{error}; {}", by_hand(file)),
                    kept => format!("{error}; nor could it be kept in {}: {kept:?}", file.display()),
                };
                return (Reason::BlockSubmitFailed, detail);
            }
            tokio::select! {
                () = sleep(backoff) => {}
                _ = self.down.wait_for(|down| *down) => {}
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }
}

/// What an operator can do with a block that lies in a file.
fn by_hand(file: &Path) -> String {
    format!("submit it by hand: submitblock $(cat {})", file.display())
}
