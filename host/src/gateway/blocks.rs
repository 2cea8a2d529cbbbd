//! Solved blocks go to the source at once, and again for a short while if it does not answer.

use crate::{
    event::{Event, Events, schema::BlockFound},
    miner::Solved,
    reason::Reason,
    template::{SubmitOutcome, TemplateSource},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, mpsc},
    time::sleep,
};

/// Attempts to deliver a block; after that another miner has found one.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(500);

/// Submits blocks until every sender is gone.
pub(super) async fn submit(
    mut solved: mpsc::Receiver<Solved>,
    source: Arc<dyn TemplateSource>,
    ask: Arc<Notify>,
    events: Events,
) {
    while let Some(solved) = solved.recv().await {
        let (reason, detail) = deliver(&solved, source.as_ref()).await;
        if reason == Reason::BlockSubmitted {
            // The source has a new tip now; do not wait until it says so by itself.
            ask.notify_one();
        }
        events.emit(Event::BlockFound(BlockFound {
            reason,
            hash: solved.header.block_hash().to_string(),
            height: solved.job.template.height,
            user_identity: solved.user_identity,
            detail,
            coinbase_value: solved.job.template.coinbase_value,
        }));
    }
}

async fn deliver(solved: &Solved, source: &dyn TemplateSource) -> (Reason, String) {
    let block = match solved.job.block(solved.header, &solved.extranonce) {
        Ok(block) => block,
        Err(error) => return (Reason::BlockSubmitFailed, error.to_string()),
    };
    let mut failure = String::new();
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            sleep(PAUSE).await;
        }
        match source.submit_block(&block).await {
            Ok(SubmitOutcome::Accepted) => return (Reason::BlockSubmitted, String::new()),
            Ok(SubmitOutcome::Rejected(words)) => return (Reason::BlockRejectedByNode, words),
            Err(error) => failure = error.to_string(),
        }
    }
    (Reason::BlockSubmitFailed, failure)
}
