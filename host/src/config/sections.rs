//! Every key of the configuration, with its type, default, bounds and meaning, and the rules between keys.

use super::{
    Mode, NodeAuth, Source,
    check::{
        authority_key, bearer_token, between, chain_keys, header_text, log_levels, plain_name, printable_tag,
        signing_key, within,
    },
    choices::{CoinbaseOnly, Console, HeldShares, LogFormat, ProposalCheck, SourceKind, Switch},
    coinbase::Payouts,
    document::{TOP, variable},
    reader::Reader,
    secret::Secret,
    section::{KeyInfo, Presence, Reload, section},
    value::ByteSize,
};
use crate::{
    miner::Elsewhere, noise::AuthorityPublicKey, policy::Enforcement, record::source::Pace, template::Payout,
    template::node::Endpoint,
};
use bitcoin::{Address, CompactTarget, Network, address::NetworkUnchecked};
use reqwest::Url;
use std::{net::SocketAddr, path::PathBuf, time::Duration};

section! {
    /// The keys above all sections.
    pub(super) Top {
        /// What a verdict may do: "shadow", "observe" or "inline". A reload changes among the last two.
        mode: Mode = required() => at_once;
    }

    /// Which kind of source.
    pub(super) SourceKey {
        /// "node": a Bitcoin node; "template_provider": an SV2 Template Provider; "embedded": the chain inside the
        /// process, for demonstrations and tests; "replay": recorded templates, in shadow mode.
        kind: SourceKind = required();
        /// What it is called in events, metrics and on the dashboard.
        name: String = default("main"), plain_name;
    }

    /// The same of a backup.
    pub(super) BackupKey {
        /// What it is called in events, metrics and on the dashboard; no two sources share a name.
        name: String = required(), plain_name;
        /// "node": a Bitcoin node; "template_provider": an SV2 Template Provider.
        kind: SourceKind = required();
    }

    /// When which of several sources gives the templates.
    pub Failover {
        /// How long sources may be on different tips: then that is told, and one that is behind cannot lead.
        disagree_after: Duration = default("5s"), within("100ms", "1h");
        /// How long a preferred source must have been well before templates come from it again.
        return_after: Duration = default("30s"), within("0s", "24h");
    }

    /// The keys of a node.
    pub(super) NodeKeys {
        /// The JSON-RPC address of the node.
        url: Url = required();
        /// The network the node must be on.
        network: Network = required();
        /// The node's cookie file; either this, or `user` and a password.
        cookie_file: Option<PathBuf> = optional();
        /// The JSON-RPC user.
        user: Option<String> = optional();
        /// The JSON-RPC password.
        password: Option<Secret> = optional_secret();
        /// How long the node may take for one answer.
        request_timeout: Duration = default("10s"), within("100ms", "10m");
        /// How long the source may give nothing new before miners are told.
        stale_after: Duration = default("3m"), within("1s", "24h") => at_once;
        /// How soon higher fees on the same tip are seen at the latest: the node is asked this often.
        fee_refresh: Duration = default("30s"), within("1s", "10m");
        /// Where the node publishes new blocks by ZMQ (`zmqpubhashblock`), "tcp://HOST:PORT"; a second way to
        /// hear of a new tip at once, beside long polling.
        zmq_hashblock: Option<Endpoint> = optional();
        /// Whether the node is asked if the assembled block would be valid (BIP 23): "off"; "watch", beside the
        /// work, its answer is told; "gate", before, and only what it finds valid becomes work (slower).
        proposal: ProposalCheck = default("off");
    }

    /// The keys of an SV2 Template Provider.
    pub ProviderSource {
        /// The address of the Template Provider, "HOST:PORT".
        address: Elsewhere = required();
        /// The key that the Template Provider must prove to have, as it shows it (base58); only on a loopback
        /// address it may be left out.
        authority_key: Option<AuthorityPublicKey> = optional();
        /// The network the Template Provider is on.
        network: Network = required();
        /// How long the Template Provider may take for each thing that it owes.
        request_timeout: Duration = default("10s"), within("100ms", "10m");
        /// How long the source may give nothing new before miners are told.
        stale_after: Duration = default("3m"), within("1s", "24h") => at_once;
    }

    /// The chain inside the process.
    pub EmbeddedSource {
        /// The target of its blocks, in compact form.
        bits: CompactTarget = default("207fffff");
        /// Signed transactions in each template.
        transactions: u32 = default("200"), between(0, 4_000);
        /// How often it makes a new template on the same tip.
        refresh: Duration = default("5s"), within("50ms", "1h");
        /// Every so many templates one pays low fees, for a policy to refuse; 0 for never.
        low_fee_every: u32 = default("0");
        /// How long the source may give nothing new before miners are told.
        stale_after: Duration = default("3m"), within("1s", "24h") => at_once;
    }

    /// Recorded templates.
    pub ReplaySource {
        /// A file of recordings, or a folder of them (`[record] dir`).
        from: PathBuf = required();
        /// The network they are of.
        network: Network = required();
        /// "recorded": each as long after the first as then; "fast": as they are judged.
        pace: Pace = default("recorded");
        /// How long the source may give nothing new before miners are told.
        stale_after: Duration = default("3m"), within("1s", "24h") => at_once;
    }

    /// What the coinbase of a block pays and says.
    pub(super) CoinbaseKeys {
        /// The address that blocks pay to; with the embedded source it may be left out.
        payout_address: Option<Address<NetworkUnchecked>> = optional();
        /// In place of payout_address, several that share: a table of addresses, or `script:HEX`, with the parts
        /// of each, e.g. `{ "bc1q…" = 985, "bc1p…" = 15 }`.
        payouts: Option<Payouts> = optional();
        /// Text in the coinbase that names the pool: at most 32 printable ASCII characters.
        tag: String = default("/ReserveGrid/"), printable_tag;
    }

    /// The timing of the gate.
    pub Gate {
        /// How long the verdict on a new chain tip may take before miners are held.
        verdict_timeout: Duration = default("50ms"), within("1ms", "10s") => at_once;
        /// How long miners are held on their last job before they are disconnected.
        hold_timeout: Duration = default("5s"), within("100ms", "10m") => at_once;
        /// What shares on a held job are worth: "accept" (marked as held) or "refuse".
        held_shares: HeldShares = default("accept") => at_once;
        /// Templates without transactions, judged like others: "off"; "fallback", for a new tip on which nothing
        /// else is admitted; "ahead", that and one for the next tip, sent to miners before it comes.
        coinbase_only: CoinbaseOnly = default("off") => at_once;
        /// How long miners wait for other work on a new tip before the fallback, unless all of it was refused.
        coinbase_only_after: Duration = default("1s"), within("0s", "10m") => at_once;
    }

    /// The engine that runs policies.
    pub Engine {
        /// Templates that are judged at the same time.
        workers: u32 = default("2"), between(1, 4);
        /// Memory that one policy may have while it judges.
        memory: ByteSize = default("64MiB"), between(ByteSize(1 << 20), ByteSize(64 << 20));
        /// The largest module that is loaded.
        module_size: ByteSize = default("32MiB"), between(ByteSize(1 << 10), ByteSize(256 << 20));
        /// How long compiling one module may take.
        compile_time: Duration = default("2m"), within("1s", "1h");
        /// A folder for compiled policies, this user's alone; without it each start compiles them again.
        code_cache: Option<PathBuf> = optional();
    }

    /// The keys of one policy.
    pub(super) PolicyKeys {
        /// The name of the entry: lower case letters, digits and dashes.
        name: String = required(), plain_name => at_once;
        /// The WebAssembly component.
        module: PathBuf = required() => at_once;
        /// The SHA-256 that the module must have.
        sha256: Option<[u8; 32]> = optional() => at_once;
        /// Settings for the policy; what they mean is the policy's business.
        settings: Option<serde_json::Value> = optional() => at_once;
        /// What its rejection does: "enforce", it decides; "monitor", it is written down.
        enforcement: Enforcement = default("enforce") => at_once;
        /// Instructions (wasmtime fuel) that one evaluation may use.
        fuel: u64 = default("10000000"), between(10_000, 100_000_000_000) => at_once;
    }

    /// How the policies are exchanged while miners work.
    pub Swap {
        /// Templates that a proposed policy set judges, beside the running one, before it takes its place.
        replay: u32 = default("16"), between(0, 64) => at_once;
        /// How often the configuration file and the modules are looked at for changes; "0s" for never.
        watch: Duration = default("2s"), within("0s", "1h") => at_once;
    }

    /// The HTTP surface for operators.
    pub Api {
        /// The address and port to listen on; without it there is none. Any but a loopback address needs a token.
        listen: Option<SocketAddr> = optional();
        /// What requests must carry (`Authorization: Bearer …`): at least 16 printable ASCII characters.
        token: Option<Secret> = optional_secret(), bearer_token => at_once;
        /// A second token that may look and change nothing, for Prometheus and dashboards.
        read_token: Option<Secret> = optional_secret(), bearer_token => at_once;
    }

    /// The listener for miners and its limits.
    pub Miners {
        /// The address and port to listen on.
        listen: SocketAddr = required();
        /// The secret key that signs the gateway's certificate.
        authority_secret: Secret = secret("`reservegrid keys generate` makes one"), authority_key;
        /// How long a certificate is valid; it is renewed well before its end.
        certificate_validity: Duration = default("1h"), within("1m", "720h") => at_once;
        /// Connections served at once.
        max_connections: u32 = default("10000"), between(1, 1_000_000) => at_once;
        /// Connections served at once from one address (of IPv6: one /64).
        max_connections_per_address: u32 = default("2000"), between(1, 1_000_000) => at_once;
        /// Noise handshakes under way at once.
        max_handshakes: u32 = default("1000"), between(1, 1_000_000) => at_once;
        /// Noise handshakes under way at once from one address.
        max_handshakes_per_address: u32 = default("100"), between(1, 1_000_000) => at_once;
        /// How long the Noise handshake may take.
        handshake_timeout: Duration = default("5s"), within("100ms", "5m") => at_once;
        /// How long after the handshake a channel must be open.
        setup_timeout: Duration = default("10s"), within("100ms", "5m") => at_once;
        /// How long a miner may be silent.
        idle_timeout: Duration = default("10m"), within("1s", "24h") => at_once;
        /// Channels on one connection.
        max_channels_per_connection: u32 = default("64"), between(1, 100_000) => at_once;
        /// Channels on all connections.
        max_channels: u32 = default("200000"), between(1, 10_000_000) => at_once;
        /// Shares a second that one connection may send.
        max_shares_per_second: u32 = default("1000"), between(1, 1_000_000) => for_new;
        /// What one connection may be refused a second (shares, opens, updates) before it is read more slowly;
        /// each accepted share allows one more.
        max_refusals_per_second: u32 = default("10"), between(1, 1_000_000) => for_new;
        /// Shares of one connection that may wait for the pool's answer.
        max_unanswered_shares: u32 = default("1000000"), between(1, 1_000_000_000) => for_new;
        /// Shares that each channel's difficulty aims at.
        shares_per_minute: f64 = default("6"), between(0.1, 600.0) => for_new;
        /// Whether difficulties follow the shares that are accepted: "on", or "off" to keep the first one.
        vardiff: Switch = default("on") => for_new;
        /// The lowest difficulty of a channel, unless the network's is lower; 0 for no bound.
        min_difficulty: f64 = default("0.0001"), between(0.0, 1e15) => for_new;
        /// Shares that one SubmitShares.Success answers at most on a standard channel; some firmware counts
        /// messages.
        standard_success_batch: u32 = default("1"), between(1, 10_000) => at_once;
        /// Shares that one SubmitShares.Success answers at most on an extended channel.
        extended_success_batch: u32 = default("64"), between(1, 10_000) => at_once;
        /// Where miners are sent when the gateway ends (SV2 Reconnect), "HOST:PORT" with the same authority key;
        /// without it their channels are closed, which more clients understand.
        reconnect: Option<Elsewhere> = optional() => at_once;
        /// A file of those who may mine, one account a line; it is read again when it changes.
        users_file: Option<PathBuf> = optional() => at_once;
        /// Where the pool is asked who may mine; without this and a file everybody may.
        users_url: Option<Url> = optional() => at_once;
        /// How long the pool may take to say who may mine.
        users_timeout: Duration = default("2s"), within("10ms", "1m") => at_once;
    }

    /// The pool backend that receives shares.
    pub Pool {
        /// Where shares are posted to.
        url: Url = required() => at_once;
        /// The name of the signing key, sent along so that keys can be changed.
        key_id: String = required(), header_text => at_once;
        /// The key that signs what is posted (HMAC-SHA256): at least 16 bytes. A file is read again when it
        /// changes; a second line in it is the new `key_id`.
        secret: Secret = secret("at least 16 bytes, the same as at the pool"), signing_key => at_once;
        /// Shares in one request at most.
        batch_size: u32 = default("512"), between(1, 10_000) => at_once;
        /// Requests on their way at once.
        in_flight: u32 = default("4"), between(1, 64) => at_once;
        /// How long the backend may take for one answer.
        timeout: Duration = default("5s"), within("100ms", "5m") => at_once;
    }

    /// The durable record of shares.
    pub Ledger {
        /// Its folder; it is made when it does not exist.
        dir: PathBuf = required();
        /// The key of the chain that makes changes evident; without it the folder has one of its own
        /// (`chain.key`). A file has a key a line, the newest first, and is read again when it changes.
        key: Option<Secret> = optional_secret(), chain_keys;
        /// A file of the ledger is full beyond this size.
        segment_size: ByteSize = default("256MiB"), between(ByteSize(64 << 10), ByteSize(64 << 30)) => at_once;
        /// How long records are kept after their file is full and every share in it has its result.
        keep: Duration = default("2160h"), within("0s", "87600h") => at_once;
        /// Shares that may be without the pool's answer; acknowledgements slow down from three quarters on.
        max_backlog: u64 = default("50000000"), between(1, 10_000_000_000) => at_once;
    }

    /// Recordings of judged templates, for `reservegrid policy replay` and the source "replay".
    pub Record {
        /// Their folder; it is made when it does not exist. Without it nothing is recorded.
        dir: Option<PathBuf> = optional();
        /// How long they are kept; there is a file a day.
        keep: Duration = default("168h"), within("1m", "87600h") => at_once;
        /// What they may take together; the oldest file goes first. A full block takes about a megabyte.
        max_size: ByteSize = default("8GiB"), between(ByteSize(1 << 20), ByteSize(1 << 50)) => at_once;
    }

    /// Where events are written.
    pub Events {
        /// A file that gets one JSON object a line; without it there is none.
        file: Option<PathBuf> = optional();
        /// The size at which a new file begins; the earlier one keeps its name with the time behind it.
        rotate_size: ByteSize = default("128MiB"), between(ByteSize(1 << 10), ByteSize(1 << 40)) => at_once;
        /// The age at which a new file begins; "0s" for never.
        rotate_age: Duration = default("24h"), within("0s", "8760h") => at_once;
        /// Earlier files that are kept; the oldest beyond are removed.
        keep: u32 = default("14"), between(0, 10_000) => at_once;
        /// What is shown in the terminal: "text" or "off".
        console: Console = default("text");
    }

    /// What is logged to standard error, beside the events.
    pub Log {
        /// The levels, by part: "warn", or "warn,reservegrid::miner=debug". `RESERVEGRID_LOG` goes before it.
        levels: String = default("warn"), log_levels => at_once;
        /// "text" or "json", an object a line. `RESERVEGRID_LOG_FORMAT` goes before it.
        format: LogFormat = default("text");
    }

    /// The end of the process.
    pub Drain {
        /// How long miners and shares on their way get before the process ends.
        timeout: Duration = default("5s"), within("0s", "10m") => at_once;
    }
}

