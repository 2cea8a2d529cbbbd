//! What a Template Provider sends, message after message, from the moment it is connected.
//!
//! Promises: whatever comes is understood or ends the conversation, never a panic; few questions are open at
//! a time; what can be assembled becomes a template or a fault, on the tip that was told; and a template
//! without a discrepancy has the merkle path that the provider said.

use crate::Choices;
use binary_sv2::{Encodable, GetSize};
use bitcoin::{Network, ScriptBuf};
use parsers_sv2::{IsSv2Message, TemplateDistribution};
use reservegrid::template::{
    CoinbaseSpec, facts,
    provider::{Feed, Memory, read},
};
use std::time::{Duration, Instant};
use template_distribution_sv2::{NewTemplate, SetNewPrevHash};

const PATIENCE: Duration = Duration::from_secs(10);

/// Messages: the type, the length (two bytes), the payload.
pub fn one(data: &[u8]) {
    let mut choices = Choices(data);
    let now = Instant::now();
    let (mut feed, mut memory) = (Feed::new(now, PATIENCE), Memory::default());
    let coinbase = CoinbaseSpec { payout: ScriptBuf::from_bytes(vec![0x51]).into(), tag: "/fuzz/".into() };
    let mut open = 0_usize;
    while !choices.done() {
        let (kind, length) = (choices.byte(), usize::from(choices.short()));
        let mut payload = choices.bytes(length).to_vec();
        let Ok(heard) = read(kind, &mut payload) else { return };
        if feed.hear(heard, now, &mut memory).is_err() {
            return;
        }
        open = open.saturating_sub(usize::from(kind == 0x74 || kind == 0x75));
        while feed.next_request(now).is_some() {
            open += 1;
        }
        assert!(open <= 4, "{open} open questions");
        let Some(draft) = feed.next_draft(now) else { continue };
        assert_eq!(feed.tip(), Some(draft.tip.said.hash));
        let Ok(declared) = draft.declare(Network::Regtest, &coinbase) else { continue };
        let Ok(template) = facts::assemble(&declared) else { continue };
        assert_eq!(template.is_future(), draft.ahead);
        if template.discrepancies.is_empty() {
            assert_eq!(template.facts.merkle_path, draft.offer.merkle_path);
        }
    }
}

fn frame(message: TemplateDistribution<'_>) -> Vec<u8> {
    let kind = message.message_type();
    let mut payload = vec![0; message.get_size()];
    message.to_bytes(&mut payload).expect("the seed can be encoded");
    framed(kind, &payload)
}

fn framed(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("the seed is short").to_le_bytes();
    [&[kind][..], &length, payload].concat()
}

fn offer(template_id: u64, future_template: bool, height: u8) -> Vec<u8> {
    // The commitment of a block without transactions (BIP 141).
    let commitment = "6a24aa21a9ede2f61c3f71d1defd3fa999dfa36953755c690689799962b48bebd836974e8cf9";
    let commitment = ScriptBuf::from_hex(commitment).expect("hex");
    let output = bitcoin::TxOut { value: bitcoin::Amount::ZERO, script_pubkey: commitment };
    let outputs = bitcoin::consensus::serialize(&output);
    frame(TemplateDistribution::NewTemplate(NewTemplate {
        template_id,
        future_template,
        version: 0x2000_0000,
        coinbase_tx_version: 2,
        coinbase_prefix: (&[1, height, 0][..]).try_into().expect("short"),
        coinbase_tx_input_sequence: 0xffff_fffe,
        coinbase_tx_value_remaining: 5_000_000_000,
        coinbase_tx_outputs_count: 1,
        coinbase_tx_outputs: (&outputs[..]).try_into().expect("short"),
        coinbase_tx_locktime: u32::from(height) - 1,
        merkle_path: Vec::new().try_into().expect("short"),
    }))
}

fn tip(template_id: u64, number: u8) -> Vec<u8> {
    let mut target = [0; 32];
    target[29..].copy_from_slice(&[0xff, 0xff, 0x7f]);
    frame(TemplateDistribution::SetNewPrevHash(SetNewPrevHash {
        template_id,
        prev_hash: (&[number; 32]).into(),
        header_timestamp: 1_700_000_000,
        n_bits: 0x207f_ffff,
        target: (&target).into(),
    }))
}

/// No transactions.
fn data(template_id: u64) -> Vec<u8> {
    framed(0x74, &[&template_id.to_le_bytes()[..], &[0, 0, 0, 0]].concat())
}

/// Honest conversations.
pub fn seeds() -> Vec<Vec<u8>> {
    let first = [offer(1, true, 100), tip(1, 1), data(1)].concat();
    let better = [first.clone(), offer(2, false, 100), data(2)].concat();
    let ahead = [better.clone(), offer(3, true, 101), data(3), tip(3, 2)].concat();
    let refused = framed(0x75, &[&4_u64.to_le_bytes()[..], &[17], b"stale-template-id"].concat());
    let stale = [ahead.clone(), offer(4, false, 101), refused].concat();
    vec![first, better, ahead, stale]
}
