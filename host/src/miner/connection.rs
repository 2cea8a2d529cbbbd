//! One connection: the handshake, then a loop over socket, work, acknowledgements and deadlines.

use super::{
    Shared, Work, begun,
    outbox::{Close, Outbox},
    session::Session,
};
use crate::{
    ledger::Ack,
    noise::{self, ACT1_LEN, Transport},
    reason::Reason,
    sv2::{FrameDecoder, Side},
};
use std::{future::Future, io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    time::{Instant, timeout, timeout_at},
};

/// Shares of one connection that the ledger may still have to answer; reading stops there.
const MAX_IN_FLIGHT: usize = 256;
/// Longest time for what is sent to leave; a peer that reads more slowly is dropped.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time for the last words to leave.
const FAREWELL: Duration = Duration::from_secs(1);
/// Bytes read at once.
const READ_LEN: usize = 16 << 10;

/// Serves a connection to its end and says why it ended.
pub(super) async fn serve(
    stream: TcpStream,
    number: u64,
    shared: Arc<Shared>,
    shutdown: watch::Receiver<bool>,
) -> Close {
    // Without it the last segment of every burst waits for the peer's delayed ACK.
    let _ = stream.set_nodelay(true);
    let (reader, writer) = stream.into_split();
    match Connection::start(reader, writer, number, shared, shutdown).await {
        Ok(mut connection) => {
            let close = connection.run().await;
            // What was said last (a refusal, CloseChannel) should arrive, but nobody waits for it long.
            let farewell = async {
                let _ = connection.flush().await;
                let _ = connection.writer.shutdown().await;
            };
            let _ = timeout(FAREWELL, farewell).await;
            close
        }
        Err(close) => close,
    }
}

struct Connection {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    decoder: FrameDecoder,
    outbox: Outbox,
    session: Session,
    acks: mpsc::Receiver<Ack>,
    work: watch::Receiver<Work>,
    shutdown: watch::Receiver<bool>,
    shared: Arc<Shared>,
    chunk: Box<[u8]>,
    last_read: Instant,
    /// When a peer without a channel has had its time; starts anew when its last channel closes.
    setup_deadline: Instant,
}

impl Connection {
    async fn start(
        mut reader: OwnedReadHalf,
        mut writer: OwnedWriteHalf,
        number: u64,
        shared: Arc<Shared>,
        mut shutdown: watch::Receiver<bool>,
    ) -> Result<Self, Close> {
        let transport = tokio::select! {
            biased;
            () = begun(&mut shutdown) => return Err(Close::new(Reason::ShutdownDrain, "")),
            transport = handshake(&mut reader, &mut writer, &shared) => transport?,
        };
        let (sealer, opener) = transport.split();
        let (ack_sender, acks) = mpsc::channel(MAX_IN_FLIGHT);
        let mut work = shared.work.clone();
        let current = work.borrow_and_update().clone();
        if let Some(reason) = current.closed {
            // It was let in while there was still work for it.
            return Err(Close::new(reason, ""));
        }
        Ok(Self {
            reader,
            writer,
            decoder: FrameDecoder::new(opener, Side::Client),
            outbox: Outbox::new(sealer),
            session: Session::new(number, shared.clone(), ack_sender, current),
            acks,
            work,
            shutdown,
            chunk: vec![0; READ_LEN].into_boxed_slice(),
            last_read: Instant::now(),
            setup_deadline: Instant::now() + shared.limits.setup_timeout,
            shared,
        })
    }

    async fn run(&mut self) -> Close {
        loop {
            if let Err(close) = self.step().await {
                return close;
            }
        }
    }