impl Events {
    /// When the event file is changed for a new one.
    pub fn rotation(&self) -> Rotation {
        Rotation { size: self.rotate_size, age: self.rotate_age, keep: self.keep }
    }
}

/// When a file is changed for a new one, and how many earlier ones stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// At this size.
    pub size: ByteSize,
    /// At this age; zero for never.
    pub age: Duration,
    /// Earlier files that are kept.
    pub keep: u32,
}

impl Rotation {
    /// The file only grows.
    pub const NEVER: Self = Self { size: ByteSize(u64::MAX), age: Duration::ZERO, keep: u32::MAX };
}

/// A Bitcoin node as template source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSource {
    /// The JSON-RPC address.
    pub url: Url,
    /// The network it must be on.
    pub network: Network,
    /// How the gateway shows who it is.
    pub auth: NodeAuth,
    /// How long one answer may take.
    pub request_timeout: Duration,
    /// How long it may give nothing new.
    pub stale_after: Duration,
    /// How soon higher fees on the same tip are seen.
    pub fee_refresh: Duration,
    /// Where it publishes new blocks.
    pub zmq_hashblock: Option<Endpoint>,
    /// Whether it checks assembled blocks.
    pub proposal: ProposalCheck,
}

/// Another source, for when those before it fail.
#[derive(Clone, Debug)]
pub struct Backup {
    /// What the operator calls it, unlike any other source.
    pub name: String,
    /// The source.
    pub source: Source,
}

