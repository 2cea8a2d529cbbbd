//! A node that is away, refuses, talks nonsense or takes its time.

use crate::server::{Reply, Request, Server};
use bitcoin::{BlockHash, CompactTarget, Network, ScriptBuf, consensus::encode::serialize_hex};
use reservegrid::{
    reason::Reason,
    template::{
        ChainTip, CoinbaseSpec, DiscrepancyKind, MempoolState, NextBlock, Place, SourceError, SourceTip,
        Sourced, SubmitOutcome, Template, TemplateSource,
        chain::{EmbeddedChain, EmbeddedConfig},
        node::{Auth, NodeConfig, NodeSource},
    },
};
use serde_json::{Value, json};
use std::time::Duration;

pub(crate) const LONG: Duration = Duration::from_secs(600);
const TIP: &str = "00000000000000000000000000000000000000000000000000000000000000ab";
const SECRET: &str = "correct horse battery staple";

fn auth() -> Auth {
    Auth::UserPassword { user: "miner".to_owned(), password: SECRET.to_owned() }
}

fn config(url: String) -> NodeConfig {
    let coinbase =
        CoinbaseSpec { payout: ScriptBuf::from_bytes(vec![0x51]).into(), tag: "/tests/".to_owned() };
    let (network, zmq_hashblock) = (Network::Regtest, None);
    NodeConfig { url, auth: auth(), network, request_timeout: LONG, zmq_hashblock, coinbase }
}

pub(crate) fn source(server: &Server) -> NodeSource {
    NodeSource::new(config(server.url())).unwrap()
}

/// Templates on the same tip, as a node would print them.
pub(crate) async fn answers(count: usize) -> Vec<Value> {
    let refresh = Duration::from_millis(1);
    let config = EmbeddedConfig { transactions_per_template: 8, refresh, ..Default::default() };
    let chain = EmbeddedChain::new(config).unwrap();
    let mut after = None;
    let mut answers = Vec::new();
    for number in 0..count {
        let template = chain.next_template(after, LONG).await.unwrap().unwrap().template;
        after = Some(template.digest);
        answers.push(printed(&template, &format!("poll-{number}")));
    }
    answers
}

pub(crate) fn printed(template: &Template, long_poll_id: &str) -> Value {
    let facts = &template.facts;
    let entry = |i: usize| {
        json!({
            "data": serialize_hex(&template.transactions[i]),
            "txid": facts.txids[i].to_string(),
            "hash": facts.wtxids[i].to_string(),
            "depends": [],
            "fee": facts.fees[i],
            "sigops": facts.sigops[i],
            "weight": facts.weights[i],
        })
    };
    json!({
        "capabilities": ["proposal"],
        "version": template.version.to_consensus(),
        "rules": ["csv", "!segwit", "taproot"],
        "previousblockhash": template.previous_block_hash.to_string(),
        "transactions": (0..facts.fees.len()).map(entry).collect::<Vec<_>>(),
        "coinbasevalue": template.coinbase_value,
        "longpollid": long_poll_id,
        "target": format!("{:064x}", bitcoin::Target::from_compact(template.bits)),
        "mintime": template.min_time,
        "curtime": template.current_time,
        "bits": format!("{:08x}", template.bits.to_consensus()),
        "height": template.height,
        "default_witness_commitment": template.witness_commitment_script().to_hex_string(),
    })
}

/// What a healthy node says to everything but `getblocktemplate`.
pub(crate) fn healthy(request: &Request) -> Reply {
    Reply::Result(match request.method.as_str() {
        "getblockchaininfo" => json!({
            "chain": "regtest", "initialblockdownload": false, "blocks": 7, "bestblockhash": TIP,
        }),
        "getmininginfo" => json!({ "blocks": 7, "next": { "height": 8, "bits": "207fffff" } }),
        "getmempoolinfo" => json!({ "size": 3, "bytes": 1_000, "total_fee": 0.00012345 }),
        "getrawmempool" => json!({}),
        method => panic!("nobody asks for {method} here"),
    })
}

/// A node that says `answer` to `getblocktemplate`, and what becomes of it.
async fn template_from(answer: Value) -> Result<Option<Sourced>, SourceError> {
    let server = Server::start(move |request| match request.method.as_str() {
        "getblocktemplate" => Reply::Result(answer.clone()),
        _ => healthy(request),
    });
    source(&server.await).next_template(None, LONG).await
}

