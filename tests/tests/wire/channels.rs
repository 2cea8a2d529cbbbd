//! Opening, changing and closing channels (SV2 specification 05).

use super::{client, rejection};
use anyhow::{Result, ensure};
use binary_sv2::U256;
use mining_sv2::{CloseChannel, SetCustomMiningJob, UpdateChannel};
use parsers_sv2::{Mining, MiningOwned};
use reservegrid_tests::{
    client::{
        BITS, Client, EASIEST, Message, Open, OpenChannel, REQUIRES_STANDARD_JOBS, gateway_for_clients,
    },
    gateway::{Channel, DEADLINE, GatewayConfig},
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

#[tokio::test]
async fn an_open_channel_gets_a_future_job_and_then_the_tip_that_names_it() -> Result<()> {
    let (_backend, gateway) = gateway_for_clients(|config| config).await?;
    let mut client = client(&gateway, 0).await?;
    // `open` fails unless Success, future job and SetNewPrevHash come in this order.
    let (standard, extended) = (client.open_standard("alice").await?, client.open_extended("bob").await?);
    let another = client.open_extended("bob").await?;

    ensure!(standard.extranonce_prefix.len() == 20, "{standard:?}");
    ensure!(extended.extranonce_prefix.len() == 8 && extended.extranonce_size == 12, "{extended:?}");
    let channels = [&standard, &extended, &another];
    let distinct =
        |key: fn(&OpenChannel) -> Vec<u8>| channels.map(key).into_iter().collect::<BTreeSet<_>>().len();
    ensure!(distinct(|c| c.id.to_le_bytes().to_vec()) == 3, "channel ids repeat: {channels:?}");
    ensure!(distinct(|c| c.job.id.to_le_bytes().to_vec()) == 3, "job ids repeat: {channels:?}");
    ensure!(distinct(|c| c.extranonce_prefix[..8].to_vec()) == 3, "extranonces repeat: {channels:?}");
    for channel in channels {
        ensure!(
            channels.iter().all(|other| other.id != channel.group),
            "a group has a channel's id: {channels:?}"
        );
        ensure!(channel.group == standard.group, "one connection has two groups: {channels:?}");
        ensure!(channel.job.prev_hash == standard.job.prev_hash, "two tips: {channels:?}");
        ensure!(channel.job.nbits == u32::from_str_radix(BITS, 16)?, "{channel:?}");
    }
    let coinbase = extended.coinbase(&[7; 12])?;
    ensure!(coinbase.is_coinbase() && coinbase.input[0].script_sig.len() <= 100, "{coinbase:?}");
    let expected = [&extended.extranonce_prefix[..], &[7; 12]].concat();
    ensure!(coinbase.input[0].script_sig.as_bytes().ends_with(&expected), "{coinbase:?}");
    ensure!(coinbase.input[0].witness.is_empty(), "BIP 141: the coinbase is sent without witness");
    Ok(())
}

#[tokio::test]
async fn targets_are_little_endian_and_follow_hash_rate_network_and_the_miners_maximum() -> Result<()> {
    let (_backend, gateway) =
        gateway_for_clients(|config| config.set("miners", "shares_per_minute", 6.0)).await?;
    let mut client = client(&gateway, 0).await?;
    let mut asked = EASIEST;
    (asked[0], asked[31], asked[30]) = (0xaa, 0x00, 0x01);
    for kind in [Channel::Standard, Channel::Extended] {
        // 100 H/s and a share every 10 s: one of 1,000 hashes, 2^256 / 1,000 = 0x0041…
        let open = Open { hashrate: 100.0, ..Open::new(kind, "alice") };
        let channel = client.open(&open).await?;
        ensure!(channel.target[30..] == [0x41, 0x00], "{:02x?}", channel.target);

        // Far more than the network asks: the network's target, 0xffff * 256^28, to the byte.
        let channel = client.open(&Open { hashrate: 1e30, ..open.clone() }).await?;
        let mut network = [0; 32];
        network[28..30].fill(0xff);
        ensure!(channel.target == network, "{:02x?}", channel.target);

        // The miner's own maximum comes back as it was sent.
        let channel = client.open(&Open { hashrate: 0.0, max_target: asked, ..open.clone() }).await?;
        ensure!(channel.target == asked, "{:02x?}", channel.target);
    }
    Ok(())
}

#[tokio::test]
async fn an_open_that_cannot_be_served_is_refused_with_its_code() -> Result<()> {
    let (_backend, mut gateway) = gateway_for_clients(|config| config).await?;
    let mut any = client(&gateway, 0).await?;
    let mut standard_only = client(&gateway, REQUIRES_STANDARD_JOBS).await?;
    let standard = Open::new(Channel::Standard, "alice");
    let extended = Open::new(Channel::Extended, "alice");
    let hashrate = |hashrate| Open { hashrate, ..standard.clone() };
    let user = |user| Open { user, ..standard.clone() };
    const RATE: (&str, &str) = ("invalid-nominal-hashrate", "nominal_hashrate_invalid");
    const USER: (&str, &str) = ("invalid-user-identity", "user_identity_invalid");
    const TARGET: (&str, &str) = ("max-target-out-of-range", "max_target_out_of_range");
    const SIZE: (&str, &str) = ("unsupported-min-extranonce-size", "extranonce_size_unsupported");
    let cases = [
        (hashrate(f32::NAN), RATE),
        (hashrate(-1.0), RATE),
        (hashrate(f32::INFINITY), RATE),
        (hashrate(f32::NEG_INFINITY), RATE),
        (Open { hashrate: f32::NAN, ..extended.clone() }, RATE),
        (Open { max_target: [0; 32], ..standard.clone() }, TARGET),
        (Open { max_target: [0; 32], ..extended.clone() }, TARGET),
        (Open { min_extranonce_size: 13, ..extended.clone() }, SIZE),
        (Open { min_extranonce_size: u16::MAX, ..extended.clone() }, SIZE),
        (user(b""), USER),
        (user(b"alice\nbob"), USER),
        (user(b"alice\0"), USER),
        (user("alice\u{202e}bob".as_bytes()), USER),
        (user(b"\x1b[31malice"), USER),
        (user(b"\xff\xfe"), USER),
    ];
    let mut reasons = Vec::new();
    for (open, (code, reason)) in &cases {
        let refused = any.open_refused(open).await?;
        ensure!(refused == *code, "{open:?}: {refused}");
        reasons.push(*reason);
    }
    let refused = standard_only.open_refused(&extended).await?;
    ensure!(refused == "extended-channels-not-supported-for-standard-jobs", "{refused}");
    reasons.push("channel_kind_not_allowed");

    // A refusal costs the connection nothing; the bounds themselves are inside.
    standard_only.open(&standard).await?;
    any.open(&Open { min_extranonce_size: 12, ..extended.clone() }).await?;
    any.open(&hashrate(-0.0)).await?;
    any.open(&hashrate(f32::MAX)).await?;
    any.open(&user("Müller.1 – Süd".as_bytes())).await?;

    let count = reasons.len();
    let refused = |events: &[Value]| events.iter().filter(|e| e["event"] == "channel_refused").count();
    gateway.wait_until("an event for each refusal", DEADLINE, |events| refused(events) >= count).await?;
    let told = gateway.events_named("channel_refused")?;
    let told: Vec<_> = told.iter().filter_map(|e| e["reason"].as_str()).collect();
    ensure!(told == reasons, "{told:?}");
    Ok(())
}

#[tokio::test]
async fn one_channel_more_than_allowed_is_refused_until_another_closes() -> Result<()> {
    let allowed = |config: GatewayConfig| config.set("miners", "max_channels_per_connection", 2);
    let (_backend, mut gateway) = gateway_for_clients(allowed).await?;
    let mut client = client(&gateway, 0).await?;
    let first = client.open_standard("alice").await?;
    client.open_extended("alice").await?;
    let refused = client.open_refused(&Open::new(Channel::Standard, "alice")).await?;
    ensure!(refused == "channel-capacity-exhausted", "{refused}");
    gateway.wait_for_event("the refusal", DEADLINE, |e| e["reason"] == "channel_limit_exceeded").await?;
    close(&mut client, first.id).await?;
    let third = client.open_standard("alice").await?;
    ensure!(third.id != first.id, "the id of a closed channel was given again");
    Ok(())
}

#[tokio::test]
async fn channels_in_all_are_limited_whichever_connection_has_them() -> Result<()> {
    let (_backend, mut gateway) =
        gateway_for_clients(|config| config.set("miners", "max_channels", 2)).await?;
    let (mut first, mut second) = (client(&gateway, 0).await?, client(&gateway, 0).await?);
    first.open_standard("alice").await?;
    let channel = second.open_extended("bob").await?;
    for client in [&mut first, &mut second] {
        let refused = client.open_refused(&Open::new(Channel::Standard, "carol")).await?;
        ensure!(refused == "channel-capacity-exhausted", "{refused}");
    }
    gateway.wait_for_event("the refusal", DEADLINE, |e| e["reason"] == "channel_capacity_exhausted").await?;
    close(&mut second, channel.id).await?;
    // The same connection: what it closed is free before its next message is read.
    second.open_standard("carol").await?;
    Ok(())
}

#[tokio::test]
async fn opening_and_updating_too_often_is_refused_and_costs_nobody_else() -> Result<()> {
    // Refusals are answered at once, however many.
    let limits = |config: GatewayConfig| {
        config.set("miners", "max_channels_per_connection", 1).set("miners", "max_refusals_per_second", 1_000)
    };
    let (_backend, gateway) = gateway_for_clients(limits).await?;
    let (mut eager, mut other) = (client(&gateway, 0).await?, client(&gateway, 0).await?);
    let channel = eager.open_standard("alice").await?;
    let open = Open::new(Channel::Standard, "alice");
    // Twice as many opens as channels and a few more at once, then four a second: these are more than are
    // gained while this lasts.
    const OPENS: usize = 2_000;
    for _ in 0..OPENS {
        eager.request_open(&open).await?;
    }
    let mut codes: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..OPENS {
        match eager.next_message().await? {
            Message::Mining(MiningOwned::OpenMiningChannelError(m)) => {
                *codes.entry(m.error_code.as_utf8_or_hex()).or_default() += 1;
            }
            other => anyhow::bail!("awaited OpenMiningChannel.Error, came {other:?}"),
        }
    }
    ensure!(codes.keys().eq(["channel-capacity-exhausted", "channel-rate-limited"]), "{codes:?}");
    ensure!(codes["channel-capacity-exhausted"] >= 16, "{codes:?}");

    const UPDATES: usize = 5_000;
    for _ in 0..UPDATES {
        update(&mut eager, channel.id + 50, 0.0, EASIEST).await?;
    }
    let mut codes = BTreeSet::new();
    for _ in 0..UPDATES {
        match eager.next_message().await? {
            Message::Mining(MiningOwned::UpdateChannelError(m)) => {
                codes.insert(m.error_code.as_utf8_or_hex())
            }
            other => anyhow::bail!("awaited UpdateChannel.Error, came {other:?}"),
        };
    }
    ensure!(codes.iter().eq(["channel-rate-limited", "invalid-channel-id"]), "{codes:?}");
    let channel = other.open_standard("bob").await?;
    update(&mut other, channel.id, f32::NAN, EASIEST).await?;
    let code = other.pick("UpdateChannel.Error", |m| match m {
        MiningOwned::UpdateChannelError(m) => Some(m.error_code.as_utf8_or_hex()),
        _ => None,
    });
    ensure!(code.await? == "invalid-nominal-hashrate");
    Ok(())
}

#[tokio::test]
async fn a_new_target_holds_for_later_jobs_and_not_for_the_one_being_mined() -> Result<()> {
    let (_backend, mut gateway) = gateway_for_clients(|config| config).await?;
    let mut client = client(&gateway, 0).await?;
    let mut channel = client.open_standard("alice").await?;
    // Two hundred times harder than "every hash", and asked for with bytes that show their order.
    let mut harder = EASIEST;
    (harder[0], harder[31]) = (0x11, 0x01);
    update(&mut client, channel.id, 0.0, harder).await?;
    let told = client.pick("SetTarget", |m| match m {
        MiningOwned::SetTarget(m) if m.channel_id == channel.id => Some(m.maximum_target.to_array()),
        _ => None,
    });
    ensure!(told.await? == harder);

    let meets = |hash| bitcoin::Target::from_le_bytes(harder).is_met_by(hash);
    let easy = channel.find(&channel.share(), |hash| !meets(hash))?;
    let answer = client.submit(&channel, &easy).await?;
    ensure!(answer.is_accepted(), "the job's own target still holds: {answer:?}");

    let answer = client.submit(&channel, &channel.solution()?).await?;
    ensure!(answer.is_accepted(), "{answer:?}");
    ensure!(client.follow(&mut channel).await?, "a job on the tip that was just found");
    let easy = channel.find(&channel.share(), |hash| !meets(hash))?;
    let answer = client.submit(&channel, &easy).await?;
    ensure!(answer.code() == "difficulty-too-low", "{answer:?}");
    rejection(&mut gateway, channel.id, "alice", client.last_number()).await?;
    let hard = channel.find(&channel.share(), meets)?;
    let answer = client.submit(&channel, &hard).await?;
    ensure!(answer.is_accepted(), "{answer:?}");
    Ok(())
}

#[tokio::test]
async fn an_update_that_changes_nothing_has_no_answer_and_a_wrong_one_its_code() -> Result<()> {
    let (_backend, gateway) = gateway_for_clients(|config| config).await?;
    let mut client = client(&gateway, 0).await?;
    let channel = client.open_standard("alice").await?;
    update(&mut client, channel.id, 0.0, EASIEST).await?;
    for (id, hashrate, target, code) in [
        (channel.id + 77, 0.0, EASIEST, "invalid-channel-id"),
        (channel.id, f32::NAN, EASIEST, "invalid-nominal-hashrate"),
        (channel.id, -5.0, EASIEST, "invalid-nominal-hashrate"),
        (channel.id, 0.0, [0; 32], "max-target-out-of-range"),
    ] {
        update(&mut client, id, hashrate, target).await?;
        // The very next message: an answer to the first update would have come before it.
        match client.next_message().await? {
            Message::Mining(MiningOwned::UpdateChannelError(m)) => {
                ensure!((m.channel_id, m.error_code.as_utf8_or_hex().as_str()) == (id, code), "{m:?}");
            }
            other => anyhow::bail!("awaited UpdateChannel.Error, came {other:?}"),
        }
    }
    let answer = client.submit(&channel, &channel.good_share(0)?).await?;
    ensure!(answer.is_accepted(), "{answer:?}");
    Ok(())
}

#[tokio::test]
async fn a_closed_channel_takes_no_shares_and_a_closed_group_closes_all_of_its_channels() -> Result<()> {
    let (_backend, mut gateway) = gateway_for_clients(|config| config).await?;
    let mut client = client(&gateway, 0).await?;
    let (first, second) = (client.open_standard("alice").await?, client.open_standard("bob").await?);
    let third = client.open_extended("carol").await?;
    close(&mut client, first.id).await?;
    let answer = client.submit(&first, &first.good_share(0)?).await?;
    ensure!(answer.code() == "invalid-channel-id", "{answer:?}");
    let told = rejection(&mut gateway, first.id, "", client.last_number()).await?;
    ensure!(told["reason"] == "channel_not_found", "{told}");
    for other in [&second, &third] {
        let answer = client.submit(other, &other.good_share(0)?).await?;
        ensure!(answer.is_accepted(), "{answer:?}");
    }
    // Closing what is not open is nobody's harm.
    close(&mut client, 4_000_000).await?;
    close(&mut client, second.group).await?;
    for other in [&second, &third] {
        let answer = client.submit(other, &other.good_share(9)?).await?;
        ensure!(answer.code() == "invalid-channel-id", "{answer:?}");
    }
    client.open_standard("alice").await?;
    Ok(())
}

#[tokio::test]
async fn a_job_that_a_miner_declares_is_refused_and_its_channel_goes_on() -> Result<()> {
    let (_backend, gateway) = gateway_for_clients(|config| config).await?;
    let mut client = client(&gateway, 0).await?;
    let channel = client.open_extended("alice").await?;
    let job = SetCustomMiningJob {
        channel_id: channel.id,
        request_id: 4711,
        token: (&[1u8, 2, 3][..]).try_into().unwrap(),
        version: 0x2000_0000,
        prev_hash: U256::from(&channel.job.prev_hash),
        min_ntime: channel.job.ntime,
        nbits: channel.job.nbits,
        coinbase_tx_version: 2,
        coinbase_prefix: (&[0u8; 4][..]).try_into().unwrap(),
        coinbase_tx_input_n_sequence: u32::MAX,
        coinbase_tx_outputs: (&[0u8][..]).try_into().unwrap(),
        coinbase_tx_locktime: 0,
        merkle_path: Vec::new().try_into().unwrap(),
    };
    let nowhere = SetCustomMiningJob { channel_id: channel.id + 9, ..job.clone() };
    client.send(Mining::SetCustomMiningJob(nowhere)).await?;
    match client.next_message().await? {
        Message::Mining(MiningOwned::SetCustomMiningJobError(m)) => {
            ensure!(m.error_code.as_utf8_or_hex() == "invalid-channel-id", "{m:?}");
        }
        other => anyhow::bail!("awaited SetCustomMiningJob.Error, came {other:?}"),
    }
    client.send(Mining::SetCustomMiningJob(job)).await?;
    match client.next_message().await? {
        Message::Mining(MiningOwned::SetCustomMiningJobError(m)) => {
            ensure!((m.channel_id, m.request_id) == (channel.id, 4711), "{m:?}");
            ensure!(m.error_code.as_utf8_or_hex() == "jd-not-supported", "{m:?}");
        }
        other => anyhow::bail!("awaited SetCustomMiningJob.Error, came {other:?}"),
    }
    let answer = client.submit(&channel, &channel.good_share(0)?).await?;
    ensure!(answer.is_accepted(), "{answer:?}");
    Ok(())
}

async fn close(client: &mut Client, channel_id: u32) -> Result<()> {
    let reason_code = "gone".try_into().unwrap();
    client.send(Mining::CloseChannel(CloseChannel { channel_id, reason_code })).await
}

async fn update(
    client: &mut Client,
    channel_id: u32,
    nominal_hash_rate: f32,
    maximum: [u8; 32],
) -> Result<()> {
    let maximum_target = U256::from(&maximum);
    client.send(Mining::UpdateChannel(UpdateChannel { channel_id, nominal_hash_rate, maximum_target })).await
}
