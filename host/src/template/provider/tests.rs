#![allow(clippy::unwrap_used, clippy::expect_used)]
//! The conversation without a socket: what is asked for and when, what becomes a template, what ends it.

use super::{super::facts, memory::Memory, *};
use crate::template::{CoinbaseFrame, DiscrepancyKind, Template, merkle, synthetic};
use binary_sv2::{Encodable, GetSize, Seq0255, U256};
use bitcoin::{
    Amount, BlockHash, CompactTarget, ScriptBuf, Sequence, Target, TxOut, absolute::LockTime, block,
    hashes::Hash, transaction,
};
use parsers_sv2::{IsSv2Message, TemplateDistribution};
use proptest::prelude::*;
use template_distribution_sv2::NewTemplate;

const PATIENCE: Duration = Duration::from_secs(10);
const HEIGHT: u32 = 200;
const BITS: u32 = 0x207f_ffff;
type Now = std::time::Instant;

/// Signed transactions that a block may have, and their fees.
fn transactions(count: u64) -> (Vec<Vec<u8>>, u64) {
    let table = synthetic::TemplateTable {
        transactions: serde_json::from_value(serde_json::json!([{ "count": count, "fee": 1_000 }])).unwrap(),
        ..synthetic::TemplateTable::default()
    };
    let (declared, _) = synthetic::build(&table, &synthetic::ContextTable::default()).unwrap();
    let fees = declared.transactions.iter().filter_map(|entry| entry.fee).sum();
    (declared.transactions.into_iter().map(|entry| entry.bytes).collect(), fees)
}

/// What an honest provider offers at a height, with these transactions.
fn offer(id: u64, future: bool, height: u32, list: &[Vec<u8>], fees: u64) -> Offer {
    let parsed: Vec<bitcoin::Transaction> =
        list.iter().map(|bytes| bitcoin::consensus::deserialize(bytes).unwrap()).collect();
    let wtxids: Vec<_> = parsed.iter().map(bitcoin::Transaction::compute_wtxid).collect();
    let commitment = facts::witness_commitment_script(&wtxids);
    Offer {
        id,
        future,
        version: block::Version::from_consensus(0x2000_0000),
        height,
        coinbase: CoinbaseFrame {
            version: transaction::Version::TWO,
            script_start: bitcoin::script::Builder::new().push_int(i64::from(height)).into_script(),
            sequence: Sequence(0xffff_fffe),
            value: Amount::from_sat(facts::subsidy(height, Network::Regtest) + fees),
            outputs: vec![TxOut { value: Amount::ZERO, script_pubkey: commitment }],
            lock_time: LockTime::from_consensus(height - 1),
        },
        merkle_path: merkle::path(parsed.iter().map(|tx| tx.compute_txid().to_byte_array())),
    }
}

fn tip(template_id: u64, number: u8) -> NewTip {
    let bits = CompactTarget::from_consensus(BITS);
    NewTip {
        template_id,
        hash: BlockHash::from_byte_array([number; 32]),
        time: 1_700_000_000,
        bits,
        target: Target::from_compact(bits).to_be_bytes(),
    }
}

fn spec() -> CoinbaseSpec {
    CoinbaseSpec { payout: ScriptBuf::from_bytes(vec![0x51]).into(), tag: "/t/".into() }
}

/// A conversation with its memory and its clock.
struct Scene {
    feed: Feed,
    memory: Memory,
    now: Now,
}

impl Scene {
    fn new() -> Self {
        let now = Now::now();
        Self { feed: Feed::new(now, PATIENCE), memory: Memory::default(), now }
    }

    /// With a template on tip 1 that is assembled.
    fn on_tip() -> Self {
        let mut scene = Self::new();
        scene.offer(1, true, HEIGHT).unwrap();
        scene.tip(1, 1).unwrap();
        assert_eq!(scene.asked(), [1]);
        scene.data(1, vec![]).unwrap();
        assert_eq!(scene.made().unwrap().previous_block_hash, tip(1, 1).hash);
        scene
    }

    fn hear(&mut self, heard: Heard) -> Result<(), SourceError> {
        self.feed.hear(heard, self.now, &mut self.memory)
    }

    /// One without transactions.
    fn offer(&mut self, id: u64, future: bool, height: u32) -> Result<(), SourceError> {
        self.hear(Heard::Offer(Box::new(offer(id, future, height, &[], 0))))
    }

    fn tip(&mut self, id: u64, number: u8) -> Result<(), SourceError> {
        self.hear(Heard::Tip(tip(id, number)))
    }

    fn data(&mut self, id: u64, list: Vec<Vec<u8>>) -> Result<(), SourceError> {
        self.hear(Heard::Transactions { id, list })
    }