/// A node that answers the very first question so.
async fn first_contact(reply: impl FnMut(&Request) -> Reply + Send + 'static) -> SourceError {
    let server = Server::start(reply).await;
    source(&server).next_template(None, LONG).await.expect_err("a template from nowhere")
}

#[track_caller]
pub(crate) fn assert_error(error: &SourceError, reason: Reason, words: &[&str]) {
    assert_eq!(error.reason, reason, "{error}");
    for word in words {
        assert!(error.detail.contains(word), "{:?} does not say {word:?}", error.detail);
    }
    assert!(!error.to_string().contains(SECRET), "the password is in the error: {error}");
    assert!(error.detail.len() < 600, "an error for people: {}", error.detail);
}

#[tokio::test]
async fn a_good_template_comes_through_with_its_context() {
    let answer = answers(1).await.remove(0);
    let sourced = template_from(answer.clone()).await.unwrap().unwrap();
    assert_eq!(printed(&sourced.template, "poll-0"), answer);
    let mempool = MempoolState { transaction_count: 3, total_vsize: 1_000, total_fees: 12_345 };
    assert_eq!(sourced.context.mempool, Some(mempool));
    let next_bits = Some(CompactTarget::from_consensus(0x207f_ffff));
    let hash: BlockHash = TIP.parse().unwrap();
    assert_eq!(sourced.context.tip, Some(ChainTip { hash, height: 7, next_bits }));
    assert_eq!(sourced.context.known.unwrap().to_vec(), [true; 8]);
    assert_eq!((sourced.context.fee_rates, sourced.context.best_template_value), (None, None));
    assert_eq!(sourced.template.discrepancies, []);
    assert_eq!(sourced.template.coinbase.transaction.output[0].script_pubkey.as_bytes(), [0x51]);
}

/// The tip in the context when the node says `answer` to `method`.
async fn tip_when(method: &'static str, answer: Reply) -> Option<ChainTip> {
    let template = answers(1).await.remove(0);
    let (mut checked, mut answer) = (false, Some(answer));
    let server = Server::start(move |request| match request.method.as_str() {
        "getblocktemplate" => Reply::Result(template.clone()),
        // The first question for the chain is the check whether it is the right one.
        "getblockchaininfo" if !std::mem::replace(&mut checked, true) => healthy(request),
        asked if asked == method => answer.take().expect("one question a template"),
        _ => healthy(request),
    });
    source(&server.await).next_template(None, LONG).await.unwrap().unwrap().context.tip
}

#[tokio::test]
async fn a_tip_that_the_node_does_not_tell_is_unknown_and_stops_nothing() {
    assert_eq!(tip_when("getblockchaininfo", Reply::Fault(-32603, "no tip")).await, None);
    assert_eq!(tip_when("getblockchaininfo", Reply::Silence).await, None);
    let unknown_bits = [
        Reply::Fault(-32601, "Method not found"),
        Reply::Result(json!({ "blocks": 7 })),
        Reply::Result(json!({ "next": { "height": 9, "bits": "207fffff" } })),
        Reply::Result(json!({ "next": { "height": 8, "bits": "easy" } })),
    ];
    for answer in unknown_bits {
        let tip = tip_when("getmininginfo", answer).await.expect("the tip itself is known");
        assert_eq!((tip.height, tip.next_bits), (7, None));
    }
}

#[tokio::test]
async fn a_mempool_that_cannot_be_asked_is_unknown_and_stops_nothing() {
    let answer = answers(1).await.remove(0);
    let server = Server::start(move |request| match request.method.as_str() {
        "getblocktemplate" => Reply::Result(answer.clone()),
        "getmempoolinfo" => Reply::Fault(-32603, "mempool trouble"),
        _ => healthy(request),
    });
    let sourced = source(&server.await).next_template(None, LONG).await.unwrap().unwrap();
    assert_eq!(sourced.context.mempool, None);
}

