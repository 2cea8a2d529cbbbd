//! One connection: the handshake, then a loop over socket, work, acknowledgements and deadlines.

use super::{
    Shared, Work,
    admission::Pass,
    begun, hello,
    outbox::{Close, Outbox},
    round::Member,
    session::{Question, Session},
    view::Seat,
};
use crate::{
    ledger::Ack,
    noise::{self, ACT1_LEN, Transport},
    reason::Reason,
    sv2::{FrameDecoder, Side},
};
use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::yield_now,
    time::{Instant, Sleep, sleep_until, timeout, timeout_at},
};

/// Shares of one connection that the ledger may still have to answer; reading stops there.
const MAX_IN_FLIGHT: usize = 256;
/// Longest time for what is sent to leave; a peer that reads more slowly is dropped.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time for the last words to leave.
const FAREWELL: Duration = Duration::from_secs(1);
/// Bytes read at once.
const READ_LEN: usize = 32 << 10;
/// Frames handled before others have their turn.
const TURN: usize = 32;
/// Bytes that are written before the frames of a burst have all had their turn.
const BURST: usize = 16 << 10;
/// How long a peer that is refused too often is not read.
const PAUSE: Duration = Duration::from_secs(1);

thread_local! {
    /// What was just read. One for each thread rather than each connection: most of them are silent.
    static CHUNK: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_LEN].into_boxed_slice());
}

