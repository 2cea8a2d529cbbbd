//! New blocks by ZMQ: what a node publishes as `hashblock` (`-zmqpubhashblock`), a 32-byte hash for each tip.
//!
//! The subscriber's half of ZMTP 3.0 without authentication (rfc.zeromq.org/spec/23) is a greeting, one command
//! and one subscription; the general libraries bring thirty crates for it and rules for queues that a hint does
//! not need. It is a hint only: a lost message costs nothing, since the long poll says the same.

use bitcoin::{BlockHash, hashes::Hash};
use std::{io, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    time::{sleep, timeout},
};

/// What is subscribed to.
const TOPIC: &[u8] = b"hashblock";
/// The largest frame that is read; those of the topic have 32 bytes at most.
const MAX_FRAME: u64 = 1024;
const HANDSHAKE: Duration = Duration::from_secs(5);
/// A connection on which nothing came for so long is made anew: its other end may be gone.
const SILENCE: Duration = Duration::from_secs(30 * 60);
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// Where a node publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    host: String,
    port: u16,
}

impl Endpoint {
    /// Reads `tcp://HOST:PORT`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.strip_prefix("tcp://")?.rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = port.parse().ok().filter(|port| *port > 0)?;
        let plain = (1..=255).contains(&host.len())
            && host.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
        plain.then(|| Self { host: host.into(), port })
    }
}