#[tokio::test]
async fn the_tip_and_what_comes_after_it_are_known_without_a_template() {
    let hash: BlockHash = TIP.parse().unwrap();
    let server = Server::start(|request| match request.method.as_str() {
        "getblockchaininfo" => Reply::Result(json!({
            "chain": "regtest", "blocks": 7, "bestblockhash": TIP, "mediantime": 1_700_000_000,
            "chainwork": format!("{:064x}", 0x1234),
        })),
        _ => healthy(request),
    });
    let next =
        NextBlock { height: 8, bits: CompactTarget::from_consensus(0x207f_ffff), min_time: 1_700_000_001 };
    let tip = source(&server.await).tip().await.unwrap();
    let mut work = [0; 32];
    work[30..].copy_from_slice(&[0x12, 0x34]);
    let work = Some(bitcoin::Work::from_be_bytes(work));
    let place = Place { hash, height: 7, work };
    assert_eq!(tip, Some(SourceTip { hash, next: Some(next), place: Some(place) }));

    // What is not said is not guessed.
    let server = Server::start(|request| match request.method.as_str() {
        "getmininginfo" => Reply::Result(json!({ "blocks": 7 })),
        _ => healthy(request),
    });
    let place = Some(Place { work: None, ..place });
    assert_eq!(source(&server.await).tip().await.unwrap(), Some(SourceTip { hash, next: None, place }));
    let nonsense = Server::start(|_| Reply::Result(json!("no chain"))).await;
    assert_error(
        &source(&nonsense).tip().await.unwrap_err(),
        Reason::TemplateSourceInvalid,
        &["getblockchaininfo"],
    );
}

#[tokio::test]
async fn a_node_that_is_away_is_unreachable() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let source = NodeSource::new(config(format!("http://{address}"))).unwrap();
    let error = source.next_template(None, LONG).await.unwrap_err();
    assert_error(&error, Reason::TemplateSourceUnreachable, &["cannot be reached", &address.to_string()]);
}

#[tokio::test]
async fn a_node_that_does_not_answer_in_time_is_unreachable() {
    let server = Server::start(|_| Reply::Silence).await;
    let request_timeout = Duration::from_millis(50);
    let source = NodeSource::new(NodeConfig { request_timeout, ..config(server.url()) }).unwrap();
    let error = source.next_template(None, LONG).await.unwrap_err();
    assert_error(
        &error,
        Reason::TemplateSourceUnreachable,
        &["did not answer getblockchaininfo within 50ms"],
    );
}

#[tokio::test]
async fn a_node_that_is_cut_off_in_mid_answer_is_unreachable() {
    let cut = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"result\":";
    let error = first_contact(|_| Reply::Raw(cut.to_vec())).await;
    assert_error(&error, Reason::TemplateSourceUnreachable, &["broke off", "getblockchaininfo"]);
}

#[tokio::test]
async fn refused_credentials_are_named_and_never_shown() {
    let error = first_contact(|_| Reply::Http(401, String::new())).await;
    assert_error(&error, Reason::TemplateSourceRefused, &["credentials", "cookie"]);
    let error = first_contact(|_| Reply::Http(403, String::new())).await;
    assert_error(&error, Reason::TemplateSourceRefused, &["rpcallowip"]);
    let shown = format!("{:?}", NodeSource::new(config("http://127.0.0.1:1".to_owned())).unwrap());
    assert!(!shown.contains(SECRET) && !shown.contains("miner"), "{shown}");
}

#[tokio::test]
async fn a_cookie_that_changed_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(".cookie");
    std::fs::write(&path, "__cookie__:old\n").unwrap();
    let answer = answers(1).await.remove(0);
    let file = path.clone();
    let server = Server::start(move |request| {
        // "__cookie__:new"
        if request.authorization != "Basic X19jb29raWVfXzpuZXc=" {
            std::fs::write(&file, "__cookie__:new\n").unwrap();
            return Reply::Http(401, String::new());
        }
        match request.method.as_str() {
            "getblocktemplate" => Reply::Result(answer.clone()),
            _ => healthy(request),
        }
    });
    let server = server.await;
    let source = NodeSource::new(NodeConfig { auth: Auth::Cookie(path), ..config(server.url()) }).unwrap();
    assert!(source.next_template(None, LONG).await.unwrap().is_some());
}

#[tokio::test]
async fn a_cookie_file_that_is_not_there_or_not_one_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(".cookie");
    let url = "http://127.0.0.1:1".to_owned();
    let source = NodeSource::new(NodeConfig { auth: Auth::Cookie(path.clone()), ..config(url) }).unwrap();
    let error = source.next_template(None, LONG).await.unwrap_err();
    assert_error(&error, Reason::TemplateSourceUnreachable, &[path.to_str().unwrap(), "running"]);
    std::fs::write(&path, SECRET).unwrap();
    let error = source.next_template(None, LONG).await.unwrap_err();
    assert_error(&error, Reason::TemplateSourceRefused, &[path.to_str().unwrap(), "not a cookie file"]);
}

