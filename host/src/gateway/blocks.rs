//! Solved blocks go to every template source at once, and again until it answers: a block is worth minutes of
//! trying.
//!
//! Each is delivered by a task of its own, so that one that hangs holds up no other, and lies in a file
//! until it is decided: whatever happens to the process, the next start tries it again, and an operator can
//! submit it by hand. One source that takes a block decides; a refusal does when every source has been asked.
//! What each of them answers is an event, what decides is in the ledger too.

use super::sources::NamedSource;
use crate::{
    event::{
        Event, Events,
        schema::{BlockAnswered, BlockFound, millis},
    },
    ledger::Ledger,
    miner::Solved,
    reason::Reason,
    template::SubmitOutcome,
};
use bitcoin::{Block, consensus::encode};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::JoinSet,
    time::sleep,
};

/// Blocks that are not decided yet; more wait in the queue, and beyond that are told as not delivered.
const MAX_DELIVERIES: usize = 16;
const BACKOFF_FIRST: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// After that, somebody else has found a block on the same tip.
const GIVE_UP: Duration = Duration::from_secs(600);
/// How long sources that do not answer are tried when the block is decided: they get it from their peers.
const GIVE_UP_DECIDED: Duration = Duration::from_secs(10);

/// What delivering needs.
#[derive(Clone)]
pub(super) struct Delivery {
    /// All sources, in the operator's order.
    pub(super) sources: Arc<[NamedSource]>,
    pub(super) ask: Arc<Notify>,
    pub(super) events: Events,
    /// Where the deciding answers are written down.
    pub(super) ledger: Ledger,
    /// Where blocks lie until they are decided.
    pub(super) folder: PathBuf,
    pub(super) down: watch::Receiver<bool>,
}