    fn refuse(&mut self, id: u64, code: &str) -> Result<(), SourceError> {
        self.hear(Heard::Refused { id, code: code.into() })
    }

    /// What is asked for now.
    fn asked(&mut self) -> Vec<u64> {
        std::iter::from_fn(|| self.feed.next_request(self.now)).collect()
    }

    fn draft(&mut self) -> Option<Draft> {
        self.feed.next_draft(self.now)
    }

    fn made(&mut self) -> Option<Template> {
        let draft = self.draft()?;
        Some(facts::assemble(&draft.declare(Network::Regtest, &spec()).unwrap()).unwrap())
    }

    /// What is said when nothing more comes.
    fn silence(&mut self) -> Option<Reason> {
        let at = self.feed.deadline()?;
        assert!(self.feed.on_time(at - Duration::from_millis(1)).is_ok(), "too early");
        self.feed.on_time(at).err().map(|error| error.reason)
    }
}

fn reason(result: Result<(), SourceError>) -> Option<Reason> {
    result.err().map(|error| error.reason)
}

#[test]
fn a_template_is_used_when_its_transactions_and_its_tip_are_there_in_whatever_order() {
    let (list, fees) = transactions(5);
    for tip_first in [true, false] {
        let mut scene = Scene::new();
        scene.hear(Heard::Offer(Box::new(offer(7, true, HEIGHT, &list, fees)))).unwrap();
        assert_eq!(scene.asked(), [7]);
        if tip_first {
            scene.tip(7, 1).unwrap();
            assert!(scene.draft().is_none());
        }
        scene.data(7, list.clone()).unwrap();
        if !tip_first {
            assert!(scene.draft().is_none(), "without a tip its target is not known");
            scene.tip(7, 1).unwrap();
        }
        let template = scene.made().unwrap();
        assert!(scene.draft().is_none(), "once");
        assert!(template.discrepancies.is_empty(), "{:?}", template.discrepancies);
        assert_eq!((template.height, template.previous_block_hash), (HEIGHT, tip(7, 1).hash));
        assert_eq!((template.facts.unknown_fees, template.facts.total_fees), (5, fees));
        let coinbase = &template.coinbase.transaction;
        assert_eq!(coinbase.input[0].sequence, Sequence(0xffff_fffe));
        assert_eq!(coinbase.lock_time, LockTime::from_consensus(HEIGHT - 1));
        assert_eq!(coinbase.output.len(), 2, "ours, and the provider's last");
        assert!(template.coinbase.split().is_ok());
    }
}

#[test]
fn one_for_the_tip_after_is_made_ahead_and_becomes_current_when_that_is_told() {
    let mut scene = Scene::on_tip();
    scene.offer(2, true, HEIGHT + 1).unwrap();
    assert_eq!(scene.asked(), [2]);
    scene.data(2, vec![]).unwrap();
    let future = scene.made().unwrap();
    assert!(future.is_future());
    assert!(scene.draft().is_none());
    scene.tip(2, 2).unwrap();
    assert!(scene.asked().is_empty(), "its transactions are here");
    let became = scene.made().unwrap();
    assert!(became.activates(&future));
    assert_eq!(became.previous_block_hash, tip(2, 2).hash);
}

#[test]
fn what_is_overtaken_is_not_asked_for_and_what_is_under_way_is_not_given_up() {
    let mut scene = Scene::on_tip();
    scene.offer(2, false, HEIGHT).unwrap();
    assert_eq!(scene.asked(), [2]);
    scene.offer(3, false, HEIGHT).unwrap();
    scene.offer(4, false, HEIGHT).unwrap();
    assert_eq!(scene.asked(), [4]);
    scene.data(2, vec![]).unwrap();
    assert_eq!(scene.draft().unwrap().offer.id, 2);
    scene.data(4, vec![]).unwrap();
    assert_eq!(scene.draft().unwrap().offer.id, 4);
    // An answer about what is not the newest any more changes nothing.
    scene.offer(5, false, HEIGHT).unwrap();
    scene.offer(6, true, HEIGHT + 1).unwrap();
    assert_eq!(scene.asked(), [5, 6]);
    scene.tip(6, 2).unwrap();
    scene.refuse(5, "stale-template-id").unwrap();
    scene.data(6, vec![]).unwrap();
    assert_eq!(scene.draft().unwrap().offer.id, 6);
    assert!(scene.feed.deadline().is_none(), "nothing is owed");
}

