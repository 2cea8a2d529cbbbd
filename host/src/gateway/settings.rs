//! What the rooms are told of the configuration, at the start and at each reload.

use super::{coinbase_only::CoinbaseOnlyPlan, flow::FlowSettings};
use crate::{
    config::{CoinbaseOnly, Config, Gate, HeldShares, Miners, Pool, Record, Switch},
    gate::Timings,
    ledger::{forward::Requests, secret::SigningKeys},
    miner::{DoorLimits, Limits, PoolQuestions, Terms, UserCheck},
    record::Keep,
    share::target,
    template::{CoinbaseSpec, coinbase_only::CoinbaseOnly as Maker},
};
use std::sync::Arc;

/// The flow's; `maker` is that of the start, since what a coinbase pays changes for all templates or for none.
pub(super) fn flow(gate: &Gate, maker: &Maker) -> FlowSettings {
    let ahead = match gate.coinbase_only {
        CoinbaseOnly::Off => None,
        CoinbaseOnly::Fallback => Some(false),
        CoinbaseOnly::Ahead => Some(true),
    };
    let coinbase_only = ahead.map(|ahead| CoinbaseOnlyPlan { maker: maker.clone(), ahead, wanted: None });
    let timings = Timings {
        verdict_timeout: gate.verdict_timeout,
        hold_timeout: gate.hold_timeout,
        coinbase_only_after: coinbase_only.is_some().then_some(gate.coinbase_only_after),
    };
    FlowSettings { timings, coinbase_only }
}

pub(super) fn requests(pool: &Pool) -> Requests {
    Requests { url: pool.url.to_string(), in_flight: pool.in_flight as usize, timeout: pool.timeout }
}

pub(super) fn users(miners: &Miners, keys: &Arc<SigningKeys>) -> UserCheck {
    match (&miners.users_file, &miners.users_url) {
        (Some(file), _) => UserCheck::File(file.clone()),
        (None, Some(url)) => UserCheck::Pool(PoolQuestions {
            url: url.clone(),
            timeout: miners.users_timeout,
            keys: keys.clone(),
        }),
        (None, None) => UserCheck::Open,
    }
}

pub(super) fn limits(config: &Config, miners: &Miners) -> Limits {
    Limits {
        door: DoorLimits {
            connections: miners.max_connections as usize,
            connections_per_source: miners.max_connections_per_address as usize,
            handshakes: miners.max_handshakes as usize,
            handshakes_per_source: miners.max_handshakes_per_address as usize,
        },
        max_channels: miners.max_channels as usize,
        max_channels_per_connection: miners.max_channels_per_connection as usize,
        max_shares_per_second: miners.max_shares_per_second,
        max_refusals_per_second: miners.max_refusals_per_second,
        max_unanswered_shares: miners.max_unanswered_shares as usize,
        handshake_timeout: miners.handshake_timeout,
        setup_timeout: miners.setup_timeout,
        idle_timeout: miners.idle_timeout,
        terms: Terms {
            shares_per_minute: miners.shares_per_minute,
            easiest: target::from_difficulty(miners.min_difficulty),
            vardiff: miners.vardiff == Switch::On,
        },
        standard_success_batch: miners.standard_success_batch,
        extended_success_batch: miners.extended_success_batch,
        accept_held_shares: config.gate.held_shares == HeldShares::Accept,
        certificate_validity: miners.certificate_validity,
        reconnect: miners.reconnect.clone(),
    }
}

pub(super) fn keep(record: &Record) -> Keep {
    Keep { bytes: record.max_size.0, age: record.keep }
}

pub(super) fn coinbase_spec(config: &Config) -> CoinbaseSpec {
    CoinbaseSpec { payout: config.coinbase.payout.clone(), tag: config.coinbase.tag.clone() }
}

/// What makes templates without transactions.
pub(super) fn maker(config: &Config) -> Maker {
    Maker { network: config.source.network(), coinbase: coinbase_spec(config) }
}
