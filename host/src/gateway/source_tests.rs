#![allow(clippy::unwrap_used)]
//! The watcher in front of a source that says what a test likes.

use super::*;
use crate::{event, template::SubmitOutcome};
use async_trait::async_trait;
use bitcoin::{Block, BlockHash, hashes::Hash};
use std::{future::pending, sync::Mutex};

/// Fails once with this reason, then says nothing more; knows its tip.
struct Failing {
    first: Mutex<Option<Reason>>,
    tip: Option<BlockHash>,
}

#[async_trait]
impl TemplateSource for Failing {
    fn name(&self) -> String {
        "a test".into()
    }

    async fn next_template(
        &self,
        _: Option<TemplateDigest>,
        _: Duration,
    ) -> Result<Option<Sourced>, SourceError> {
        let first = self.first.lock().unwrap().take();
        match first {
            Some(reason) => Err(SourceError { reason, detail: "as told".into() }),
            None => pending().await,
        }
    }

    async fn tip(&self) -> Result<Option<SourceTip>, SourceError> {
        Ok(self.tip.map(|hash| SourceTip { hash, next: None }))
    }

    async fn submit_block(&self, _: &Block) -> Result<SubmitOutcome, SourceError> {
        Ok(SubmitOutcome::Accepted)
    }
}

/// What the watcher has to say first about a source that fails so; the source is silent after that and
/// therefore stale soon.
async fn first_news(reason: Reason, tip: Option<BlockHash>) -> News {
    let (events, _writer) = event::start(None, None).unwrap();
    let (news, mut heard) = mpsc::channel(1);
    let (_running, down) = watch::channel(false);
    let watcher = Watcher {
        source: Arc::new(Failing { first: Mutex::new(Some(reason)), tip }),
        stale_after: watch::channel(Duration::from_millis(1_500)).1,
        news,
        ask: Arc::default(),
        events,
    };
    let watching = tokio::spawn(watcher.run(down));
    let first = heard.recv().await.unwrap();
    watching.abort();
    first
}

#[tokio::test]
async fn a_source_whose_template_cannot_be_used_is_asked_for_its_tip() {
    let tip = BlockHash::from_byte_array([7; 32]);
    for reason in [Reason::TemplateSourceInvalid, Reason::TemplateUndecodable] {
        let News::Tip(told) = first_news(reason, Some(tip)).await else { panic!("{reason}: no tip") };
        assert_eq!(told, SourceTip { hash: tip, next: None });
    }
}

#[tokio::test]
async fn a_source_that_is_away_or_does_not_know_its_tip_is_only_missing() {
    let tip = Some(BlockHash::from_byte_array([7; 32]));
    for (reason, tip) in [(Reason::TemplateSourceUnreachable, tip), (Reason::TemplateSourceInvalid, None)] {
        assert!(matches!(first_news(reason, tip).await, News::Stale), "{reason}");
    }
}