/// What the coinbase of a block pays and says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coinbase {
    /// Who is paid; addresses were of the source's network.
    pub payout: Payout,
    /// Text in the coinbase script: at most 32 bytes, printable ASCII.
    pub tag: String,
}

/// One policy.
#[derive(Clone, Debug)]
pub struct PolicyEntry {
    /// Its name, unique among the entries.
    pub name: String,
    /// The component's file.
    pub module: PathBuf,
    /// The SHA-256 the file must have.
    pub sha256: Option<[u8; 32]>,
    /// The settings for the policy: a JSON object, empty when there are none.
    pub settings: serde_json::Value,
    /// Fuel for one evaluation.
    pub fuel: u64,
    /// What its rejection does.
    pub enforcement: Enforcement,
    /// The line of the entry in the configuration file, for faults found later.
    pub line: usize,
}

/// The sections by name with their keys; the keys above all sections have the name `""`.
pub const SECTIONS: &[(&str, &[&[KeyInfo]])] = &[
    (TOP, &[Top::KEYS]),
    (
        "source",
        &[SourceKey::KEYS, NodeKeys::KEYS, ProviderSource::KEYS, EmbeddedSource::KEYS, ReplaySource::KEYS],
    ),
    ("backup", &[BackupKey::KEYS, NodeKeys::KEYS, ProviderSource::KEYS]),
    ("failover", &[Failover::KEYS]),
    ("coinbase", &[CoinbaseKeys::KEYS]),
    ("gate", &[Gate::KEYS]),
    ("engine", &[Engine::KEYS]),
    ("policy", &[PolicyKeys::KEYS]),
    ("swap", &[Swap::KEYS]),
    ("api", &[Api::KEYS]),
    ("miners", &[Miners::KEYS]),
    ("pool", &[Pool::KEYS]),
    ("ledger", &[Ledger::KEYS]),
    ("record", &[Record::KEYS]),
    ("events", &[Events::KEYS]),
    ("log", &[Log::KEYS]),
    ("drain", &[Drain::KEYS]),
];

