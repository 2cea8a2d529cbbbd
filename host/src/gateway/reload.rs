//! How the rooms take over another configuration while they run, each its own keys.
//!
//! Values come from `settings`, as at the start. What can go wrong is looked at first; see [`Taker`](crate::swap::Taker).

use super::{flow::FlowSettings, settings};
use crate::{
    api::Tokens,
    config::Config,
    event::Events,
    ledger::{self, secret::SigningKeys},
    miner::Tunables,
    policy::PolicyStore,
    record::Keep,
    swap::{Swaps, Takeover},
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

/// What takes over and has nothing to look at first.
fn tell(swaps: &Swaps, take: impl Fn(&Config) -> Takeover + Send + Sync + 'static) {
    swaps.tell(Box::new(move |_, new| Ok(take(new))));
}

/// How long the source may be silent, and the settings of the flow.
pub(super) fn flow_and_source(
    swaps: &Swaps,
    config: &Config,
    source: watch::Sender<Duration>,
) -> watch::Receiver<FlowSettings> {
    let maker = settings::maker(config);
    let (flow, flow_seen) = watch::channel(settings::flow(&config.gate, &maker));
    tell(swaps, move |new| {
        let (source, flow) = (source.clone(), flow.clone());
        let (stale_after, settings) = (new.source.stale_after(), settings::flow(&new.gate, &maker));
        Box::new(move || {
            source.send_replace(stale_after);
            flow.send_replace(settings);
        })
    });
    flow_seen
}

pub(super) fn policies(swaps: &Swaps, store: Arc<PolicyStore>) {
    tell(swaps, move |new| {
        let (store, deadline, replay) = (store.clone(), new.gate.verdict_timeout, new.swap.replay as usize);
        Box::new(move || {
            store.set_deadline(deadline);
            store.set_replay(replay);
        })
    });
}

pub(super) fn events(swaps: &Swaps, events: Events) {
    tell(swaps, move |new| {
        let (events, rotation) = (events.clone(), new.events.rotation());
        Box::new(move || events.set_rotation(rotation))
    });
}

pub(super) fn record(swaps: &Swaps, keep: Arc<Mutex<Keep>>) {
    tell(swaps, move |new| {
        let (keep, wanted) = (keep.clone(), settings::keep(&new.record));
        Box::new(move || *keep.lock().unwrap_or_else(PoisonError::into_inner) = wanted)
    });
}

/// The tokens. The address waits for the next start, so a surface that others can reach keeps needing one.
pub(super) fn tokens(swaps: &Swaps, started: &Config, tokens: Tokens) {
    let open = started.api.listen.filter(|address| !address.ip().is_loopback());
    swaps.tell(Box::new(move |old, new| {
        if let (Some(address), None) = (open, &new.api.token) {
            return Err(format!(
                "[api] token: is missing, and others can reach {address} until the gateway is started again"
            ));
        }
        let differs = (&old.api.token, &old.api.read_token) != (&new.api.token, &new.api.read_token);
        let (tokens, api) = (tokens.clone(), new.api.clone());
        Ok(Box::new(move || {
            if differs {
                tokens.set(&api);
            }
        }))
    }));
}

/// The limits of miners, and who may mine.
pub(super) fn miners(swaps: &Swaps, tunables: Arc<Tunables>, keys: Arc<SigningKeys>) {
    swaps.tell(Box::new(move |old, new| {
        let Some(serving) = &new.serving else { return Ok(Box::new(|| ())) };
        let source = |config: &Config| {
            let miners = config.serving.as_ref().map(|serving| &serving.miners);
            miners.map(|miners| (miners.users_file.clone(), miners.users_url.clone(), miners.users_timeout))
        };
        // What is known of users is only given up when they come from somewhere else.
        let users = if source(old) == source(new) {
            None
        } else {
            let check = settings::users(&serving.miners, &keys);
            Some(Tunables::read_users(check).map_err(|error| error.to_string())?)
        };
        let (tunables, limits) = (tunables.clone(), settings::limits(new, &serving.miners));
        Ok(Box::new(move || {
            tunables.set_limits(limits);
            if let Some(users) = users {
                tunables.set_users(users);
            }
        }))
    }));
}

/// What the ledger keeps, and how shares go to the pool.
pub(super) fn ledger(swaps: &Swaps, dials: ledger::Dials, keys: Arc<SigningKeys>) {
    swaps.tell(Box::new(move |old, new| {
        let Some(serving) = new.serving.clone() else { return Ok(Box::new(|| ())) };
        let signs_as =
            |config: &Config| config.serving.as_ref().map(|s| (s.pool.secret.clone(), s.pool.key_id.clone()));
        let new_key = signs_as(old) != signs_as(new);
        if new_key {
            SigningKeys::new(&serving.pool.secret, &serving.pool.key_id)
                .map_err(|error| format!("[pool] secret: {error}"))?;
        }
        let (dials, keys) = (dials.clone(), keys.clone());
        Ok(Box::new(move || {
            let (pool, ledger) = (&serving.pool, &serving.ledger);
            if new_key {
                // It was looked at a moment ago.
                let _ = keys.replace(&pool.secret, &pool.key_id);
            }
            dials.set_limits(ledger.segment_size.0, ledger.keep, ledger.max_backlog);
            dials.set_requests(settings::requests(pool), pool.batch_size as usize);
        }))
    }));
}
