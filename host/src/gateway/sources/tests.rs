#![allow(clippy::unwrap_used)]
//! What the flow is told of several sources, and what stands on the board.

use super::*;
use crate::{
    event,
    template::{
        Context, SourceError, SubmitOutcome, TemplateDigest,
        facts::assemble,
        synthetic::{self, ContextTable, TemplateTable},
    },
};
use async_trait::async_trait;
use bitcoin::Block;

/// Gives what the test sends, and nothing when there is nothing.
struct Scripted(tokio::sync::Mutex<mpsc::Receiver<Result<Sourced, SourceError>>>);

#[async_trait]
impl TemplateSource for Scripted {
    fn name(&self) -> String {
        "a test".into()
    }

    async fn next_template(
        &self,
        _: Option<TemplateDigest>,
        patience: Duration,
    ) -> Result<Option<Sourced>, SourceError> {
        match tokio::time::timeout(patience, async { self.0.lock().await.recv().await }).await {
            Ok(Some(said)) => said.map(Some),
            Ok(None) => pending().await,
            Err(_) => Ok(None),
        }
    }

    async fn submit_block(&self, _: &Block) -> Result<SubmitOutcome, SourceError> {
        Ok(SubmitOutcome::Accepted)
    }
}

type Says = mpsc::Sender<Result<Sourced, SourceError>>;

struct Scene {
    says: Vec<Says>,
    news: mpsc::Receiver<News>,
    board: Arc<SourcesBoard>,
    _down: signal::Sender<bool>,
}

fn scene(names: &[&str]) -> Scene {
    let (mut says, mut list) = (Vec::new(), Vec::new());
    for name in names {
        let (say, said) = mpsc::channel(8);
        says.push(say);
        let source = Arc::new(Scripted(tokio::sync::Mutex::new(said)));
        let stale_after = signal::channel(Duration::from_secs(600)).1;
        let refresh = Duration::from_secs(600);
        list.push(NamedSource { name: (*name).to_owned(), source, stale_after, refresh });
    }
    let (events, _writer) = event::start(None, None).unwrap();
    let (news, told) = mpsc::channel(1);
    let (down, running) = signal::channel(false);
    let board = Arc::<SourcesBoard>::default();
    let apart_after = Duration::from_secs(300);
    let sources = Sources {
        list,
        rules: Rules { apart_after, return_after: Duration::ZERO },
        news,
        ask: Arc::default(),
        best: Arc::default(),
        board: board.clone(),
        events,
    };
    tokio::spawn(sources.run(running));
    Scene { says, news: told, board, _down: down }
}

fn template(height: u32, tag: &str) -> Sourced {
    let table = TemplateTable { height, ..TemplateTable::default() };
    let (mut declared, _) = synthetic::build(&table, &ContextTable::default()).unwrap();
    if let crate::template::CoinbaseParts::Planned(spec) = &mut declared.coinbase {
        spec.tag = tag.to_owned();
    }
    let template = assemble(&declared).unwrap();
    Sourced::new(declared, template, Context::default())
}

fn away() -> Result<Sourced, SourceError> {
    Err(SourceError { reason: Reason::TemplateSourceUnreachable, detail: "connection refused".into() })
}

impl Scene {
    async fn next(&mut self) -> TemplateDigest {
        match self.news.recv().await {
            Some(News::Template(sourced)) => sourced.template.digest,
            _ => panic!("no template"),
        }
    }
}

#[tokio::test]
async fn the_newest_template_of_the_backup_is_there_when_the_leader_fails_and_the_lead_goes_back() {
    let mut scene = scene(&["main", "second"]);
    let [first, second, again] = ["a", "b", "c"].map(|tag| template(7, tag));
    let digests = [&first, &second, &again].map(|sourced| sourced.template.digest);
    scene.says[1].send(Ok(second)).await.unwrap();
    scene.says[0].send(Ok(first)).await.unwrap();
    assert_eq!(scene.next().await, digests[0], "the preferred one leads");
    scene.says[0].send(away()).await.unwrap();
    assert_eq!(scene.next().await, digests[1], "at once, with what it had already");
    let shown = scene.board.look();
    assert_eq!(
        shown.sources.iter().map(|s| (s.leads, s.state)).collect::<Vec<_>>(),
        [(false, SourceState::Down), (true, SourceState::Up),]
    );
    assert_eq!(shown.sources[0].reason_code, Some(Reason::TemplateSourceUnreachable));
    assert_eq!(scene.board.leader().as_deref(), Some("second"));
    scene.says[0].send(Ok(again)).await.unwrap();
    assert_eq!(scene.next().await, digests[2], "it came back");
    assert_eq!(scene.board.leader().as_deref(), Some("main"));
}

#[tokio::test]
async fn what_a_backup_gives_counts_for_the_best_value_and_is_no_work() {
    let mut scene = scene(&["main", "second"]);
    scene.says[0].send(Ok(template(7, "a"))).await.unwrap();
    let first = scene.next().await;
    scene.says[1].send(Ok(template(7, "b"))).await.unwrap();
    scene.says[0].send(Ok(template(7, "c"))).await.unwrap();
    let next = scene.next().await;
    assert!(next != first && next == template(7, "c").template.digest);
}

#[test]
fn news_that_wait_give_way_to_those_that_make_them_worthless() {
    let tip = |height: u32| News::Tip(SourceTip::named(template(height, "").template.previous_block_hash));
    let mut waiting = Waiting::default();
    waiting.push(tip(5));
    waiting.push(News::Template(Box::new(template(7, "a"))));
    waiting.push(News::Template(Box::new(template(7, "b"))));
    assert_eq!(waiting.0.len(), 1, "the newest template alone");
    waiting.push(tip(8));
    waiting.push(News::Stale);
    waiting.push(tip(9));
    assert!(matches!(waiting.0.make_contiguous(), [News::Template(_), News::Tip(_)]));
}