/// The names of the sections.
pub(super) fn section_names() -> impl Iterator<Item = &'static str> {
    SECTIONS.iter().map(|(name, _)| *name).filter(|name| *name != TOP)
}

/// The sections that are lists (`[[policy]]`), with what their entries are called. They are given in the file
/// only, and their entries are the sections `policy.0`, `policy.1` and so on.
pub(super) const LISTS: [(&str, &str); 2] = [("policy", "policies"), ("backup", "backups")];

/// The list that an entry like `policy.0` belongs to.
pub(super) fn list_of(section: &str) -> Option<&'static str> {
    let (name, _) = section.split_once('.')?;
    LISTS.into_iter().find(|(list, _)| *list == name).map(|(list, _)| list)
}

/// Whether a table of this name belongs into a configuration; a list is no such table.
pub(super) fn is_section(name: &str) -> bool {
    LISTS.iter().all(|(list, _)| *list != name) && section_names().any(|known| known == name)
}

/// The names that may stand in the file under a section: a secret has the name of its file there.
pub(super) fn key_names(section: &str) -> impl Iterator<Item = &'static str> {
    let mut names = Vec::new();
    for (key, secret) in keys(section) {
        names.extend(if secret {
            FILE_KEYS.into_iter().find(|name| name.strip_suffix("_file") == Some(key))
        } else {
            Some(key)
        });
    }
    names.sort_unstable();
    names.dedup();
    names.into_iter()
}

/// The keys that name the file of a secret.
pub(super) const FILE_KEYS: [&str; 6] =
    ["authority_secret_file", "key_file", "password_file", "read_token_file", "secret_file", "token_file"];

fn keys(section: &str) -> impl Iterator<Item = (&'static str, bool)> {
    let of_section = SECTIONS.iter().filter(move |(name, _)| *name == section);
    of_section
        .flat_map(|(_, lists)| lists.iter().flat_map(|list| list.iter()))
        .map(|key| (key.name, matches!(key.presence, Presence::Secret | Presence::OptionalSecret)))
}

/// The names of all variables.
pub(super) fn variables() -> impl Iterator<Item = String> {
    section_names().filter(|name| is_section(name)).flat_map(|section| {
        let bare = keys(section).map(|(key, _)| key);
        key_names(section).chain(bare).map(|key| variable(section, key)).collect::<Vec<_>>()
    })
}
