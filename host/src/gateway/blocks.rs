//! Solved blocks go to the source at once, and again until it answers: a block is worth minutes of trying.
//!
//! Each is delivered by a task of its own, so that one that hangs holds up no other, and lies in a file
//! until the source has answered: whatever happens to the process, an operator can submit it by hand.

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
    while let Some(solved) = solved.recv().await {
        while deliveries.try_join_next().is_some() {}
        if deliveries.len() == MAX_DELIVERIES {
            deliveries.join_next().await;
        }
        deliveries.spawn(delivery.clone().deliver(solved));
    }
    while deliveries.join_next().await.is_some() {}
}

impl Delivery {
    async fn deliver(mut self, solved: Solved) {
        let hash = solved.header.block_hash().to_string();
        let (reason, detail) = match solved.job.block(solved.header, &solved.extranonce) {
            Ok(block) => self.attempt(&block, &self.folder.join(format!("block-{hash}.hex"))).await,
            Err(error) => (Reason::BlockSubmitFailed, error.to_string()),
        };
        if reason == Reason::BlockSubmitted {
            // The source has a new tip now; do not wait until it says so by itself.
            self.ask.notify_one();
        }
        let found = BlockFound {
            reason,
            hash,
            height: solved.job.template.height,
            user_identity: solved.user_identity,
            detail,
            coinbase_value: solved.job.template.coinbase_value,
        };
        self.ledger.block(found.clone());
        self.events.emit(Event::BlockFound(found));
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
                    let _ = tokio::fs::remove_file(file).await;
                    return match outcome {
                        SubmitOutcome::Accepted => (Reason::BlockSubmitted, String::new()),
                        SubmitOutcome::Rejected(words) => (Reason::BlockRejectedByNode, words),
                    };
                }
                Err(error) => error,
            };
            if started.elapsed() > GIVE_UP || *self.down.borrow() {
                let detail = match saved.await {
                    Ok(Ok(())) => {
                        format!("{error}; submit it by hand: submitblock $(cat {})", file.display())
                    }
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