#[tokio::test]
async fn an_address_that_cannot_work_is_refused_at_once() {
    for (url, word) in [
        ("not a url", "URL"),
        ("https://127.0.0.1:8332", "http://"),
        ("http://user:pass@127.0.0.1:8332", "credentials"),
    ] {
        let error = NodeSource::new(config(url.to_owned())).unwrap_err();
        assert_error(&error, Reason::ConfigInvalid, &[word]);
        assert!(!error.detail.contains("pass@"), "{error}");
    }
}

#[tokio::test]
async fn a_node_that_is_not_ready_says_what_it_is_busy_with() {
    for (code, word) in [(-28, "warming up"), (-10, "downloading"), (-9, "no peers")] {
        let error = first_contact(move |_| Reply::Fault(code, "Loading block index...")).await;
        assert_error(&error, Reason::TemplateSourceUnreachable, &[word, "Loading block index"]);
    }
    let error = first_contact(|_| Reply::Http(503, "Work queue depth exceeded".to_owned())).await;
    assert_error(&error, Reason::TemplateSourceUnreachable, &["too busy", "Work queue"]);
    let error = first_contact(|_| Reply::Fault(-32601, "Method not found")).await;
    assert_error(&error, Reason::TemplateSourceRefused, &["getblockchaininfo", "Method not found", "-32601"]);
}

#[tokio::test]
async fn an_answer_that_is_not_json_rpc_is_invalid() {
    let page = "<html><body>\u{7}It works!</body></html>";
    let error = first_contact(move |_| Reply::Http(200, page.to_owned())).await;
    assert_error(&error, Reason::TemplateSourceInvalid, &["not JSON", "It works!"]);
    for body in ["", "{}", "[]", "null", "{\"result\":7}", "{\"error\":\"no\"}", "{\"result\":null}"] {
        let error = first_contact(move |_| Reply::Http(200, body.to_owned())).await;
        assert_error(&error, Reason::TemplateSourceInvalid, &["getblockchaininfo"]);
    }
    let good = json!({ "result": { "chain": "regtest" } }).to_string();
    let error = first_contact(move |_| Reply::Http(404, good.clone())).await;
    assert_error(&error, Reason::TemplateSourceInvalid, &["404"]);
}

#[tokio::test]
async fn an_answer_without_end_is_cut() {
    let error = first_contact(|_| Reply::Endless).await;
    assert_error(&error, Reason::TemplateSourceInvalid, &["more than 67108864 bytes"]);
    let announced = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n";
    let error = first_contact(|_| Reply::Raw(announced.to_vec())).await;
    assert_error(&error, Reason::TemplateSourceInvalid, &["more than 67108864 bytes"]);
}

#[tokio::test]
async fn a_node_of_another_chain_is_refused_with_both_names() {
    let error = first_contact(|_| Reply::Result(json!({ "chain": "main" }))).await;
    assert_error(&error, Reason::TemplateSourceRefused, &["\"main\"", "\"regtest\""]);
}

#[tokio::test]
async fn a_field_that_is_missing_or_of_the_wrong_type_is_named() {
    let answer = answers(1).await.remove(0);
    let fields = [
        "version",
        "previousblockhash",
        "transactions",
        "coinbasevalue",
        "longpollid",
        "mintime",
        "curtime",
        "bits",
        "height",
    ];
    for field in fields {
        let mut without = answer.clone();
        without.as_object_mut().unwrap().remove(field);
        let error = template_from(without).await.unwrap_err();
        assert_error(&error, Reason::TemplateSourceInvalid, &["missing field", field]);
        for wrong in [json!(-1.5), json!(null), json!(true), json!({ "a": 1 })] {
            let mut bad = answer.clone();
            bad[field] = wrong;
            let error = template_from(bad).await.unwrap_err();
            assert_error(
                &error,
                Reason::TemplateSourceInvalid,
                &["getblocktemplate", &format!("\"{field}\"")],
            );
        }
    }
    for field in ["data", "txid", "hash", "fee", "sigops", "weight"] {
        let mut without = answer.clone();
        without["transactions"][3].as_object_mut().unwrap().remove(field);
        let error = template_from(without).await.unwrap_err();
        assert_error(&error, Reason::TemplateSourceInvalid, &["missing field", field]);
        let mut bad = answer.clone();
        bad["transactions"][3][field] = json!("zz");
        let error = template_from(bad).await.unwrap_err();
        assert_error(&error, Reason::TemplateSourceInvalid, &["getblocktemplate", &format!("\"{field}\"")]);
    }
}