/// Listens for new tips until nobody looks at them any more.
pub(super) async fn listen(endpoint: Endpoint, tips: watch::Sender<Option<BlockHash>>) {
    let mut backoff = BACKOFF_FIRST;
    loop {
        let before = *tips.borrow();
        let ended = tokio::select! {
            ended = follow(&endpoint, &tips) => ended,
            () = tips.closed() => return,
        };
        if *tips.borrow() != before {
            backoff = BACKOFF_FIRST;
        }
        if let Err(error) = ended {
            tracing::debug!(host = %endpoint.host, port = endpoint.port, %error, "no new tips by ZMQ for now");
        }
        tokio::select! {
            () = sleep(backoff) => {}
            () = tips.closed() => return,
        }
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

async fn follow(endpoint: &Endpoint, tips: &watch::Sender<Option<BlockHash>>) -> io::Result<()> {
    let mut stream = timeout(HANDSHAKE, subscribe(endpoint)).await??;
    let mut message = Message::default();
    loop {
        let (flags, body) = timeout(SILENCE, read_frame(&mut stream)).await??;
        if let Some(hash) = message.take(flags, &body) {
            tips.send_replace(Some(hash));
        }
    }
}

async fn subscribe(endpoint: &Endpoint) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
    stream.set_nodelay(true)?;
    stream.write_all(&greeting()).await?;
    let mut theirs = [0; 64];
    stream.read_exact(&mut theirs).await?;
    check_greeting(&theirs)?;
    stream.write_all(&frame(COMMAND, &ready())).await?;
    let (flags, body) = read_frame(&mut stream).await?;
    if flags & COMMAND == 0 || !body.starts_with(b"\x05READY") {
        return Err(invalid("the other side does not answer with READY"));
    }
    stream.write_all(&frame(0, &[&[1], TOPIC].concat())).await?;
    Ok(stream)
}

/// Signature, version 3.0, mechanism NULL, not a server.
fn greeting() -> [u8; 64] {
    let mut greeting = [0; 64];
    (greeting[0], greeting[9], greeting[10]) = (0xff, 0x7f, 3);
    greeting[12..16].copy_from_slice(b"NULL");
    greeting
}

fn check_greeting(theirs: &[u8; 64]) -> io::Result<()> {
    if theirs[0] != 0xff || theirs[9] != 0x7f || theirs[10] < 3 {
        return Err(invalid("the other side does not speak ZMTP 3"));
    }
    if &theirs[12..32] != b"NULL\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0" {
        return Err(invalid("the other side wants authentication"));
    }
    Ok(())
}

/// The command READY with our kind of socket.
fn ready() -> Vec<u8> {
    [&b"\x05READY\x0bSocket-Type"[..], &3_u32.to_be_bytes(), b"SUB"].concat()
}

/// A frame of at most 255 bytes.
fn frame(flags: u8, body: &[u8]) -> Vec<u8> {
    let length = u8::try_from(body.len()).unwrap_or(u8::MAX);
    [&[flags, length], body].concat()
}

async fn read_frame(stream: &mut TcpStream) -> io::Result<(u8, Vec<u8>)> {
    let flags = stream.read_u8().await?;
    let length = match flags & LONG {
        0 => u64::from(stream.read_u8().await?),
        _ => stream.read_u64().await?,
    };
    if length > MAX_FRAME {
        return Err(invalid("a frame that is too large for a hash"));
    }
    let mut body = vec![0; usize::try_from(length).unwrap_or_default()];
    stream.read_exact(&mut body).await?;
    Ok((flags, body))
}

/// A message that comes in frames: topic, hash, number.
#[derive(Debug, Default)]
struct Message {
    frames: usize,
    on_topic: bool,
    hash: Option<BlockHash>,
}

impl Message {
    /// Takes the next frame; gives the hash when the message is whole and on the topic.
    fn take(&mut self, flags: u8, body: &[u8]) -> Option<BlockHash> {
        if flags & COMMAND != 0 {
            return None;
        }
        match self.frames {
            0 => self.on_topic = body == TOPIC,
            1 => {
                // It is sent as it is shown, not as it is hashed.
                let hash = <[u8; 32]>::try_from(body).ok().map(|mut bytes| {
                    bytes.reverse();
                    BlockHash::from_byte_array(bytes)
                });
                self.hash = hash;
            }
            _ => {}
        }
        self.frames = self.frames.saturating_add(1);
        if flags & MORE != 0 {
            return None;
        }
        let Self { on_topic, hash, .. } = std::mem::take(self);
        hash.filter(|_| on_topic)
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use tokio::net::TcpListener;

    #[test]
    fn an_address_is_tcp_with_host_and_port() {
        let endpoint = |host: &str, port| Some(Endpoint { host: host.into(), port });
        assert_eq!(Endpoint::parse("tcp://127.0.0.1:28332"), endpoint("127.0.0.1", 28332));
        assert_eq!(Endpoint::parse("tcp://[::1]:1"), endpoint("::1", 1));
        assert_eq!(Endpoint::parse("tcp://node.example:5"), endpoint("node.example", 5));
        for bad in [
            "",
            "127.0.0.1:1",
            "ipc:///tmp/x",
            "tcp://:1",
            "tcp://h",
            "tcp://h:0",
            "tcp://h/x:1",
            "tcp://h:x",
        ] {
            assert_eq!(Endpoint::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_message_of_the_topic_gives_its_hash_in_the_order_of_hashing() {
        let mut message = Message::default();
        let mut hash = [0; 32];
        hash[31] = 7;
        assert_eq!(message.take(MORE, TOPIC), None);
        assert_eq!(message.take(COMMAND, b"\x04PING"), None);
        assert_eq!(message.take(MORE, &hash), None);
        let got = message.take(0, &[0; 4]).unwrap();
        assert_eq!(got.to_byte_array()[0], 7);
        for (topic, body) in [(&b"rawblock"[..], &hash[..]), (TOPIC, &[1, 2, 3])] {
            assert_eq!(message.take(MORE, topic), None);
            assert_eq!(message.take(MORE, body), None);
            assert_eq!(message.take(0, &[0; 4]), None);
        }
    }

    proptest! {
        #[test]
        fn no_frames_confuse_it_for_longer_than_their_message(
            frames in prop::collection::vec((0u8..8, prop::collection::vec(any::<u8>(), 0..40)), 0..20),
        ) {
            let mut message = Message::default();
            for (flags, body) in &frames {
                message.take(*flags, body);
            }
            message.take(0, &[]);
            prop_assert_eq!(message.take(MORE, TOPIC), None);
            prop_assert_eq!(message.take(0, &[9; 32]), Some(BlockHash::from_byte_array([9; 32])));
        }
    }

    #[tokio::test]
    async fn whatever_is_not_zmtp_ends_the_connection_and_another_is_made() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::parse(&format!("tcp://{}", listener.local_addr().unwrap())).unwrap();
        let (tips, mut seen) = watch::channel(None);
        let listening = tokio::spawn(listen(endpoint, tips));
        let (mut first, _) = listener.accept().await.unwrap();
        first.write_all(&[b'x'; 64]).await.unwrap();
        let (mut second, _) = listener.accept().await.unwrap();
        let mut greeting_of_ours = [0; 64];
        second.read_exact(&mut greeting_of_ours).await.unwrap();
        assert_eq!(greeting_of_ours, greeting());
        second.write_all(&greeting()).await.unwrap();
        second.write_all(&frame(COMMAND, b"\x05READY\x0bSocket-Type\x00\x00\x00\x03PUB")).await.unwrap();
        let mut said = vec![0; 2 + ready().len() + 2 + 1 + TOPIC.len()];
        second.read_exact(&mut said).await.unwrap();
        assert!(said.ends_with(b"\x01hashblock"));
        for part in [frame(MORE, TOPIC), frame(MORE, &[5; 32]), frame(0, &[1, 0, 0, 0])] {
            second.write_all(&part).await.unwrap();
        }
        let tip = *seen.wait_for(Option::is_some).await.unwrap();
        assert_eq!(tip, Some(BlockHash::from_byte_array([5; 32])));
        drop(seen);
        listening.await.unwrap();
    }
}
