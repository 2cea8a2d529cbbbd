//! Peers that mean harm, each kind in its own way, again and again until they are told to stop.

use crate::link::{Channel, Link, VERSION_ROLLING, socket};
use anyhow::Result;
use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep, timeout},
};

/// What a peer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Sends a part of its first message and no more.
    SlowHandshake,
    /// Sends bytes that are nothing.
    Garbage,
    /// Is set up, and sends half a frame.
    HalfFrame,
    /// Hands in shares that are none, without end.
    BadShares,
    /// Sends messages that nobody knows.
    UnknownMessages,
    /// Opens one channel after the other.
    Opens,
    /// Asks for answers and reads none.
    Deaf,
    /// Hands in good shares and is gone before they are answered.
    Vanishing,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::SlowHandshake,
        Self::Garbage,
        Self::HalfFrame,
        Self::BadShares,
        Self::UnknownMessages,
        Self::Opens,
        Self::Deaf,
        Self::Vanishing,
    ];
}

/// Rest of a peer before it comes again.
const REST: Duration = Duration::from_secs(3);
/// Bytes that a peer has ready beyond what the pool reads; more would only keep this machine busy.
const UNSENT: u32 = 16 << 10;
/// How long a peer that waits does so.
const WAIT: Duration = Duration::from_secs(10);

/// Is hostile until `stop`; gives how often it connected.
pub async fn run(pool: SocketAddr, number: usize, kind: Kind, stop: &AtomicBool) -> u64 {
    let mut times = 0;
    // Not all in the same instant, again and again.
    sleep(REST * (number % 97) as u32 / 97).await;
    while !stop.load(Ordering::Relaxed) {
        times += 1;
        // However it ends: the pool hung up, most likely.
        let _ = timeout(WAIT, once(pool, number, kind, stop)).await;
        sleep(REST).await;
    }
    times
}

async fn once(pool: SocketAddr, number: usize, kind: Kind, stop: &AtomicBool) -> Result<()> {
    match kind {
        Kind::SlowHandshake | Kind::Garbage => {
            let mut stream = socket(pool, number, Some(UNSENT)).await?;
            let junk: Vec<u8> = (0..4_096).map(|at| (at * 7 + number) as u8 | 0x80).collect();
            let length = if kind == Kind::Garbage { junk.len() } else { 40 };
            stream.write_all(&junk[..length]).await?;
            // Until the pool hangs up.
            while stream.read(&mut [0; 512]).await? > 0 {}
            return Ok(());
        }
        _ => {}
    }
    let mut link = Link::over(socket(pool, number, Some(UNSENT)).await?).await?;
    link.setup(VERSION_ROLLING).await?;
    match kind {
        Kind::HalfFrame => {
            let mut bytes = Vec::new();
            link.seal(0x1a, &[0; 24], &mut bytes)?;
            link.stream.write_all(&bytes[..30]).await?;
            while link.stream.read(&mut [0; 512]).await? > 0 {}
        }
        Kind::BadShares => {
            let channel = link.open("bad").await?;
            let mut number = 0;
            pump(&mut link, stop, true, |link, bytes| {
                number += 1;
                // Of a job that is not there, of another time, again and again the same.
                let mut payload = channel.submit(number, 1);
                match number % 3 {
                    0 => payload[8..12].fill(0x7f),
                    1 => payload[16..20].fill(0),
                    _ => {}
                }
                link.seal(0x1a, &payload, bytes)
            })
            .await?;
        }
        Kind::UnknownMessages => {
            pump(&mut link, stop, true, |link, bytes| link.seal(0x7b, &[1; 100], bytes)).await?;
        }
        Kind::Opens => {
            let open = [&[1, 0, 0, 0, 1, b'o'][..], &[0; 4], &[0xff; 32]].concat();
            pump(&mut link, stop, true, |link, bytes| link.seal(0x10, &open, bytes)).await?;
        }
        Kind::Deaf => {
            link.open("deaf").await?;
            let update = [&9_999u32.to_le_bytes()[..], &0f32.to_le_bytes(), &[0xff; 32]].concat();
            pump(&mut link, stop, false, |link, bytes| link.seal(0x16, &update, bytes)).await?;
        }
        Kind::Vanishing => {
            let channel = link.open("vanishing").await?;
            vanish(&mut link, &channel).await?;
        }
        Kind::SlowHandshake | Kind::Garbage => {}
    }
    Ok(())
}

/// Sends without end what `seal` makes; reads what comes, or nothing.
async fn pump(
    link: &mut Link,
    stop: &AtomicBool,
    listen: bool,
    mut seal: impl FnMut(&mut Link, &mut Vec<u8>) -> Result<()>,
) -> Result<()> {
    let (mut bytes, mut chunk) = (Vec::new(), vec![0; 16 << 10]);
    while !stop.load(Ordering::Relaxed) {
        bytes.clear();
        for _ in 0..64 {
            seal(link, &mut bytes)?;
        }
        let mut sent = 0;
        while sent < bytes.len() {
            let (mut reader, mut writer) = link.stream.split();
            tokio::select! {
                written = writer.write(&bytes[sent..]) => sent += written?,
                read = reader.read(&mut chunk), if listen => {
                    if read? == 0 {
                        return Ok(());
                    }
                }
            }
        }
    }
    Ok(())
}

async fn vanish(link: &mut Link, channel: &Channel) -> Result<()> {
    let (mut bytes, mut nonce) = (Vec::new(), 0);
    for number in 0..50 {
        nonce = channel.share(nonce) + 1;
        link.seal(0x1a, &channel.submit(number, nonce - 1), &mut bytes)?;
    }
    let half = bytes.len() - 20;
    link.stream.write_all(&bytes[..half]).await?;
    Ok(())
}