/// `answer` with another value at one place.
fn changed(answer: &Value, pointer: &str, value: Value) -> Value {
    let mut answer = answer.clone();
    match answer.pointer_mut(pointer) {
        Some(there) => *there = value,
        None => answer[pointer.strip_prefix('/').unwrap()] = value,
    }
    answer
}

#[tokio::test]
async fn a_template_that_lies_comes_with_its_lies() {
    use DiscrepancyKind as Kind;
    let answer = answers(1).await.remove(0);
    let zeros = "00".repeat(32);
    let lies = [
        ("/coinbasevalue", json!(21), Kind::CoinbaseValue, None, "21"),
        ("/target", json!(zeros), Kind::Target, None, &zeros),
        ("/transactions/2/weight", json!(1), Kind::Weight, Some(2), "1"),
        ("/transactions/3/hash", json!(zeros), Kind::Wtxid, Some(3), &zeros),
        ("/transactions/4/sigops", json!(9999), Kind::Sigops, Some(4), "9999"),
        ("/default_witness_commitment", json!("6a"), Kind::WitnessCommitment, None, "6a"),
        ("/default_witness_commitment", json!(null), Kind::WitnessCommitmentMissing, None, "none"),
    ];
    for (pointer, value, kind, row, declared) in lies {
        let sourced = template_from(changed(&answer, pointer, value)).await.unwrap().unwrap();
        let [found] = &sourced.template.discrepancies[..] else {
            panic!("{pointer}: {:?}", sourced.template.discrepancies)
        };
        assert_eq!((found.kind, found.transaction, found.declared.as_str()), (kind, row, declared));
    }
}

#[tokio::test]
async fn an_answer_that_makes_no_template_is_refused() {
    let answer = answers(1).await.remove(0);
    let bad = [
        ("/bits", json!("207fff"), "bits has 3 bytes"),
        ("/bits", json!("2100ffff"), "bits"),
        ("/target", json!("00"), "target has 1 bytes"),
        ("/rules/1", json!("!quantum"), "!quantum"),
        ("/height", json!(0), "height"),
        ("/vbrequired", json!(0x2000), "vbrequired"),
        ("/noncerange", json!("00000000000000ff"), "noncerange"),
    ];
    for (pointer, value, word) in bad {
        let error = template_from(changed(&answer, pointer, value)).await.unwrap_err();
        assert_error(&error, Reason::TemplateSourceInvalid, &[word]);
    }
    let error = template_from(changed(&answer, "/transactions/2/data", json!("0200"))).await.unwrap_err();
    assert_error(&error, Reason::TemplateUndecodable, &["transactions[2]"]);
}

#[tokio::test]
async fn answers_to_a_submitted_block_keep_their_meaning() {
    let block = bitcoin::constants::genesis_block(Network::Regtest);
    let cases = [
        (json!(null), SubmitOutcome::Accepted),
        (json!("duplicate"), SubmitOutcome::Known),
        (json!("inconclusive"), SubmitOutcome::Rejected("inconclusive".to_owned())),
        (json!("high-hash"), SubmitOutcome::Rejected("high-hash".to_owned())),
        (json!("duplicate-invalid"), SubmitOutcome::Rejected("duplicate-invalid".to_owned())),
    ];
    for (answer, meaning) in cases {
        let mut server = Server::start(move |_| Reply::Result(answer.clone())).await;
        assert_eq!(source(&server).submit_block(&block).await.unwrap(), meaning);
        assert_eq!(server.saw("submitblock").await.params, json!([serialize_hex(&block)]));
    }
    for nonsense in ["{}", "{\"result\":7}", "ok"] {
        let server = Server::start(move |_| Reply::Http(200, nonsense.to_owned())).await;
        let error = source(&server).submit_block(&block).await.unwrap_err();
        assert_error(&error, Reason::TemplateSourceInvalid, &["submitblock"]);
    }
    let fault = "{\"result\":null,\"error\":{\"code\":-22,\"message\":\"Block decode failed\"}}";
    for status in [200, 500] {
        let server = Server::start(move |_| Reply::Http(status, fault.to_owned())).await;
        let error = source(&server).submit_block(&block).await.unwrap_err();
        assert_error(&error, Reason::TemplateSourceRefused, &["Block decode failed"]);
    }
}