#[test]
fn a_flood_of_templates_is_not_kept_and_not_asked_for() {
    let mut scene = Scene::on_tip();
    for id in 2..10_000 {
        scene.offer(id, id % 2 == 0, HEIGHT + u32::from(id % 2 == 0)).unwrap();
        assert!(scene.asked().len() <= 4);
    }
    assert!(scene.asked().is_empty(), "four questions are open");
    assert!(scene.tip(5_000, 2).is_err(), "long forgotten");
    assert!(scene.tip(9_998, 2).is_ok());
}

#[test]
fn a_tip_for_a_template_that_was_not_offered_for_it_is_refused() {
    let id_unknown = Some(Reason::TemplateIdUnknown);
    let mut scene = Scene::new();
    assert_eq!(reason(scene.tip(1, 1)), id_unknown, "never offered");
    let mut scene = Scene::on_tip();
    scene.offer(2, false, HEIGHT).unwrap();
    assert_eq!(reason(scene.tip(2, 2)), id_unknown, "for the tip of now");
    let mut scene = Scene::on_tip();
    assert_eq!(reason(scene.tip(1, 2)), id_unknown, "used up");
}

#[test]
fn an_answer_that_nobody_asked_for_and_a_number_that_does_not_grow_are_refused() {
    let protocol = Some(Reason::TemplateProviderProtocol);
    assert_eq!(reason(Scene::on_tip().data(1, vec![])), protocol);
    assert_eq!(reason(Scene::on_tip().refuse(9, "stale-template-id")), protocol);
    assert_eq!(reason(Scene::on_tip().offer(1, true, HEIGHT + 1)), protocol);
    assert_eq!(reason(Scene::new().offer(1, false, HEIGHT)), protocol, "on a tip that was not told");
    let mut scene = Scene::on_tip();
    let unknown: Vec<_> = (0..40).map(|_| reason(scene.hear(Heard::Unknown))).collect();
    assert_eq!((unknown[0], unknown[39]), (None, protocol));
}

#[test]
fn a_height_that_contradicts_what_was_said_before_is_refused() {
    let invalid = Some(Reason::TemplateSourceInvalid);
    assert_eq!(reason(Scene::on_tip().offer(2, false, HEIGHT - 5)), invalid, "on the same tip");
    // The same tip once more, in another conversation.
    let mut scene = Scene::on_tip();
    scene.feed = Feed::new(scene.now, PATIENCE);
    scene.offer(2, true, HEIGHT - 5).unwrap();
    assert_eq!(reason(scene.tip(2, 1)), invalid);
    let mut scene = Scene::on_tip();
    scene.offer(2, true, HEIGHT - 101).unwrap();
    assert_eq!(reason(scene.tip(2, 2)), invalid, "further back than a chain goes");
    // A branch that loses, and back to a tip that was there before.
    let mut scene = Scene::on_tip();
    scene.offer(2, true, HEIGHT - 1).unwrap();
    assert_eq!(reason(scene.tip(2, 2)), None);
    scene.offer(3, true, HEIGHT).unwrap();
    assert_eq!(reason(scene.tip(3, 1)), None);
}

#[test]
fn each_answer_of_the_provider_about_a_template_has_its_meaning() {
    let mut scene = Scene::on_tip();
    scene.offer(2, false, HEIGHT).unwrap();
    scene.asked();
    scene.refuse(2, "stale-template-id").unwrap();
    assert_eq!(scene.silence(), Some(Reason::TemplateOutdated));
    scene.offer(3, false, HEIGHT).unwrap();
    assert_eq!(scene.feed.deadline(), None, "there is another one");
    for (code, reason_code) in
        [("template-id-not-found", Reason::TemplateIdUnknown), ("no-idea", Reason::TemplateSourceRefused)]
    {
        let mut scene = Scene::on_tip();
        scene.offer(2, false, HEIGHT).unwrap();
        scene.asked();
        assert_eq!(reason(scene.refuse(2, code)), Some(reason_code));
    }
}

#[test]
fn what_does_not_come_in_time_has_a_code_for_what_it_was() {
    let mut scene = Scene::new();
    assert_eq!(scene.silence(), Some(Reason::TemplateSourceUnreachable), "no template at all");
    scene.offer(1, true, HEIGHT).unwrap();
    assert_eq!(scene.silence(), Some(Reason::TemplateSourceUnreachable), "no tip");
    let mut scene = Scene::on_tip();
    assert_eq!(scene.silence(), None, "nothing is owed");
    scene.offer(2, false, HEIGHT).unwrap();
    scene.asked();
    assert_eq!(scene.silence(), Some(Reason::TemplateDataMissing));
    let mut scene = Scene::on_tip();
    assert_eq!(scene.feed.probe(scene.now), Some(1));
    assert_eq!(scene.silence(), Some(Reason::TemplateSourceUnreachable), "not even a sign of life");
    scene.data(1, vec![]).unwrap();
    assert_eq!(scene.silence(), None);
    assert!(scene.draft().is_none(), "it is no other template");
}

