//! Stands before a backend and spoils what goes through, byte by byte, as no HTTP library would.

use anyhow::Result;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// How the first connections are spoilt.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rude {
    /// The backend gets the request, its answer ends in the middle and the connection with it.
    CloseHalfWay,
    /// The backend gets the request, and its answer comes twice, one after the other.
    Twice,
    /// The backend gets the request, its answer never arrives.
    Slow,
}

/// A running proxy; it ends with this handle.
pub(crate) struct Proxy {
    address: SocketAddr,
    spoilt: Arc<AtomicU32>,
    server: JoinHandle<()>,
}

impl Proxy {
    /// Spoils the first `times` connections to the backend at this URL.
    pub(crate) async fn start(backend: &str, rude: Rude, times: u32) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let target = backend.trim_start_matches("http://").trim_end_matches("/shares").to_owned();
        let spoilt = Arc::new(AtomicU32::new(0));
        let count = spoilt.clone();
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let target = target.clone();
                let rude = (count.load(Ordering::Relaxed) < times).then_some(rude);
                if rude.is_some() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                tokio::spawn(async move { serve(stream, &target, rude).await });
            }
        });
        Ok(Self { address, spoilt, server })
    }

    /// Where shares are posted to.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/shares", self.address)
    }

    /// Connections that were spoilt.
    pub(crate) fn spoilt(&self) -> u32 {
        self.spoilt.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(mut miner: TcpStream, target: &str, rude: Option<Rude>) -> Result<()> {
    let mut backend = TcpStream::connect(target).await?;
    let Some(rude) = rude else {
        copy_bidirectional(&mut miner, &mut backend).await?;
        return Ok(());
    };
    let request = message(&mut miner).await?;
    backend.write_all(&request).await?;
    let answer = message(&mut backend).await?;
    match rude {
        Rude::CloseHalfWay => miner.write_all(&answer[..answer.len() - 20]).await?,
        Rude::Twice => miner.write_all(&[&answer[..], &answer].concat()).await?,
        // Until the other side has had enough.
        Rude::Slow => _ = miner.read(&mut [0; 1]).await?,
    }
    miner.shutdown().await?;
    Ok(())
}

/// One HTTP message with its body.
async fn message(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        if let Some(head) = text.find("\r\n\r\n") {
            let length = text.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
            if bytes.len() >= head + 4 + length.unwrap_or("0").trim().parse::<usize>()? {
                return Ok(bytes);
            }
        }
        anyhow::ensure!(stream.read_buf(&mut bytes).await? > 0, "the message ends early");
    }
}
