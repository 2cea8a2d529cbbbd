#![allow(clippy::unwrap_used)]
//! The watcher in front of a source that says what a test likes.

use super::*;
use crate::{
    event,
    template::{SourceTip, Sourced, SubmitOutcome},
};
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
        Ok(self.tip.map(SourceTip::named))
    }

    async fn submit_block(&self, _: &Block) -> Result<SubmitOutcome, SourceError> {
        Ok(SubmitOutcome::Accepted)
    }
}

/// What the watcher has to say about a source that fails so, up to and with what follows the failure; the
/// source is silent after that and therefore stale soon.
async fn said(reason: Reason, tip: Option<BlockHash>) -> Heard {
    let (events, _writer) = event::start(None, None).unwrap();
    let (told, mut heard) = mpsc::channel(1);
    let watcher = Watcher {
        index: 3,
        name: "main".into(),
        source: Arc::new(Failing { first: Mutex::new(Some(reason)), tip }),
        stale_after: tokio::sync::watch::channel(Duration::from_millis(1_500)).1,
        refresh: Duration::from_secs(30),
        told,
        ask: Arc::default(),
        events,
    };
    let watching = tokio::spawn(watcher.run());
    let first = heard.recv().await.unwrap();
    assert!(matches!(first.heard, Heard::Failed(said, _) if said == reason) && first.source == 3);
    let second = heard.recv().await.unwrap().heard;
    watching.abort();
    second
}

#[tokio::test]
async fn a_source_whose_template_cannot_be_used_is_asked_for_its_tip() {
    let tip = BlockHash::from_byte_array([7; 32]);
    for reason in [Reason::TemplateSourceInvalid, Reason::TemplateUndecodable] {
        let Heard::Tip(told) = said(reason, Some(tip)).await else { panic!("{reason}: no tip") };
        assert_eq!(told, SourceTip::named(tip));
    }
}

#[tokio::test]
async fn a_source_that_is_away_or_does_not_know_its_tip_is_only_missing() {
    let tip = Some(BlockHash::from_byte_array([7; 32]));
    for (reason, tip) in [(Reason::TemplateSourceUnreachable, tip), (Reason::TemplateSourceInvalid, None)] {
        assert!(matches!(said(reason, tip).await, Heard::Silent), "{reason}");
    }
}
