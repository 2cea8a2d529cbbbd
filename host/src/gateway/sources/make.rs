//! Sources as the configuration describes them: each kind of `[source]` and `[[backup]]` has its line here.

use super::NamedSource;
use crate::{
    config::{Config, NodeAuth, Source},
    gateway::settings,
    record::source::Replay,
    template::{
        CoinbaseSpec, TemplateSource,
        chain::{EmbeddedChain, EmbeddedConfig},
        node::{self, NodeConfig},
        provider::{ProviderConfig, ProviderSource},
    },
};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// All sources in the operator's order of preference; `stale_after` is that of the first, which a reload may
/// change.
///
/// # Errors
/// Which one cannot be set up, and why.
pub(in crate::gateway) fn make(
    config: &Config,
    stale_after: &watch::Receiver<Duration>,
) -> Result<Arc<[NamedSource]>, String> {
    let lasting = |source: &Source| watch::channel(source.stale_after()).1;
    let backups = config.backups.iter().map(|backup| (&backup.name, &backup.source, lasting(&backup.source)));
    let all = [(&config.source_name, &config.source, stale_after.clone())].into_iter().chain(backups);
    let named = all.map(|(name, source, stale_after)| {
        let refresh = source.refresh();
        let made =
            one(source, settings::coinbase_spec(config)).map_err(|error| format!("{name}: {error}"))?;
        Ok(NamedSource { name: name.clone(), source: made, stale_after, refresh })
    });
    named.collect()
}

fn one(source: &Source, coinbase: CoinbaseSpec) -> Result<Arc<dyn TemplateSource>, String> {
    Ok(match source {
        Source::Embedded(embedded) => Arc::new(
            EmbeddedChain::new(EmbeddedConfig {
                bits: embedded.bits,
                transactions_per_template: embedded.transactions as usize,
                refresh: embedded.refresh,
                low_fee_every: embedded.low_fee_every,
                coinbase,
                ..EmbeddedConfig::default()
            })
            .map_err(|error| error.to_string())?,
        ),
        Source::Replay(replay) => Arc::new(
            Replay::open(&replay.from, replay.network, replay.pace).map_err(|error| error.to_string())?,
        ),
        Source::Provider(provider) => Arc::new(ProviderSource::new(ProviderConfig {
            address: provider.address.to_string(),
            authority_key: provider.authority_key,
            network: provider.network,
            request_timeout: provider.request_timeout,
            coinbase,
        })),
        Source::Node(node) => Arc::new(
            node::NodeSource::new(NodeConfig {
                url: node.url.to_string(),
                auth: match &node.auth {
                    NodeAuth::Cookie(path) => node::Auth::Cookie(path.clone()),
                    NodeAuth::Password { user, password } => node::Auth::UserPassword {
                        user: user.clone(),
                        password: password.expose().to_owned(),
                    },
                },
                network: node.network,
                request_timeout: node.request_timeout,
                zmq_hashblock: node.zmq_hashblock.clone(),
                coinbase,
            })
            .map_err(|error| error.to_string())?,
        ),
    })
}