#[test]
fn what_the_provider_says_wrongly_stands_in_the_template() {
    let (list, fees) = transactions(6);
    let found = |offered: Offer, list: Vec<Vec<u8>>, told: NewTip| {
        let mut scene = Scene::new();
        let id = offered.id;
        scene.hear(Heard::Offer(Box::new(offered))).unwrap();
        scene.hear(Heard::Tip(told)).unwrap();
        scene.asked();
        scene.data(id, list).unwrap();
        let kinds: Vec<_> = scene.made().unwrap().discrepancies.iter().map(|found| found.kind).collect();
        kinds
    };
    let honest = || offer(1, true, HEIGHT, &list, fees);
    assert_eq!(found(honest(), list.clone(), tip(1, 1)), []);
    let mut other_order = list.clone();
    other_order.swap(0, 5);
    let kinds = found(honest(), other_order, tip(1, 1));
    assert!(kinds.contains(&DiscrepancyKind::MerklePath), "{kinds:?}");
    assert!(kinds.contains(&DiscrepancyKind::WitnessCommitment), "{kinds:?}");
    let mut wrong_path = honest();
    wrong_path.merkle_path[1] = [9; 32];
    assert_eq!(found(wrong_path, list.clone(), tip(1, 1)), [DiscrepancyKind::MerklePath]);
    let mut poor = honest();
    poor.coinbase.value -= Amount::from_sat(fees + 1);
    assert_eq!(found(poor, list.clone(), tip(1, 1)), [DiscrepancyKind::CoinbaseValue]);
    let mut rich = offer(1, true, HEIGHT, &[], 0);
    rich.coinbase.value += Amount::from_sat(1);
    assert_eq!(found(rich, vec![], tip(1, 1)), [DiscrepancyKind::CoinbaseValue]);
    let mut no_commitment = honest();
    no_commitment.coinbase.outputs.clear();
    assert_eq!(found(no_commitment, list.clone(), tip(1, 1)), [DiscrepancyKind::WitnessCommitmentMissing]);
    let weak = NewTip { target: [1; 32], ..tip(1, 1) };
    assert_eq!(found(honest(), list, weak), [DiscrepancyKind::Target]);
}

#[test]
fn a_coinbase_that_would_pay_more_than_there_is_becomes_no_template() {
    for value in [u64::MAX, Amount::MAX_MONEY.to_sat() + 1] {
        let (list, _) = transactions(2);
        let mut scene = Scene::new();
        let mut rich = offer(1, true, HEIGHT, &list, 0);
        rich.coinbase.value = Amount::from_sat(value);
        rich.coinbase.outputs[0].value = Amount::from_sat(value);
        scene.hear(Heard::Offer(Box::new(rich))).unwrap();
        scene.tip(1, 1).unwrap();
        scene.asked();
        scene.data(1, list).unwrap();
        let declared = scene.draft().unwrap().declare(Network::Regtest, &spec());
        let made = declared.and_then(|declared| Ok(facts::assemble(&declared)?));
        assert_eq!(made.unwrap_err().reason, Reason::TemplateSourceInvalid);
    }
}

#[test]
fn a_block_finds_the_template_that_it_was_made_from() {
    let (list, fees) = transactions(3);
    let mut scene = Scene::new();
    scene.hear(Heard::Offer(Box::new(offer(1, true, HEIGHT, &list, fees)))).unwrap();
    scene.tip(1, 1).unwrap();
    scene.asked();
    scene.data(1, list.clone()).unwrap();
    let first = scene.made().unwrap();
    scene.memory.given(1, &first);
    scene.hear(Heard::Offer(Box::new(offer(2, false, HEIGHT, &list[..2], fees)))).unwrap();
    scene.asked();
    scene.data(2, list[..2].to_vec()).unwrap();
    let second = scene.made().unwrap();
    scene.memory.given(2, &second);
    let block = |template: &Template| {
        template.to_block(template.coinbase.transaction.clone(), template.version, template.current_time, 7)
    };
    assert_eq!(scene.memory.template_of(&block(&first)), Some(1));
    assert_eq!(scene.memory.template_of(&block(&second)), Some(2));
    let mut strange = block(&first);
    strange.txdata.swap(1, 2);
    assert_eq!(scene.memory.template_of(&strange), None);
    let mut elsewhere = block(&first);
    elsewhere.header.prev_blockhash = tip(1, 9).hash;
    assert_eq!(scene.memory.template_of(&elsewhere), None);
}