/// Serves a connection to its end and says why it ended.
pub(super) async fn serve(
    stream: TcpStream,
    number: u64,
    shared: Arc<Shared>,
    shutdown: watch::Receiver<bool>,
    mut pass: Pass,
    seat: Seat,
) -> Close {
    // Without it the last segment of every burst waits for the peer's delayed ACK.
    let _ = stream.set_nodelay(true);
    let (reader, writer) = stream.into_split();
    match Connection::start(reader, writer, number, shared, shutdown, seat).await {
        Ok(mut connection) => {
            pass.shaken();
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

/// Whether a user may mine, with the ticket of the question.
type Answer = (u64, Result<(), Reason>);

struct Connection {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    decoder: FrameDecoder,
    outbox: Outbox,
    session: Session,
    acks: mpsc::Receiver<Ack>,
    acked: Vec<Ack>,
    answers: mpsc::Receiver<Answer>,
    answering: mpsc::Sender<Answer>,
    work: watch::Receiver<Work>,
    /// The round of the newest work that left.
    member: Member,
    shutdown: watch::Receiver<bool>,
    shared: Arc<Shared>,
    last_read: Instant,
    /// Whole frames may have been left for the next turn.
    more: bool,
    /// Nothing is read or handled before: the peer was refused too often.
    paused_until: Option<Instant>,
    /// When silent channels are looked at again.
    next_tick: Instant,
    /// When a peer without a channel has had its time; starts anew when its last channel closes.
    setup_deadline: Instant,
    /// Wakes at the next of these times, or earlier.
    timer: Pin<Box<Sleep>>,
}

impl Connection {
    async fn start(
        mut reader: OwnedReadHalf,
        mut writer: OwnedWriteHalf,
        number: u64,
        shared: Arc<Shared>,
        mut shutdown: watch::Receiver<bool>,
        seat: Seat,
    ) -> Result<Self, Close> {
        let transport = tokio::select! {
            biased;
            () = begun(&mut shutdown) => return Err(Close::new(Reason::ShutdownDrain, "")),
            transport = handshake(&mut reader, &mut writer, &shared) => transport?,
        };
        let (sealer, opener) = transport.split();
        let (ack_sender, acks) = mpsc::channel(MAX_IN_FLIGHT);
        let (answering, answers) = mpsc::channel(8);
        let now = Instant::now();
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
            member: Member::new(current.round.clone()),
            session: Session::new(number, shared.clone(), ack_sender, current, now.into_std(), seat),
            acks,
            acked: Vec::new(),
            answers,
            answering,
            work,
            shutdown,
            last_read: now,
            more: false,
            paused_until: None,
            next_tick: now + tick(&shared),
            setup_deadline: now + shared.limits().setup_timeout,
            timer: Box::pin(sleep_until(now + shared.limits().setup_timeout)),
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
        self.arm();
        let room = self.session.in_flight() < MAX_IN_FLIGHT && self.paused_until.is_none();
        let mut served = None;
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
                served = Some(work.round.clone());
                self.session.on_work(work, &mut self.outbox)?;
            }
            _ = self.acks.recv_many(&mut self.acked, MAX_IN_FLIGHT), if self.session.in_flight() > 0 => {
                self.session.on_acks(self.acked.drain(..), &mut self.outbox)?;
            }
            Some((ticket, answer)) = self.answers.recv(), if self.session.is_asking() => {
                self.session.on_answer(ticket, answer, std::time::Instant::now(), &mut self.outbox)?;
            }
            () = &mut self.timer => self.on_time()?,
            () = yield_now(), if self.more && room => {}
            read = poll_fn(|cx| read(&mut self.reader, &mut self.decoder, cx)), if room && !self.more => {
                let length = read.map_err(|error| Close::new(Reason::ConnectionClosed, error.to_string()))?;
                if length == 0 {
                    return Err(Close::new(Reason::ConnectionClosed, self.why_gone()));
                }
                self.last_read = Instant::now();
            }
        }
        // After every event: an acknowledgement, too, makes room for frames that were read before.
        self.frames()?;
        for Question { ticket, user } in self.session.questions() {
            let (users, answering) = (self.shared.tunables.users.load_full(), self.answering.clone());
            // Ends by its timeout; when the connection is gone by then, nobody hears the answer.
            tokio::spawn(async move { answering.send((ticket, users.ask(&user).await)).await });
        }
        // The rest of a burst is next, and its answers may go along.
        if !self.more || served.is_some() || self.outbox.bytes.len() >= BURST {
            self.flush().await?;
        }
        if let Some(round) = served {
            self.member.served(round);
        }
        Ok(())
    }

    /// When the connection has had its time, and why it ends then.
    fn deadline(&self) -> (Instant, Reason) {
        if self.session.has_channels() {
            (self.last_read + self.shared.limits().idle_timeout, Reason::IdleTimeout)
        } else {
            (self.setup_deadline, Reason::SetupTimeout)
        }
    }

    /// Sees to it that the timer wakes in time. It is only ever set to an earlier time: most deadlines move
    /// on with every read, and are looked at when they are reached.
    fn arm(&mut self) {
        if self.session.has_channels() {
            self.setup_deadline = Instant::now() + self.shared.limits().setup_timeout;
        }
        let wake = self.wake();
        if wake < self.timer.deadline() {
            self.timer.as_mut().reset(wake);
        }
    }

    fn wake(&self) -> Instant {
        let tick = self.session.has_channels().then_some(self.next_tick);
        [tick, self.paused_until].into_iter().flatten().fold(self.deadline().0, Instant::min)
    }

    /// The timer woke: perhaps it is time for something.
    fn on_time(&mut self) -> Result<(), Close> {
        let now = Instant::now();
        if self.paused_until.is_some_and(|until| now >= until) {
            // A peer that is not read cannot be blamed for its silence.
            (self.paused_until, self.last_read) = (None, now);
        }
        let (deadline, late) = self.deadline();
        if now >= deadline {
            return Err(Close::new(late, ""));
        }
        if self.session.has_channels() && now >= self.next_tick {
            self.next_tick = now + tick(&self.shared);
            self.session.on_tick(now.into_std(), &mut self.outbox)?;
        }
        let wake = self.wake();
        self.timer.as_mut().reset(wake);
        Ok(())
    }

    /// What people should know about a peer that hung up.
    fn why_gone(&self) -> &'static str {
        if self.session.is_set_up() {
            ""
        } else {
            "the peer left right after the handshake: it probably expects another authority key"
        }
    }

    fn frames(&mut self) -> Result<(), Close> {
        let now = Instant::now();
        self.more = false;
        let mut turn = 0;
        while self.session.in_flight() < MAX_IN_FLIGHT && self.paused_until.is_none() {
            if turn == TURN {
                self.more = true;
                break;
            }
            turn += 1;
            let frame =
                self.decoder.next_frame().map_err(|error| Close::new(error.reason(), error.to_string()))?;
            let Some(mut frame) = frame else { break };
            self.session.on_frame(&mut frame, now.into_std(), &mut self.outbox)?;
            self.decoder.reuse(frame);
            if self.session.is_set_up() {
                self.decoder.set_up();
            }
            if self.session.is_tiresome() {
                self.paused_until = Some(now + PAUSE);
            }
        }
        Ok(())
    }

    /// Shutting down: nothing more is read, open acknowledgements are delivered, channels are closed.
    async fn drain(&mut self) -> Close {
        let reason = Reason::ShutdownDrain;
        while self.session.in_flight() > 0 {
            let Some(ack) = self.acks.recv().await else { break };
            if let Err(close) = self.session.on_acks([ack], &mut self.outbox) {
                return close;
            }
        }
        self.session.farewell(reason, &mut self.outbox).err().unwrap_or_else(|| Close::new(reason, ""))
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
        self.outbox.sent();
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
    let deadline = Instant::now() + shared.limits().handshake_timeout;
    let mut act1 = [0; ACT1_LEN];
    let mut length = 0;
    while length < ACT1_LEN {
        let read = by(deadline, reader.read(&mut act1[length..])).await?;
        if read == 0 {
            let detail = format!("the peer left after {length} of {ACT1_LEN} bytes of its first message");
            return Err(Close::new(Reason::NoiseHandshakeFailed, detail));
        }
        length += read;
        if let Some(foreign) = hello::foreign(&act1[..length]) {
            return Err(Close::new(Reason::NoiseHandshakeFailed, foreign));
        }
    }
    let (act2, transport) =
        noise::respond(&shared.identities.current(shared.limits().certificate_validity), &act1)
            .map_err(|error| Close::new(Reason::NoiseHandshakeFailed, error.to_string()))?;
    by(deadline, writer.write_all(&act2)).await?;
    Ok(transport)
}

/// Reads what has come and hands it to the decoder; gives how many bytes that were.
fn read(
    reader: &mut OwnedReadHalf,
    decoder: &mut FrameDecoder,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    CHUNK.with_borrow_mut(|chunk| {
        let mut chunk = ReadBuf::new(chunk);
        ready!(Pin::new(reader).poll_read(cx, &mut chunk))?;
        decoder.push(chunk.filled());
        Poll::Ready(Ok(chunk.filled().len()))
    })
}

/// How often silent channels are looked at: about as often as three shares should come.
fn tick(shared: &Shared) -> Duration {
    Duration::from_secs_f64((180.0 / shared.limits().terms.shares_per_minute).clamp(1.0, 60.0))
}

async fn by<T>(deadline: Instant, action: impl Future<Output = io::Result<T>>) -> Result<T, Close> {
    match timeout_at(deadline, action).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Close::new(Reason::NoiseHandshakeFailed, error.to_string())),
        Err(_) => Err(Close::new(Reason::NoiseHandshakeTimeout, "")),
    }
}