    async fn step(&mut self) -> Result<(), Close> {
        let limits = self.shared.limits;
        let (deadline, late) = if self.session.has_channels() {
            self.setup_deadline = Instant::now() + limits.setup_timeout;
            (self.last_read + limits.idle_timeout, Reason::IdleTimeout)
        } else {
            (self.setup_deadline, Reason::SetupTimeout)
        };
        tokio::select! {
            biased;
            () = begun(&mut self.shutdown) => return Err(self.drain().await),
            changed = self.work.changed() => {
                if changed.is_err() {
                    // The flow ends a moment after the shutdown is told; between the two looks above
                    // both may have happened. It is the same goodbye.
                    return Err(self.drain().await);
                }
                let work = self.work.borrow_and_update().clone();
                self.session.on_work(work, &mut self.outbox)?;
            }
            Some(ack) = self.acks.recv() => self.session.on_ack(ack, &mut self.outbox)?,
            read = self.reader.read(&mut self.chunk), if self.session.in_flight() < MAX_IN_FLIGHT => {
                let length = read.map_err(|error| Close::new(Reason::ConnectionClosed, error.to_string()))?;
                if length == 0 {
                    return Err(Close::new(Reason::ConnectionClosed, ""));
                }
                self.last_read = Instant::now();
                self.decoder.push(&self.chunk[..length]);
            }
            () = tokio::time::sleep_until(deadline) => return Err(Close::new(late, "")),
        }
        // After every event: an acknowledgement, too, makes room for frames that were read before.
        self.frames()?;
        self.flush().await
    }

    fn frames(&mut self) -> Result<(), Close> {
        while self.session.in_flight() < MAX_IN_FLIGHT {
            let frame =
                self.decoder.next_frame().map_err(|error| Close::new(error.reason(), error.to_string()))?;
            match frame {
                Some(frame) => self.session.on_frame(frame, &mut self.outbox)?,
                None => break,
            }
        }
        Ok(())
    }

    /// Shutting down: nothing more is read, open acknowledgements are delivered, channels are closed.
    async fn drain(&mut self) -> Close {
        let reason = Reason::ShutdownDrain;
        while self.session.in_flight() > 0 {
            let Some(ack) = self.acks.recv().await else { break };
            if let Err(close) = self.session.on_ack(ack, &mut self.outbox) {
                return close;
            }
        }
        self.session.close_channels(reason, &mut self.outbox).err().unwrap_or_else(|| Close::new(reason, ""))
    }

    async fn flush(&mut self) -> Result<(), Close> {
        if self.outbox.bytes.is_empty() {
            return Ok(());
        }
        let write = self.writer.write_all(&self.outbox.bytes);
        tokio::pin!(write);
        let written = tokio::select! {
            biased;
            written = timeout(WRITE_TIMEOUT, &mut write) => written,
            // A peer that does not read must not hold up the end of the gateway.
            () = begun(&mut self.shutdown) => timeout(FAREWELL, write).await,
        };
        self.outbox.bytes.clear();
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Close::new(Reason::ConnectionClosed, error.to_string())),
            Err(_) => Err(Close::new(Reason::OutboundQueueFull, "")),
        }
    }
}

async fn handshake(
    reader: &mut OwnedReadHalf,
    writer: &mut OwnedWriteHalf,
    shared: &Shared,
) -> Result<Transport, Close> {
    let deadline = Instant::now() + shared.limits.handshake_timeout;
    let mut act1 = [0; ACT1_LEN];
    by(deadline, reader.read_exact(&mut act1)).await?;
    let (act2, transport) = noise::respond(&shared.identities.current(), &act1)
        .map_err(|error| Close::new(Reason::NoiseHandshakeFailed, error.to_string()))?;
    by(deadline, writer.write_all(&act2)).await?;
    Ok(transport)
}

async fn by<T>(deadline: Instant, action: impl Future<Output = io::Result<T>>) -> Result<T, Close> {
    match timeout_at(deadline, action).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Close::new(Reason::NoiseHandshakeFailed, error.to_string())),
        Err(_) => Err(Close::new(Reason::NoiseHandshakeTimeout, "")),
    }
}
