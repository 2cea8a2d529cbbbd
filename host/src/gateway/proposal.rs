//! The block that a template becomes, shown to the node before anybody has solved it (BIP 23, proposal).
//!
//! A last check of our own assembly (coinbase, commitment, order) by the software that decides in the end. It
//! takes a node as long as validating a block, so it is off unless the operator wants it: "watch" asks beside
//! the work and only tells the answer; "gate" makes a rejection part of the verdict, and one that does not come
//! a failure of this machine, which is asked again. Templates for a tip that is still to come are not asked
//! about.

use super::sources::NamedSource;
use crate::{
    config::ProposalCheck,
    event::{
        Event, Events,
        schema::{ProposalAnswered, millis},
    },
    job::EXTRANONCE_LEN,
    policy::{Judgement, Verdict},
    reason::Reason,
    template::{Template, coinbase},
    view::sources::SourcesBoard,
};
use bitcoin::{Block, consensus::encode};
use std::{sync::Arc, time::Instant};
use tokio::task::JoinHandle;

/// Longest words of the node that are told, characters.
const MAX_WORDS: usize = 200;

/// Asks the source that leads.
#[derive(Clone)]
pub(super) struct Proposals {
    /// All sources with what the operator wants of them.
    pub(super) sources: Arc<[(NamedSource, ProposalCheck)]>,
    /// Where it stands who leads.
    pub(super) board: Arc<SourcesBoard>,
    pub(super) events: Events,
}

/// A question under way whose answer counts.
pub(super) struct Asked(JoinHandle<(Reason, String)>);

impl Proposals {
    /// Asks about a template; gives the question when its answer is part of the verdict.
    pub(super) fn ask(&self, template: &Arc<Template>) -> Option<Asked> {
        let leader = self.board.leader()?;
        let (source, check) = self.sources.iter().find(|(source, _)| source.name == leader)?.clone();
        if check == ProposalCheck::Off || template.is_future() {
            return None;
        }
        let (events, template) = (self.events.clone(), template.clone());
        let asking = tokio::spawn(async move {
            let started = Instant::now();
            let (reason, detail) = propose(&source, &template).await;
            events.emit(Event::ProposalAnswered(ProposalAnswered {
                reason,
                template: template.digest.to_string(),
                source: source.name,
                detail: detail.clone(),
                duration_ms: millis(started.elapsed()),
            }));
            (reason, detail)
        });
        (check == ProposalCheck::Gate).then_some(Asked(asking))
    }
}

impl Asked {
    /// What the node said becomes part of what the policies said.
    pub(super) async fn decide(self, judgement: &mut Judgement) {
        let answer = self.0.await;
        let (reason, detail) = answer
            .unwrap_or_else(|error| (Reason::ProposalUnanswered, format!("the question was lost: {error}")));
        if reason == Reason::ProposalAccepted || !judgement.verdict.accepted {
            return;
        }
        judgement.verdict = Verdict::fault(reason, detail);
        judgement.decided_by = None;
        judgement.infrastructure_fault |= reason == Reason::ProposalUnanswered;
    }
}

async fn propose(source: &NamedSource, template: &Template) -> (Reason, String) {
    let block = match assembled(template) {
        Ok(block) => block,
        Err(error) => {
            return (Reason::ProposalRejected, format!("the coinbase cannot be assembled: {error}"));
        }
    };
    match source.source.propose(&block).await {
        Ok(Some(Ok(()))) => (Reason::ProposalAccepted, String::new()),
        Ok(Some(Err(words))) => (Reason::ProposalRejected, words.chars().take(MAX_WORDS).collect()),
        Ok(None) => (Reason::ProposalUnanswered, "this kind of source does not check blocks".to_owned()),
        Err(error) => (Reason::ProposalUnanswered, error.to_string()),
    }
}

/// The block of an extranonce of zeros, without proof of work.
fn assembled(template: &Template) -> Result<Block, String> {
    let (prefix, suffix) = template.coinbase.split().map_err(|error| error.to_string())?;
    let bytes = [&prefix[..], &[0; EXTRANONCE_LEN], &suffix[..]].concat();
    let mut coinbase = encode::deserialize(&bytes).map_err(|error| error.to_string())?;
    coinbase::restore_witness(&mut coinbase);
    Ok(template.to_block(coinbase, template.version, template.current_time, 0))
}
