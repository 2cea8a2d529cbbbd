//! Long polling: one poll at most, never abandoned, never trusted blindly.

use crate::{
    node::{LONG, answers, assert_error, healthy, printed, source},
    server::{Reply, Server},
};
use reservegrid::{
    reason::Reason,
    template::{
        TemplateSource,
        chain::{EmbeddedChain, EmbeddedConfig},
    },
};
use serde_json::{Value, json};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::oneshot;

/// A node whose long polls are answered by hand.
struct PolledNode {
    server: Server,
    tip: Arc<Mutex<Value>>,
    /// One sender for each long poll that has arrived.
    polls: Arc<Mutex<Vec<oneshot::Sender<Reply>>>>,
}

impl PolledNode {
    async fn start(current: Value) -> Self {
        let tip = Arc::new(Mutex::new(current["previousblockhash"].clone()));
        let polls = Arc::new(Mutex::new(Vec::new()));
        let (shared_tip, shared_polls) = (Arc::clone(&tip), Arc::clone(&polls));
        let server = Server::start(move |request| match request.method.as_str() {
            "getblocktemplate" if request.params[0].get("longpollid").is_some() => {
                let (sender, receiver) = oneshot::channel();
                shared_polls.lock().unwrap().push(sender);
                Reply::Later(receiver)
            }
            "getblocktemplate" => Reply::Result(current.clone()),
            "getbestblockhash" => Reply::Result(shared_tip.lock().unwrap().clone()),
            _ => healthy(request),
        });
        Self { server: server.await, tip, polls }
    }

    fn answer_poll(&self, answer: Reply) {
        assert!(self.polls.lock().unwrap().remove(0).send(answer).is_ok(), "the poll was abandoned");
    }
}

#[tokio::test]
async fn a_long_poll_outlives_the_patience_and_there_is_never_a_second() {
    let answers = answers(2).await;
    let mut node = PolledNode::start(answers[0].clone()).await;
    let source = source(&node.server);
    let first = source.next_template(None, LONG).await.unwrap().unwrap().template;
    for _ in 0..5 {
        let patience = Duration::from_millis(5);
        assert!(source.next_template(Some(first.digest), patience).await.unwrap().is_none());
    }
    // The poll itself may arrive after the patience is over.
    let mut polls = vec![node.server.saw("getblocktemplate").await];
    while polls.last().unwrap().params[0].get("longpollid").is_none() {
        polls.push(node.server.saw("getblocktemplate").await);
    }
    assert_eq!(polls.last().unwrap().params[0]["longpollid"], "poll-0");
    let later = node.server.seen();
    assert!(later.iter().all(|r| r.method != "getblocktemplate"), "a second poll: {later:?}");

    node.answer_poll(Reply::Result(answers[1].clone()));
    let second = source.next_template(Some(first.digest), LONG).await.unwrap().unwrap().template;
    assert_ne!(second.digest, first.digest);
    assert!(source.next_template(Some(second.digest), Duration::ZERO).await.unwrap().is_none());
    assert_eq!(node.server.saw("getblocktemplate").await.params[0]["longpollid"], "poll-1");
}

#[tokio::test]
async fn a_long_poll_that_brings_the_same_again_goes_on() {
    let answers = answers(2).await;
    let mut node = PolledNode::start(answers[0].clone()).await;
    let source = Arc::new(source(&node.server));
    let first = source.next_template(None, LONG).await.unwrap().unwrap().template;
    node.server.saw("getblocktemplate").await;
    let waiting = tokio::spawn({
        let (source, digest) = (Arc::clone(&source), first.digest);
        async move { source.next_template(Some(digest), LONG).await }
    });
    node.server.saw("getblocktemplate").await;
    node.answer_poll(Reply::Result(answers[0].clone()));
    node.server.saw("getblocktemplate").await;
    node.answer_poll(Reply::Result(answers[1].clone()));
    assert_ne!(waiting.await.unwrap().unwrap().unwrap().template.digest, first.digest);
}

#[tokio::test]
async fn a_tip_that_moved_while_the_poll_kept_silent_is_noticed() {
    let first = answers(1).await.remove(0);
    let chain = EmbeddedChain::new(EmbeddedConfig { seed: 2, ..Default::default() }).unwrap();
    chain.mine_elsewhere().unwrap();
    let next = chain.next_template(None, LONG).await.unwrap().unwrap().template;
    let next_answer = printed(&next, "poll-next");
    let mut fetches = [first.clone(), next_answer].into_iter();
    let tip = next.previous_block_hash.to_string();
    let server = Server::start(move |request| match request.method.as_str() {
        "getblocktemplate" if request.params[0].get("longpollid").is_some() => Reply::Silence,
        "getblocktemplate" => Reply::Result(fetches.next().unwrap()),
        "getbestblockhash" => Reply::Result(json!(tip)),
        _ => healthy(request),
    });
    let server = server.await;
    let source = source(&server);
    let first = source.next_template(None, LONG).await.unwrap().unwrap().template;
    let found = source.next_template(Some(first.digest), Duration::from_millis(5)).await.unwrap().unwrap();
    // The coinbase is another one: each source plans its own.
    assert_eq!(printed(&found.template, "poll-next"), printed(&next, "poll-next"));
}

#[tokio::test]
async fn an_answer_to_an_outdated_poll_is_not_taken_for_the_newest() {
    let answers = answers(3).await;
    let mut current = vec![answers[0].clone(), answers[1].clone()].into_iter();
    let tip = answers[0]["previousblockhash"].clone();
    let (old_poll, receiver) = oneshot::channel();
    let mut old_poll_reply = Some(receiver);
    let newest = answers[2].clone();
    let server = Server::start(move |request| match request.method.as_str() {
        "getblocktemplate" => match request.params[0].get("longpollid").and_then(Value::as_str) {
            None => Reply::Result(current.next().unwrap()),
            Some("poll-0") => Reply::Later(old_poll_reply.take().unwrap()),
            Some(_) => Reply::Result(newest.clone()),
        },
        "getbestblockhash" => Reply::Result(tip.clone()),
        _ => healthy(request),
    });
    let mut server = server.await;
    let source = source(&server);
    let first = source.next_template(None, LONG).await.unwrap().unwrap().template;
    assert!(source.next_template(Some(first.digest), Duration::ZERO).await.unwrap().is_none());
    let second = source.next_template(None, LONG).await.unwrap().unwrap().template;
    assert_ne!(second.digest, first.digest);
    assert!(old_poll.send(Reply::Result(answers[0].clone())).is_ok());
    let third = source.next_template(Some(second.digest), LONG).await.unwrap().unwrap().template;
    assert_eq!(printed(&third, "poll-2"), answers[2]);
    let asked: Vec<_> = server.seen().into_iter().filter(|r| r.method == "getblocktemplate").collect();
    assert_eq!(asked.last().unwrap().params[0]["longpollid"], "poll-1");
}

#[tokio::test]
async fn a_node_that_went_away_during_silence_is_noticed_and_checked_again() {
    let first = answers(1).await.remove(0);
    let node = PolledNode::start(first).await;
    let source = source(&node.server);
    let template = source.next_template(None, LONG).await.unwrap().unwrap().template;
    *node.tip.lock().unwrap() = json!("no hash");
    let error = source.next_template(Some(template.digest), Duration::ZERO).await.unwrap_err();
    assert_error(&error, Reason::TemplateSourceInvalid, &["getbestblockhash"]);
    let PolledNode { mut server, .. } = node;
    server.seen();
    let _ = source.next_template(Some(template.digest), Duration::ZERO).await;
    assert_eq!(server.saw("getblockchaininfo").await.params, json!([]));
}
