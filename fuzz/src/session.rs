//! A whole session: the gateway in this process, a real socket, an honest handshake, and then any sequence
//! of frames.
//!
//! Promises: the connection ends or is answered, within its deadlines; the gateway goes on. A quiet miner on
//! the same gateway is looked at after every session: it still gets its answers.

use crate::Choices;
use reservegrid::{
    config::Config,
    gateway::Gateway,
    noise::{ACT2_LEN, AuthorityPublicKey, Initiator, Opener, Sealer},
    sv2::{FrameDecoder, Side},
};
use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    path::PathBuf,
    sync::{LazyLock, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Longest wait for an answer; only a gateway that hangs lets it pass.
const PATIENCE: Duration = Duration::from_secs(30);

struct World {
    address: SocketAddr,
    key: AuthorityPublicKey,
    /// Opens one channel after another.
    quiet: Mutex<Peer>,
    /// Keeps the gateway running.
    _runtime: tokio::runtime::Runtime,
    _gateway: Gateway,
    _folder: tempfile::TempDir,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let policy =
        PathBuf::from(std::env::var_os("RESERVEGRID_POLICY_DIR").expect("RESERVEGRID_POLICY_DIR is set"))
            .join("limits.wasm");
    let text = format!(
        r#"
mode = "inline"
[source]
kind = "embedded"
bits = "1e020000"
transactions = 3
refresh = "1s"
[[policy]]
name = "limits"
module = "{}"
[miners]
listen = "127.0.0.1:0"
authority_secret_file = "key"
min_difficulty = 0.0
max_connections_per_address = 4096
max_channels_per_connection = 100000
[pool]
url = "http://127.0.0.1:1/shares"
key_id = "fuzz"
secret_file = "secret"
[ledger]
dir = "ledger"
[events]
console = "off"
"#,
        policy.display()
    );
    let file = folder.path().join("fuzz.toml");
    let key = reservegrid::noise::AuthoritySecretKey::generate();
    std::fs::write(folder.path().join("key"), key.expose_text()).unwrap();
    std::fs::write(folder.path().join("secret"), "a secret of the pool").unwrap();
    std::fs::write(&file, text).unwrap();
    let config = Config::load(&file).unwrap_or_else(|faults| panic!("{faults}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let gateway = runtime.block_on(Gateway::start(config)).unwrap();
    let (address, key) = (gateway.listen.unwrap(), key.public());
    let mut quiet = Peer::connect(address, key);
    quiet.send(0, 0, &setup_payload(0));
    assert_eq!(quiet.receive(), Some(1), "SetupConnection.Success");
    World { address, key, quiet: Mutex::new(quiet), _runtime: runtime, _gateway: gateway, _folder: folder }
});

/// One end of a connection after its handshake.
struct Peer {
    stream: TcpStream,
    sealer: Sealer,
    decoder: FrameDecoder,
}

impl Peer {
    fn connect(address: SocketAddr, key: AuthorityPublicKey) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (initiator, act1) = Initiator::start(Some(key)).unwrap();
        stream.write_all(&act1).unwrap();
        let mut act2 = [0; ACT2_LEN];
        stream.read_exact(&mut act2).unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let (sealer, opener) = initiator.finish(&act2, u32::try_from(now).unwrap()).unwrap().split();
        Self { stream, sealer, decoder: decoder(opener) }
    }

    fn send(&mut self, extension: u16, kind: u8, payload: &[u8]) {
        let mut wire = Vec::new();
        seal(&mut self.sealer, extension, kind, payload, &mut wire);
        self.stream.write_all(&wire).unwrap();
    }

    /// The type of the next message; `None` when the gateway has closed the connection.
    fn receive(&mut self) -> Option<u8> {
        loop {
            if let Some(frame) = self.decoder.next_frame().expect("the gateway's frames are authentic") {
                return Some(frame.header.msg_type);
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(length) => self.decoder.push(&bytes[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("the gateway neither answers nor closes: {error}"),
            }
        }
    }
}

fn decoder(opener: Opener) -> FrameDecoder {
    let mut decoder = FrameDecoder::new(opener, Side::Server);
    decoder.set_up();
    decoder
}

fn seal(sealer: &mut Sealer, extension: u16, kind: u8, payload: &[u8], wire: &mut Vec<u8>) {
    let ([e0, e1], [l0, l1, l2, _]) =
        (extension.to_le_bytes(), u32::try_from(payload.len()).unwrap().to_le_bytes());
    sealer.seal_frame(&[e0, e1, kind, l0, l1, l2], payload, wire).unwrap();
}

/// First byte: whether a SetupConnection comes first, and its flags. Then frames: extension, type, length,
/// payload.
pub fn one(data: &[u8]) {
    let world = &*WORLD;
    let mut choices = Choices(data);
    let mut peer = Peer::connect(world.address, world.key);
    let mut wire = Vec::new();
    let first = choices.byte();
    if first & 0x80 == 0 {
        seal(&mut peer.sealer, 0, 0, &setup_payload(u32::from(first & 0x0f)), &mut wire);
    }
    while !choices.done() {
        // Most frames are of the base protocol, so that few bytes reach far.
        let extension = match choices.byte() {
            at @ 0xf0.. => u16::from(at & 0x0f),
            _ => 0,
        };
        let kind = choices.byte();
        let length = usize::from(choices.short()) % 2048;
        seal(&mut peer.sealer, extension, kind, choices.bytes(length), &mut wire);
    }
    // The gateway may have closed the connection by then: that is an answer.
    if peer.stream.write_all(&wire).is_ok() && peer.stream.shutdown(Shutdown::Write).is_ok() {
        while peer.receive().is_some() {}
    }

    let mut quiet = world.quiet.lock().unwrap();
    quiet.send(0, 0x10, &open_payload(b"quiet"));
    loop {
        match quiet.receive().expect("a quiet miner's connection stays open") {
            // Opened, or told that it opens more often than it may: an answer either way.
            0x11 | 0x12 => break,
            // Work comes whenever there is some.
            0x15 | 0x1e..=0x21 => {}
            other => panic!("a quiet miner opened a channel and was sent message 0x{other:02x}"),
        }
    }
    // Group 1 is all channels of the connection.
    quiet.send(0, 0x18, &[1, 0, 0, 0, 0]);
}

/// A SetupConnection for the mining protocol, version 2.
pub(crate) fn setup_payload(flags: u32) -> Vec<u8> {
    let mut payload = vec![0, 2, 0, 2, 0];
    payload.extend(flags.to_le_bytes());
    payload.extend(b"\x09localhost\x37\x86\x04fuzz\x011\x011\x01d");
    payload
}

/// An OpenStandardMiningChannel.
fn open_payload(user: &[u8]) -> Vec<u8> {
    let mut payload = vec![1, 0, 0, 0, u8::try_from(user.len()).unwrap()];
    payload.extend(user);
    payload.extend(1.0e12_f32.to_le_bytes());
    payload.extend([0xff; 32]);
    payload
}

/// What clients send, type and payload, with plausible fields.
pub(crate) fn client_messages() -> Vec<(u8, Vec<u8>)> {
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let share = words(&[2, 1, 1, 7, 1_750_000_000, 0x2000_0000]);
    let extended_open = [&open_payload(b"alice.1")[..], &[4, 0]].concat();
    let custom = [
        &words(&[2, 5])[..],
        &[4, 1, 2, 3, 4],
        &[0; 4],
        &[1; 32],
        &[0; 8],
        &[0; 4],
        &[2, 1, 1],
        &[0; 4],
        &[1, 0, 0],
        &[0; 4],
        &[0],
    ]
    .concat();
    vec![
        (0x10, open_payload(b"alice")),
        (0x13, extended_open),
        (0x16, [&words(&[2])[..], &1.0e9_f32.to_le_bytes(), &[0xff; 32]].concat()),
        (0x18, [&words(&[2])[..], &[3, b'b', b'y', b'e']].concat()),
        (0x1a, share.clone()),
        (0x1b, [&share[..], &[4, 1, 2, 3, 4]].concat()),
        (0x1b, [&share[..], &[4, 1, 2, 3, 4, 2, 0, 1, 2, 0, b'w', b'1']].concat()),
        (0x22, custom),
    ]
}

/// Sessions that open, mine, update and close, and each message alone.
pub fn seeds() -> Vec<Vec<u8>> {
    let frame = |(kind, payload): &(u8, Vec<u8>)| {
        let [l0, l1] = u16::try_from(payload.len()).unwrap().to_le_bytes();
        [&[0, *kind, l0, l1][..], payload].concat()
    };
    let messages = client_messages();
    let mut seeds: Vec<Vec<u8>> = messages.iter().map(|m| [vec![0], frame(m)].concat()).collect();
    for flags in [0, 1, 2, 4, 0x80] {
        let session: Vec<u8> = messages.iter().flat_map(frame).collect();
        seeds.push([vec![flags], session].concat());
    }
    let extensions = [0xf1, 0, 6, 0, 1, 0, 1, 0, 2, 0];
    seeds.push([&[0][..], &extensions, &frame(&messages[1]), &frame(&messages[6])].concat());
    seeds
}
