//! A TCP proxy that stops in the middle of an answer, as a machine does that runs out of something.

use anyhow::Result;
use std::sync::Arc;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// Bytes of an answer that still pass while it stalls: its head, and a little of its body.
const PASS: usize = 150;

/// The proxy; it ends with this handle.
#[derive(Debug)]
pub struct Stall {
    address: String,
    stalled: Arc<watch::Sender<bool>>,
    task: JoinHandle<()>,
}

impl Drop for Stall {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Stall {
    /// Starts a proxy to `upstream`, `host:port`. Everything passes.
    ///
    /// # Errors
    /// When there is no port for it.
    pub async fn start(upstream: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let stalled = Arc::new(watch::channel(false).0);
        let (upstream, switch) = (upstream.to_owned(), stalled.clone());
        let task = tokio::spawn(async move {
            while let Ok((down, _)) = listener.accept().await {
                tokio::spawn(pass(down, upstream.clone(), switch.subscribe()));
            }
        });
        Ok(Self { address, stalled, task })
    }

    /// Where it listens, `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// From now on each answer stops after a few bytes, and its connection stays open.
    pub fn stall(&self) {
        self.stalled.send_replace(true);
    }

    /// Answers on new connections pass again. What stopped has stopped for ever.
    pub fn mend(&self) {
        self.stalled.send_replace(false);
    }
}

/// One connection. It ends when one of the two sides does.
async fn pass(down: TcpStream, upstream: String, stalled: watch::Receiver<bool>) -> Result<()> {
    let up = TcpStream::connect(upstream).await?;
    let ((mut down_read, mut down_write), (mut up_read, mut up_write)) = (down.into_split(), up.into_split());
    let asked = tokio::spawn(async move { copy(&mut down_read, &mut up_write).await });
    let (mut buffer, mut left) = (vec![0; 16 << 10], PASS);
    loop {
        let length = up_read.read(&mut buffer).await?;
        let stop = *stalled.borrow();
        let passed = if stop { length.min(left) } else { length };
        down_write.write_all(&buffer[..passed]).await?;
        left = if stop { left - passed } else { PASS };
        if length == 0 || stop && left == 0 {
            break;
        }
    }
    // The end of the answer never comes; the connection is there until whoever asked has had enough.
    let _ = asked.await;
    drop(down_write);
    Ok(())
}
