//! Every answer that a share can get, and the event that tells the operator the same.

use super::{client, rejection};
use anyhow::{Result, ensure};
use bitcoin::{Target, hashes::Hash};
use mining_sv2::{MESSAGE_TYPE_SUBMIT_SHARES_EXTENDED, MESSAGE_TYPE_SUBMIT_SHARES_STANDARD};
use parsers_sv2::MiningOwned;
use reservegrid_tests::{
    client::{Answer, EASIEST, Message, Open, OpenChannel, Share, gateway_for_clients},
    gateway::{Channel, DEADLINE},
};
use std::time::{SystemTime, UNIX_EPOCH};

const KINDS: [Channel; 2] = [Channel::Standard, Channel::Extended];

fn now() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as u32
}

#[tokio::test]
async fn a_good_share_is_accepted_recorded_and_paid() -> Result<()> {
    let (backend, mut gateway) = gateway_for_clients(|config| config).await?;
    for kind in KINDS {
        let mut client = client(&gateway, 0).await?;
        let channel = client.open(&Open::new(kind, "alice.1")).await?;
        let mut share = channel.share();
        if let Some(extranonce) = &mut share.extranonce {
            extranonce.copy_from_slice(b"twelve bytes");
        }
        let network = channel.network_target();
        let share = channel.find(&share, |hash| !network.is_met_by(hash))?;
        let Answer::Accepted(success) = client.submit(&channel, &share).await? else {
            anyhow::bail!("{kind:?}: {share:?} was refused");
        };
        ensure!(success.new_submits_accepted_count == 1, "{success:?}");
        // Less than difficulty 1, and SV2 counts in whole ones.
        ensure!(success.new_shares_sum == 1, "{success:?}");

        let share_id = channel.header(&share).block_hash().to_string();
        let is =
            |event: &serde_json::Value, name: &str| event["event"] == name && event["share_id"] == share_id;
        let told = gateway.wait_for_event("the share", DEADLINE, |e| is(e, "share_accepted")).await?;
        let extranonce =
            [channel.extranonce_prefix.clone(), share.extranonce.clone().unwrap_or_default()].concat();
        ensure!(told["extranonce"] == hex(&extranonce), "{told}");
        ensure!(told["user_identity"] == "alice.1" && told["channel"] == channel.id, "{told}");
        ensure!(told["nonce"] == share.nonce && told["ntime"] == share.ntime, "{told}");
        ensure!(told["version"] == share.version && told["solves_block"] == false, "{told}");
        let result =
            gateway.wait_for_event("its result", DEADLINE, |e| is(e, "share_forward_result")).await?;
        ensure!(result["reason"] == "forward_accepted", "{result}");
        ensure!(backend.shares().contains_key(&share_id), "the pool does not have {share_id}");
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A share and the two codes with which it must be refused.
type Case = (&'static str, Share, &'static str, &'static str);

fn wrong_shares(channel: &OpenChannel) -> Result<Vec<Case>> {
    let good = channel.good_share(1_000)?;
    let target = channel.share_target();
    let low = channel.find(&good, |hash| !target.is_met_by(hash))?;
    let at = |ntime| Share { ntime, ..good.clone() };
    let bit = |bit| Share { version: good.version ^ (1u32 << bit), ..good.clone() };
    let rolled = |length| Share { extranonce: Some(vec![7; length]), ..good.clone() };
    const VERSION: (&str, &str) = ("invalid-non-rollable-version-bit", "share_version_bits_invalid");
    const TIME: (&str, &str) = ("invalid-share", "share_ntime_out_of_range");
    const SIZE: (&str, &str) = ("bad-extranonce-size", "share_extranonce_size_invalid");
    let mut cases = vec![
        ("a hash above the target", low, "difficulty-too-low", "share_difficulty_too_low"),
        (
            "a job that never was",
            Share { job_id: good.job_id + 1_000, ..good.clone() },
            "invalid-job-id",
            "share_job_unknown",
        ),
        ("a time before the job", at(channel.job.ntime - 1), TIME.0, TIME.1),
        ("time zero", at(0), TIME.0, TIME.1),
        ("a time more than 2 h ahead", at(now() + 2 * 3_600 + 120), TIME.0, TIME.1),
        ("the last second of time", at(u32::MAX), TIME.0, TIME.1),
        ("version bit 0", bit(0), VERSION.0, VERSION.1),
        ("version bit 4", bit(4), VERSION.0, VERSION.1),
        ("version bit 29", bit(29), VERSION.0, VERSION.1),
        ("version bit 31", bit(31), VERSION.0, VERSION.1),
    ];
    if channel.kind == Channel::Extended {
        cases.extend([
            ("no extranonce", Share { extranonce: None, ..good.clone() }, SIZE.0, SIZE.1),
            ("an empty extranonce", rolled(0), SIZE.0, SIZE.1),
            ("a short extranonce", rolled(11), SIZE.0, SIZE.1),
            ("a long extranonce", rolled(13), SIZE.0, SIZE.1),
            ("the longest extranonce", rolled(32), SIZE.0, SIZE.1),
        ]);
    } else {
        cases.push(("an extranonce on a standard channel", rolled(12), SIZE.0, SIZE.1));
    }
    Ok(cases)
}

#[tokio::test]
async fn a_wrong_share_is_refused_with_its_code_and_told_with_its_reason() -> Result<()> {
    let (_backend, mut gateway) = gateway_for_clients(|config| config).await?;
    for kind in KINDS {
        let mut client = client(&gateway, 0).await?;
        // One of 256 hashes is a share.
        let mut max_target = EASIEST;
        max_target[31] = 0;
        let user = format!("{kind:?}");
        let channel = client.open(&Open { max_target, ..Open::new(kind, &user) }).await?;
        for (what, share, code, reason) in wrong_shares(&channel)? {
            let answer = client.submit(&channel, &share).await?;
            ensure!(answer.code() == code, "{kind:?}, {what}: {answer:?} instead of {code}");
            let told = rejection(&mut gateway, channel.id, &user, client.last_number()).await?;
            ensure!(told["reason"] == reason, "{kind:?}, {what}: {told}");
        }
        let share = channel.good_share(0)?;
        let answer = client.submit(&channel, &share).await?;
        ensure!(answer.is_accepted(), "{kind:?}, a good share after the wrong ones: {answer:?}");
        let answer = client.submit(&channel, &share).await?;
        ensure!(answer.code() == "duplicate-share", "{kind:?}: {answer:?}");
        let told = rejection(&mut gateway, channel.id, &user, client.last_number()).await?;
        ensure!(told["reason"] == "share_duplicate", "{kind:?}: {told}");

        let nowhere = OpenChannel { id: channel.id + 9, ..channel.clone() };
        let answer = client.submit(&nowhere, &channel.good_share(share.nonce + 1)?).await?;
        ensure!(answer.code() == "invalid-channel-id", "{kind:?}: {answer:?}");
        let told = rejection(&mut gateway, nowhere.id, "", client.last_number()).await?;
        ensure!(told["reason"] == "channel_not_found", "{told}");
    }
    Ok(())
}

#[tokio::test]
async fn version_bits_inside_the_mask_and_times_inside_the_window_may_be_rolled() -> Result<()> {
    let (_backend, gateway) = gateway_for_clients(|config| config).await?;
    for kind in KINDS {
        let mut client = client(&gateway, 0).await?;
        let channel = client.open(&Open::new(kind, "alice")).await?;
        let (job, network) = (&channel.job, channel.network_target());
        // All 24 bits of BIP 323, those that BIP 310 devices roll, the lowest and the highest one.
        let versions =
            [0x1fff_ffe0, 0x1fff_e000, 0x20, 0x1000_0000].map(|bits| (job.version ^ bits, job.ntime));
        let times = [job.ntime + 1, now() + 3_600].map(|ntime| (job.version, ntime));
        for (version, ntime) in versions.into_iter().chain(times) {
            let share = Share { version, ntime, ..channel.share() };
            let share = channel.find(&share, |hash| !network.is_met_by(hash))?;
            let answer = client.submit(&channel, &share).await?;
            ensure!(answer.is_accepted(), "{kind:?}, version {version:#x}, time {ntime}: {answer:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_share_may_carry_a_field_that_was_not_agreed() -> Result<()> {
    let (_backend, gateway) = gateway_for_clients(|config| config).await?;
    let mut client = client(&gateway, 0).await?;
    let channel = client.open_extended("alice").await?;
    let share = channel.good_share(0)?;
    let mut payload = Vec::new();
    for field in [channel.id, 77, share.job_id, share.nonce, share.ntime, share.version] {
        payload.extend(field.to_le_bytes());
    }
    payload.push(12);
    payload.extend(share.extranonce.as_deref().unwrap());
    // Extension 2, field 1: the worker's name.
    payload.extend([2, 0, 1, 4, 0]);
    payload.extend(b"rig1");
    client.send_raw_frame(0, true, MESSAGE_TYPE_SUBMIT_SHARES_EXTENDED, &payload).await?;
    let answer = client.answer(channel.id, 77).await?;
    ensure!(answer.is_accepted(), "{answer:?}");
    Ok(())
}

#[tokio::test]
async fn shares_on_the_tip_before_are_stale_whoever_found_the_block() -> Result<()> {
    let (_backend, mut gateway) = gateway_for_clients(|config| config).await?;
    let (mut alice, mut bob) = (client(&gateway, 0).await?, client(&gateway, 0).await?);
    let mut standard = alice.open_standard("alice").await?;
    let mut extended = bob.open_extended("bob").await?;

    for round in 0..2 {
        let (old_standard, old_extended) = (standard.clone(), extended.clone());
        // First alice finds the block, then bob.
        let (finder, channel) = if round == 0 { (&mut alice, &standard) } else { (&mut bob, &extended) };
        let solution = channel.solution()?;
        let hash = channel.header(&solution).block_hash();
        let answer = finder.submit(channel, &solution).await?;
        ensure!(answer.is_accepted(), "{answer:?}");
        let block = gateway
            .wait_for_event("the block", DEADLINE, |e| {
                e["event"] == "block_found" && e["hash"] == hash.to_string()
            })
            .await?;
        ensure!(block["reason"] == "block_submitted", "{block}");

        ensure!(
            alice.follow(&mut standard).await? && bob.follow(&mut extended).await?,
            "jobs on the new tip"
        );
        for channel in [&standard, &extended] {
            ensure!(channel.job.prev_hash == hash.to_byte_array(), "{channel:?} is not on {hash}");
        }
        let answer = alice.submit(&old_standard, &old_standard.good_share(50)?).await?;
        ensure!(answer.code() == "stale-share", "{answer:?}");
        let told = rejection(&mut gateway, standard.id, "alice", alice.last_number()).await?;
        ensure!(told["reason"] == "share_stale", "{told}");
        let answer = bob.submit(&old_extended, &old_extended.good_share(50)?).await?;
        ensure!(answer.code() == "stale-share", "{answer:?}");
        ensure!(alice.submit(&standard, &standard.good_share(0)?).await?.is_accepted());
        ensure!(bob.submit(&extended, &extended.good_share(0)?).await?.is_accepted());
    }
    Ok(())
}

#[tokio::test]
async fn a_block_handed_in_twice_counts_once() -> Result<()> {
    let (_backend, mut gateway) = gateway_for_clients(|config| config).await?;
    let mut client = client(&gateway, 0).await?;
    let channel = client.open_standard("alice").await?;
    let solution = channel.solution()?;
    let first = client.send_share(channel.id, &solution).await?;
    let second = client.send_share(channel.id, &solution).await?;
    let (first, second) = (client.answer(channel.id, first).await?, client.answer(channel.id, second).await?);
    ensure!(first.is_accepted(), "{first:?}");
    // The second of the two if the tip moved between them.
    ensure!(["duplicate-share", "stale-share"].contains(&second.code()), "{second:?}");
    ensure!(gateway.stop().await?.success());
    let blocks = gateway.events_named("block_found")?;
    ensure!(blocks.len() == 1 && blocks[0]["reason"] == "block_submitted", "{blocks:?}");
    ensure!(gateway.events_named("share_accepted")?.len() == 1);
    Ok(())
}

#[tokio::test]
async fn every_hash_below_the_target_of_its_channel_counts_and_no_other() -> Result<()> {
    let (_backend, gateway) = gateway_for_clients(|config| config).await?;
    let mut client = client(&gateway, 0).await?;
    let mut max_target = EASIEST;
    max_target[31] = 0x40;
    let channel = client.open(&Open { max_target, ..Open::new(Channel::Extended, "alice") }).await?;
    let (target, network) = (Target::from_le_bytes(max_target), channel.network_target());
    for nonce in 0..200 {
        let share = Share { nonce, ..channel.share() };
        let hash = channel.header(&share).block_hash();
        if network.is_met_by(hash) {
            continue;
        }
        let answer = client.submit(&channel, &share).await?;
        let expected = if target.is_met_by(hash) { "" } else { "difficulty-too-low" };
        ensure!(answer.code() == expected, "{hash}: {answer:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_thousand_shares_in_one_go_are_all_answered_in_their_order() -> Result<()> {
    const SHARES: u32 = 1_000;
    let (_backend, gateway) = gateway_for_clients(|config| config).await?;
    let mut client = client(&gateway, 0).await?;
    let channel = client.open_standard("proxy").await?;
    // Far more than the gateway lets one connection have in flight; it must read on by itself.
    let (network, job) = (channel.network_target(), &channel.job);
    let (mut bytes, mut share) = (Vec::new(), channel.share());
    for number in 0..SHARES {
        share = channel.find(&share, |hash| !network.is_met_by(hash))?;
        let fields = [channel.id, number, job.id, share.nonce, share.ntime, share.version];
        let payload: Vec<u8> = fields.iter().flat_map(|field| field.to_le_bytes()).collect();
        bytes.extend(client.seal(0, true, MESSAGE_TYPE_SUBMIT_SHARES_STANDARD, payload.len(), &payload)?);
        share.nonce += 1;
    }
    client.send_bytes(&bytes).await?;
    for number in 0..SHARES {
        match client.next_message().await? {
            Message::Mining(MiningOwned::SubmitSharesSuccess(m)) if m.last_sequence_number == number => {}
            other => anyhow::bail!("awaited the Success of share {number}, came {other:?}"),
        }
    }
    Ok(())
}