fn payload(message: TemplateDistribution<'_>) -> (u8, Vec<u8>) {
    let (msg_type, mut bytes) = (message.message_type(), vec![0; message.get_size()]);
    message.to_bytes(&mut bytes).unwrap();
    (msg_type, bytes)
}

fn new_template(prefix: Vec<u8>, count: u32, outputs: Vec<u8>, path: usize) -> (u8, Vec<u8>) {
    payload(TemplateDistribution::NewTemplate(NewTemplate {
        template_id: 3,
        future_template: true,
        version: 0x2000_0000,
        coinbase_tx_version: 2,
        coinbase_prefix: (&prefix[..]).try_into().unwrap(),
        coinbase_tx_input_sequence: u32::MAX,
        coinbase_tx_value_remaining: 50,
        coinbase_tx_outputs_count: count,
        coinbase_tx_outputs: (&outputs[..]).try_into().unwrap(),
        coinbase_tx_locktime: 0,
        merkle_path: Seq0255::new(vec![U256::from(&[7; 32]); path]).unwrap(),
    }))
}

#[test]
fn the_form_of_a_template_is_checked() {
    let height = vec![0x02, 0xc8, 0x00];
    let output =
        bitcoin::consensus::serialize(&TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::new() });
    let read = |(kind, mut bytes): (u8, Vec<u8>)| read(kind, &mut bytes).map_err(|error| error.reason);
    let Ok(Heard::Offer(offer)) = read(new_template([&height[..], &[0]].concat(), 1, output.clone(), 12))
    else {
        panic!("an offer")
    };
    assert_eq!((offer.height, offer.coinbase.outputs.len(), offer.merkle_path.len()), (200, 1, 12));
    let protocol = Err(Reason::TemplateProviderProtocol);
    for bad in [
        new_template(vec![], 1, output.clone(), 0),
        new_template(vec![0x6a], 1, output.clone(), 0),
        new_template([&height[..], &[0; 6]].concat(), 1, output.clone(), 0),
        new_template(height.clone(), 2, output.clone(), 0),
        new_template(height.clone(), 0, output.clone(), 0),
        new_template(height.clone(), 1, [&output[..], &[1]].concat(), 0),
        new_template(height.clone(), u32::MAX, vec![], 0),
        new_template(height, 1, output, 18),
        (0x70, vec![0; 6]),
        (0x73, vec![0; 8]),
        (0x71, vec![0; 8]),
    ] {
        assert_eq!(read(bad), protocol);
    }
    assert_eq!(read((0x04, vec![])), Ok(Heard::Reconnect));
    assert_eq!(read((0x15, vec![1, 2])), Ok(Heard::Unknown));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever bytes come, as whatever message, in whatever order: nothing panics, questions stay few, and
    /// what can be assembled has all that it needs.
    #[test]
    fn any_bytes_in_any_order_break_no_promise(
        messages in prop::collection::vec((0x6f_u8..0x78, prop::collection::vec(any::<u8>(), 0..120)), 0..12),
    ) {
        let mut scene = Scene::on_tip();
        for (kind, mut bytes) in messages {
            let Ok(heard) = read(kind, &mut bytes) else { continue };
            if scene.hear(heard).is_err() {
                break;
            }
            prop_assert!(scene.asked().len() <= 4);
            if let Some(draft) = scene.draft() {
                let _ = draft.declare(Network::Regtest, &spec()).map(|declared| facts::assemble(&declared));
            }
        }
    }

    /// The same for messages of the right form with strange numbers.
    #[test]
    fn any_conversation_breaks_no_promise(
        steps in prop::collection::vec((0_u8..6, 0_u64..8, 0_u8..4, 195_u32..205), 0..60),
    ) {
        let mut scene = Scene::on_tip();
        for (step, id, number, height) in steps {
            let told = match step {
                0 | 1 => scene.offer(id + 2, step == 0, height),
                2 => scene.tip(id, number),
                3 => scene.data(id, vec![]),
                4 => scene.refuse(id, "stale-template-id"),
                _ => { let _ = scene.feed.probe(scene.now); Ok(()) }
            };
            if told.is_err() {
                break;
            }
            prop_assert!(scene.asked().len() <= 4);
            if let Some(draft) = scene.draft() {
                prop_assert_eq!(draft.ahead, draft.offer.height == draft.tip.height + 2);
                let template = facts::assemble(&draft.declare(Network::Regtest, &spec()).unwrap()).unwrap();
                prop_assert_eq!(template.is_future(), draft.ahead);
            }
        }
    }
}
