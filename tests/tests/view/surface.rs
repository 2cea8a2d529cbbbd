//! The HTTP surface against peers that hold places, say nothing, say nonsense, or do not read.

use super::stream::Stream;
use anyhow::{Context, Result, ensure};
use reqwest::Client as Http;
use reservegrid_tests::{
    client::{Client, gateway_for_clients},
    gateway::{DEADLINE, Gateway},
    wait,
};
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

/// What the surface serves at once, and of that one address of this machine.
const PLACES: usize = 64;
const OF_ONE: usize = 40;
/// Events of shares that no pair of sockets here holds; more than the gateway has in memory.
const SHARES: u32 = 10_000;

async fn connect(api: &str, from: &str, receive: Option<u32>) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(format!("{from}:0").parse()?)?;
    if let Some(bytes) = receive {
        socket.set_recv_buffer_size(bytes)?;
    }
    let address: SocketAddr = api.strip_prefix("http://").context("an address")?.parse()?;
    Ok(socket.connect(address).await?)
}

/// Everything until the end of the connection, however it ends.
async fn rest(stream: &mut TcpStream) -> Result<String> {
    let mut bytes = Vec::new();
    // A reset after the last byte is an end as well.
    let _ = timeout(DEADLINE, stream.read_to_end(&mut bytes)).await.context("no end")?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

async fn counted(api: &str, line: &str) -> Result<Option<u64>> {
    let text = Http::new().get(format!("{api}/metrics")).send().await?.text().await?;
    let value = text.lines().find_map(|found| found.strip_prefix(line));
    Ok(value.map(|value| value.trim().parse()).transpose()?)
}

async fn wait_for_count(api: &str, line: &str, count: u64) -> Result<()> {
    wait::until(line, DEADLINE, async || {
        // Not so often that the surface has enough of this address.
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok((counted(api, line).await? == Some(count)).then_some(()))
    })
    .await
}

async fn surface() -> Result<(impl Sized, Gateway)> {
    gateway_for_clients(|config| {
        config.set("api", "listen", "127.0.0.1:0").set("miners", "max_shares_per_second", 1_000_000).set(
            "miners",
            "max_channels_per_connection",
            8,
        )
    })
    .await
}

#[tokio::test]
async fn silent_connections_of_one_address_leave_places_for_others_and_end_by_themselves() -> Result<()> {
    let (_backend, gateway) = surface().await?;
    let api = gateway.api()?.to_owned();
    let mut silent = Vec::new();
    for _ in 0..PLACES {
        silent.push(connect(&api, "127.0.0.2", None).await?);
    }
    let turned_away = "reservegrid_http_refused_total{code=\"api_capacity_reached\"}";
    wait_for_count(&api, turned_away, (PLACES - OF_ONE) as u64).await?;
    // Those inside are given up for want of a head; the others were told why.
    let mut told = 0;
    for stream in &mut silent {
        told += usize::from(rest(stream).await?.contains("api_capacity_reached"));
    }
    ensure!(told == PLACES - OF_ONE, "{told} were told");
    wait_for_count(&api, "reservegrid_http_refused_total{code=\"api_timeout\"}", OF_ONE as u64).await?;

    let mut nonsense = connect(&api, "127.0.0.2", None).await?;
    nonsense.write_all(b"\x16\x03\x01 this is no HTTP\r\n\r\n").await?;
    let answer = rest(&mut nonsense).await?;
    ensure!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    wait_for_count(&api, "reservegrid_http_refused_total{code=\"api_request_invalid\"}", 1).await
}

#[tokio::test]
async fn a_reader_of_events_that_does_not_read_is_cut_off_with_a_reason_and_goes_on_by_id() -> Result<()> {
    let (_backend, mut gateway) = surface().await?;
    let api = gateway.api()?.to_owned();
    let mut slow = connect(&api, "127.0.0.1", Some(4_096)).await?;
    slow.write_all(b"GET /v1/events?after=start HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").await?;
    let mut miner = Client::connect(&gateway).await?;
    miner.setup(0).await?;
    let channel = miner.open_standard("alice").await?;
    // Shares are events. Some megabytes of them fill what the sockets hold, and then nothing moves any more.
    let cut = "reservegrid_event_readers_cut_total{code=\"event_reader_too_slow\"}";
    let mut share = channel.good_share(0)?;
    for _ in 0..SHARES / 100 {
        let mut number = 0;
        for _ in 0..100 {
            number = miner.send_share(channel.id, &share).await?;
            share = channel.good_share(share.nonce.wrapping_add(1))?;
        }
        ensure!(miner.answer(channel.id, number).await?.is_accepted());
    }
    wait_for_count(&api, cut, 1).await?;
    let log = gateway.process().stderr();
    ensure!(log.contains("event_reader_too_slow") && log.contains("127.0.0.1"), "{log}");
    // What had left before is read to its end; the last whole event has the id to go on from.
    let read = rest(&mut slow).await?;
    let whole = read.rsplit_once("\n\n").context("a whole event")?.0;
    let id = whole.lines().rev().find_map(|line| line.strip_prefix("id: ")).context("an id")?;
    let number = |id: &str| -> Result<u64> { Ok(id.rsplit_once('-').context("a number")?.1.parse()?) };
    let mut again = Stream::open(&api, "", Some(id)).await?;
    let mut next = again.next().await?;
    if next.event == "gap" {
        ensure!(next.data["reason_code"] == "event_gap", "{next:?}");
        next = again.next().await?;
        ensure!(number(&next.id)? > number(id)?, "{next:?} after {id}");
    } else {
        ensure!(number(&next.id)? == number(id)? + 1, "{next:?} after {id}");
    }
    Ok(())
}