/// Submits blocks until every sender is gone and every delivery has ended.
pub(super) async fn submit(mut solved: mpsc::Receiver<Solved>, delivery: Delivery) {
    let mut deliveries = JoinSet::new();
    let places = Arc::new(Semaphore::new(MAX_DELIVERIES));
    for file in left_behind(&delivery.folder) {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        deliveries.spawn(delivery.clone().deliver_again(file, place));
    }
    while let Some(solved) = solved.recv().await {
        while deliveries.try_join_next().is_some() {}
        let Ok(place) = places.clone().acquire_owned().await else { return };
        deliveries.spawn(delivery.clone().deliver(solved, place));
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

/// What became of one block.
struct Decided {
    reason: Reason,
    detail: String,
    /// Sources that are still tried.
    rest: JoinSet<()>,
}

impl Delivery {
    async fn deliver_again(self, file: PathBuf, place: OwnedSemaphorePermit) {
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
        let hash = block.block_hash().to_string();
        let height = block.bip34_block_height().ok().and_then(|height| height.try_into().ok()).unwrap_or(0);
        let paid =
            block.coinbase().map(|coinbase| coinbase.output.iter().map(|out| out.value.to_sat()).sum());
        let Decided { reason, detail, rest } = self.attempt(block, &file).await;
        self.tell(BlockFound {
            reason,
            hash,
            height,
            // Its share has it.
            user_identity: String::new(),
            detail: format!("of an earlier run: {detail}"),
            coinbase_value: paid.unwrap_or(0),
        });
        drop(place);
        rest.join_all().await;
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

    async fn deliver(self, solved: Solved, place: OwnedSemaphorePermit) {
        let hash = solved.header.block_hash().to_string();
        let Decided { reason, detail, rest } = match solved.job.block(solved.header, &solved.extranonce) {
            Ok(block) => self.attempt(block, &self.folder.join(format!("block-{hash}.hex"))).await,
            Err(error) => {
                Decided { reason: Reason::BlockSubmitFailed, detail: error.to_string(), rest: JoinSet::new() }
            }
        };
        self.tell(BlockFound {
            reason,
            hash,
            height: solved.job.template.height,
            user_identity: solved.user_identity,
            detail,
            coinbase_value: solved.job.template.coinbase_value,
        });
        drop(place);
        rest.join_all().await;
    }

    /// Gives the block to every source, and waits until it is decided.
    async fn attempt(&self, block: Block, file: &Path) -> Decided {
        // Beside the first attempts, not before them.
        let saved = tokio::spawn(tokio::fs::write(file.to_owned(), encode::serialize_hex(&block)));
        let (block, mut rest) = (Arc::new(block), JoinSet::new());
        let (told, mut hears) = mpsc::unbounded_channel(); // at most three words of each source
        let (decide, decided) = watch::channel(None);
        for (index, source) in self.sources.iter().cloned().enumerate() {
            let (told, decided) = (told.clone(), decided.clone());
            let (events, down) = (self.events.clone(), self.down.clone());
            let courier = Courier { index, source, told, decided, events, down };
            rest.spawn(courier.deliver(block.clone()));
        }
        drop(told);
        let mut words: Vec<Option<Word>> = self.sources.iter().map(|_| None).collect();
        let outcome = loop {
            let Some((index, word)) = hears.recv().await else { break Outcome::Undelivered };
            if let Some(known) = words.get_mut(index) {
                *known = Some(word);
            }
            if let Some(outcome) = outcome(&words) {
                break outcome;
            }
        };
        decide.send_replace(Some(Instant::now()));
        let (reason, detail) = match outcome {
            Outcome::Accepted | Outcome::Refused => {
                let _ = saved.await;
                let _ = tokio::fs::remove_file(file).await;
                match outcome {
                    Outcome::Accepted => (Reason::BlockSubmitted, String::new()),
                    _ => (Reason::BlockRejectedByNode, self.in_words(&words)),
                }
            }
            // Whatever the source made of it, a node can still be given the block.
            Outcome::Unconfirmed => {
                let _ = saved.await;
                (Reason::BlockUnconfirmed, format!("{}; {}", self.in_words(&words), by_hand(file)))
            }
            Outcome::Undelivered => {
                let words = self.in_words(&words);
                let detail = match saved.await {
                    Ok(Ok(())) => format!("{words}; {}", by_hand(file)),
                    kept => format!("{words}; nor could it be kept in {}: {kept:?}", file.display()),
                };
                (Reason::BlockSubmitFailed, detail)
            }
        };
        Decided { reason, detail, rest }
    }

    /// What the sources said, each under its name where there are several.
    fn in_words(&self, words: &[Option<Word>]) -> String {
        let said = self.sources.iter().zip(words).filter_map(|(source, word)| {
            let words = match word.as_ref()? {
                Word::Answer(SubmitOutcome::Rejected(words) | SubmitOutcome::Unconfirmed(words))
                | Word::Late(words)
                | Word::GaveUp(words) => words,
                Word::Answer(SubmitOutcome::Accepted | SubmitOutcome::Known) => return None,
            };
            Some(if self.sources.len() == 1 { words.clone() } else { format!("{}: {words}", source.name) })
        });
        said.collect::<Vec<_>>().join("; ")
    }
}

/// What a courier has to say.
enum Word {
    /// The source answered.
    Answer(SubmitOutcome),
    /// It did not, and is tried again.
    Late(String),
    /// It did not, and is not tried any more.
    GaveUp(String),
}

/// What becomes of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// A source has it.
    Accepted,
    /// Those that answered refused it, and all were asked.
    Refused,
    /// One took it without an answer, and its tip is another; nobody else has it.
    Unconfirmed,
    /// None answered.
    Undelivered,
}

/// What the words of the sources so far decide, if they do. `None` is a source that was not heard yet.
fn outcome(words: &[Option<Word>]) -> Option<Outcome> {
    let answers = words.iter().flatten().filter_map(|word| match word {
        Word::Answer(outcome) => Some(outcome),
        Word::Late(_) | Word::GaveUp(_) => None,
    });
    if answers.clone().any(SubmitOutcome::is_success) {
        return Some(Outcome::Accepted);
    }
    let gave_up = |word: &Option<Word>| matches!(word, Some(Word::GaveUp(_)));
    let unconfirmed = answers.clone().any(|outcome| matches!(outcome, SubmitOutcome::Unconfirmed(_)));
    match answers.count() {
        0 => words.iter().all(gave_up).then_some(Outcome::Undelivered),
        _ if !words.iter().all(Option::is_some) => None,
        _ if unconfirmed => Some(Outcome::Unconfirmed),
        _ => Some(Outcome::Refused),
    }
}

/// Brings a block to one source.
struct Courier {
    index: usize,
    source: NamedSource,
    told: mpsc::UnboundedSender<(usize, Word)>,
    /// When the block was decided without this source.
    decided: watch::Receiver<Option<Instant>>,
    events: Events,
    down: watch::Receiver<bool>,
}

impl Courier {
    async fn deliver(mut self, block: Arc<Block>) {
        let (started, mut backoff) = (Instant::now(), BACKOFF_FIRST);
        for attempts in 1.. {
            let error = match self.source.source.submit_block(&block).await {
                Ok(outcome) => {
                    let detail = match &outcome {
                        SubmitOutcome::Rejected(words) | SubmitOutcome::Unconfirmed(words) => words.clone(),
                        _ => String::new(),
                    };
                    self.answered(&block, outcome.reason(), detail, attempts, started);
                    return self.say(Word::Answer(outcome));
                }
                Err(error) => error.to_string(),
            };
            let decided = *self.decided.borrow();
            if started.elapsed() > GIVE_UP
                || decided.is_some_and(|at| at.elapsed() > GIVE_UP_DECIDED)
                || *self.down.borrow()
            {
                self.answered(&block, Reason::BlockSubmitFailed, error.clone(), attempts, started);
                return self.say(Word::GaveUp(error));
            }
            if attempts == 1 {
                self.say(Word::Late(error));
            }
            tokio::select! {
                () = sleep(backoff) => {}
                _ = self.down.wait_for(|down| *down) => {}
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    fn say(&self, word: Word) {
        let _ = self.told.send((self.index, word));
    }

    fn answered(&self, block: &Block, reason: Reason, detail: String, attempts: u32, started: Instant) {
        self.events.emit(Event::BlockAnswered(BlockAnswered {
            reason,
            source: self.source.name.clone(),
            hash: block.block_hash().to_string(),
            detail,
            attempts,
            duration_ms: millis(started.elapsed()),
        }));
    }
}

/// What an operator can do with a block that lies in a file.
fn by_hand(file: &Path) -> String {
    format!("submit it by hand: submitblock $(cat {})", file.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(words: &str) -> Option<Outcome> {
        let word = |letter| match letter {
            'a' => Some(Word::Answer(SubmitOutcome::Accepted)),
            'k' => Some(Word::Answer(SubmitOutcome::Known)),
            'r' => Some(Word::Answer(SubmitOutcome::Rejected("high-hash".into()))),
            'u' => Some(Word::Answer(SubmitOutcome::Unconfirmed("its tip is another".into()))),
            'l' => Some(Word::Late("connection refused".into())),
            'g' => Some(Word::GaveUp("connection refused".into())),
            _ => None,
        };
        outcome(&words.chars().map(word).collect::<Vec<_>>())
    }

    #[test]
    fn one_source_that_has_the_block_decides_whatever_the_others_say() {
        for words in ["a", "k", "a-", "-k", "ra", "la", "gk", "ra-", "ua"] {
            assert_eq!(decided(words), Some(Outcome::Accepted), "{words}");
        }
    }

    #[test]
    fn a_block_that_one_source_took_without_an_answer_is_not_called_refused() {
        for words in ["u", "ur", "lu", "gu"] {
            assert_eq!(decided(words), Some(Outcome::Unconfirmed), "{words}");
        }
        assert_eq!(decided("u-"), None);
    }

    #[test]
    fn a_refusal_decides_when_all_were_asked_and_silence_when_all_gave_up() {
        for words in ["r", "rr", "rl", "gr", "lrg"] {
            assert_eq!(decided(words), Some(Outcome::Refused), "{words}");
        }
        assert_eq!((decided("g"), decided("gg")), (Some(Outcome::Undelivered), Some(Outcome::Undelivered)));
        for words in ["-", "r-", "l", "lg", "-g", "ll"] {
            assert_eq!(decided(words), None, "{words}");
        }
    }
}