#[tokio::test]
async fn the_name_that_the_node_gives_its_work_comes_back_with_the_block() {
    let mut answer = answers(1).await.remove(0);
    answer["workid"] = json!("work 7");
    let tip = answer["previousblockhash"].as_str().unwrap().parse().unwrap();
    let mut server = Server::start(move |request| match request.method.as_str() {
        "getblocktemplate" => Reply::Result(answer.clone()),
        "submitblock" => Reply::Result(json!(null)),
        _ => healthy(request),
    })
    .await;
    let source = source(&server);
    source.next_template(None, LONG).await.unwrap();
    let mut block = bitcoin::constants::genesis_block(Network::Regtest);
    block.header.prev_blockhash = tip;
    source.submit_block(&block).await.unwrap();
    let submitted = server.saw("submitblock").await;
    assert_eq!(submitted.params, json!([serialize_hex(&block), { "workid": "work 7" }]));
}

#[tokio::test]
async fn a_template_whose_height_does_not_follow_its_tip_is_refused() {
    let answer = answers(1).await.remove(0);
    let (tip, height) = (answer["previousblockhash"].clone(), answer["height"].as_u64().unwrap());
    let server = Server::start(move |request| match request.method.as_str() {
        "getblocktemplate" => Reply::Result(answer.clone()),
        "getblockchaininfo" => {
            Reply::Result(json!({ "chain": "regtest", "blocks": height + 6, "bestblockhash": tip }))
        }
        _ => healthy(request),
    });
    let error = source(&server.await).next_template(None, LONG).await.unwrap_err();
    assert_error(&error, Reason::TemplateSourceInvalid, &["height", "the tip that it builds on is at"]);
}

#[tokio::test]
async fn a_proposal_is_answered_with_the_words_of_the_node_or_with_nothing_to_object() {
    let block = bitcoin::constants::genesis_block(Network::Regtest);
    for (answer, meaning) in
        [(json!(null), Ok(())), (json!("bad-cb-amount"), Err("bad-cb-amount".to_owned()))]
    {
        let mut server = Server::start(move |_| Reply::Result(answer.clone())).await;
        assert_eq!(source(&server).propose(&block).await.unwrap(), Some(meaning));
        let asked = server.saw("getblocktemplate").await;
        assert_eq!(
            (&asked.params[0]["mode"], &asked.params[0]["data"]),
            (&json!("proposal"), &json!(serialize_hex(&block)))
        );
    }
}

#[tokio::test]
async fn fee_rates_come_from_the_listing_of_a_small_mempool_and_the_histogram_of_a_large_one() {
    for (size, p50) in [(3, 2_000), (70_000, 9_000)] {
        let answer = answers(1).await.remove(0);
        let server = Server::start(move |request| match request.method.as_str() {
            "getblocktemplate" => Reply::Result(answer.clone()),
            "getmempoolinfo" if request.params == json!([]) => {
                Reply::Result(json!({ "size": size, "bytes": 1_000, "total_fee": 0.00012345 }))
            }
            "getmempoolinfo" => {
                Reply::Result(json!({ "fee_histogram": { "9": { "sizes": 100, "fees": 900 } } }))
            }
            "getrawmempool" if size < 10 => {
                Reply::Result(json!({ "aa": { "vsize": 100, "fees": { "base": 0.00000200 } } }))
            }
            "getrawmempool" => panic!("a large mempool is not listed"),
            _ => healthy(request),
        })
        .await;
        let source = source(&server);
        // They are asked for beside the templates, and there with one of the next.
        let rates = loop {
            let sourced = source.next_template(None, LONG).await.unwrap().unwrap();
            assert!(sourced.context.mempool_age_ms.is_some());
            if let Some(rates) = sourced.context.fee_rates {
                break rates;
            }
        };
        assert_eq!(rates.p50, p50);
    }
}
