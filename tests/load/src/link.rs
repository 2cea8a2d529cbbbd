//! One connection to a pool, as cheap as it gets.

use anyhow::{Context, Result, bail, ensure};
use bitcoin::{
    BlockHash, CompactTarget, Target, TxMerkleNode,
    block::{Header as BlockHeader, Version},
    hashes::Hash,
};
use reservegrid::{
    noise::{ACT2_LEN, Initiator, Sealer},
    sv2::{Frame, FrameDecoder, Header, Side},
};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

/// Longest time that a pool may take for anything.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// SetupConnection: only standard jobs.
pub const STANDARD_JOBS: u32 = 0b001;
/// SetupConnection: rolls version bits.
pub const VERSION_ROLLING: u32 = 0b100;

/// A connection after its handshake.
pub struct Link {
    /// The socket.
    pub stream: TcpStream,
    /// Seals what is sent.
    pub sealer: Sealer,
    /// Opens what comes.
    pub decoder: FrameDecoder,
}

/// An open standard channel and its job.
#[derive(Clone, Copy, Debug)]
pub struct Channel {
    /// Its id.
    pub id: u32,
    /// The newest job.
    pub job_id: u32,
    /// Its target.
    pub target: Target,
    /// The header of the job with nonce 0.
    pub header: BlockHeader,
}

impl Link {
    /// Connects and shakes hands; nobody's key is checked, as little as a load generator needs it.
    ///
    /// On the loopback interface the connection comes from the `nth` of some addresses, so that ports last.
    ///
    /// # Errors
    /// When the pool does not answer.
    pub async fn connect(pool: SocketAddr, nth: usize) -> Result<Self> {
        Self::over(socket(pool, nth, None).await?).await
    }

    /// The handshake over a socket.
    ///
    /// # Errors
    /// When the pool does not answer.
    pub async fn over(mut stream: TcpStream) -> Result<Self> {
        let (initiator, act1) = Initiator::start(None)?;
        stream.write_all(&act1).await?;
        let mut act2 = [0; ACT2_LEN];
        timeout(PATIENCE, stream.read_exact(&mut act2)).await.context("no answer to the handshake")??;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let (sealer, opener) = initiator.finish(&act2, now as u32)?.split();
        let mut decoder = FrameDecoder::new(opener, Side::Server);
        decoder.set_up();
        Ok(Self { stream, sealer, decoder })
    }

    /// The same connection in the runtime that this is called in.
    ///
    /// # Errors
    /// When the socket cannot be registered.
    pub fn moved(self) -> Result<Self> {
        let stream = TcpStream::from_std(self.stream.into_std()?)?;
        Ok(Self { stream, ..self })
    }

    /// SetupConnection and its answer.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn setup(&mut self, flags: u32) -> Result<()> {
        let mut payload = vec![0, 2, 0, 2, 0];
        payload.extend(flags.to_le_bytes());
        payload.extend(text("load"));
        payload.extend(0u16.to_le_bytes());
        ["load", "", "", ""].iter().for_each(|part| payload.extend(text(part)));
        self.send(0x00, &payload).await?;
        let answer = self.next().await?;
        ensure!(answer.header.msg_type == 0x01, "SetupConnection was answered with {answer:?}");
        Ok(())
    }

    /// Opens a standard channel that takes any target, and waits for its first job.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn open(&mut self, user: &str) -> Result<Channel> {
        let mut payload = vec![7, 0, 0, 0];
        payload.extend(text(user));
        payload.extend(0f32.to_le_bytes());
        payload.extend([0xff; 32]);
        self.send(0x10, &payload).await?;
        let success = self.next_of(0x11).await?;
        let mut channel = Channel {
            id: word(&success, 4)?,
            job_id: 0,
            target: Target::from_le_bytes(bytes(&success, 8)?),
            header: BlockHeader {
                version: Version::ONE,
                prev_blockhash: BlockHash::all_zeros(),
                merkle_root: TxMerkleNode::all_zeros(),
                time: 0,
                bits: CompactTarget::default(),
                nonce: 0,
            },
        };
        channel.take_job(&self.next_of(0x15).await?)?;
        channel.take_tip(&self.next_of(0x20).await?)?;
        Ok(channel)
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn send(&mut self, msg_type: u8, payload: &[u8]) -> Result<()> {
        let mut bytes = Vec::new();
        self.seal(msg_type, payload, &mut bytes)?;
        Ok(self.stream.write_all(&bytes).await?)
    }

    /// Appends a sealed frame to `out`.
    ///
    /// # Errors
    /// When the key is used up.
    pub fn seal(&mut self, msg_type: u8, payload: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let channel_msg = !matches!(msg_type, 0x00 | 0x10 | 0x13);
        let header = Header { extension: 0, channel_msg, msg_type, length: payload.len() };
        Ok(self.sealer.seal_frame(&header.to_bytes(), payload, out)?)
    }

    /// The next frame of this type; others are skipped.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn next_of(&mut self, msg_type: u8) -> Result<Frame> {
        loop {
            let frame = self.next().await?;
            match frame.header.msg_type {
                found if found == msg_type => return Ok(frame),
                0x12 => {
                    bail!("the pool opens no channel: {:?}", String::from_utf8_lossy(&frame.payload[4..]))
                }
                _ => {}
            }
        }
    }

    /// The type of the next frame, however long it takes.
    ///
    /// # Errors
    /// When the pool hangs up.
    pub async fn listen(&mut self) -> Result<u8> {
        let mut chunk = [0; 2_048];
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                return Ok(frame.header.msg_type);
            }
            let length = self.stream.read(&mut chunk).await?;
            ensure!(length > 0, "the pool hung up");
            self.decoder.push(&chunk[..length]);
        }
    }

    /// The next frame.
    ///
    /// # Errors
    /// When none comes in time, or the pool hangs up.
    pub async fn next(&mut self) -> Result<Frame> {
        let mut chunk = [0; 4_096];
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                return Ok(frame);
            }
            let read = timeout(PATIENCE, self.stream.read(&mut chunk)).await;
            let length = read.context("waited in vain for the pool")??;
            ensure!(length > 0, "the pool hung up");
            self.decoder.push(&chunk[..length]);
        }
    }
}

/// A connection without a handshake, which holds at most so many bytes that the pool does not read.
///
/// # Errors
/// When the pool cannot be reached.
pub async fn socket(pool: SocketAddr, nth: usize, unsent: Option<u32>) -> Result<TcpStream> {
    let socket = if pool.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    unsent.map_or(Ok(()), |unsent| socket.set_send_buffer_size(unsent))?;
    if pool.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) {
        // A few hundred connections of each address: 127.0.0.2, 127.0.0.3 and so on.
        let from = Ipv4Addr::new(127, 0, 0, 2 + (nth / 500 % 200) as u8);
        socket.bind((from, 0).into())?;
    }
    let connected = timeout(PATIENCE, socket.connect(pool)).await;
    let stream = connected.context("no connection")?.with_context(|| format!("cannot reach {pool}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Channel {
    /// Takes over NewMiningJob.
    ///
    /// # Errors
    /// When it is too short.
    pub fn take_job(&mut self, job: &Frame) -> Result<()> {
        self.job_id = word(job, 4)?;
        let option = if job.payload.get(8) == Some(&1) { 5 } else { 1 };
        if option == 5 {
            self.header.time = word(job, 9)?;
        }
        self.header.version = Version::from_consensus(word(job, 8 + option)?.cast_signed());
        self.header.merkle_root = TxMerkleNode::from_byte_array(bytes(job, 12 + option)?);
        Ok(())
    }

    /// Takes over SetNewPrevHash.
    ///
    /// # Errors
    /// When it is too short.
    pub fn take_tip(&mut self, tip: &Frame) -> Result<()> {
        self.header.prev_blockhash = BlockHash::from_byte_array(bytes(tip, 8)?);
        self.header.time = word(tip, 40)?;
        self.header.bits = CompactTarget::from_consensus(word(tip, 44)?);
        Ok(())
    }

    /// The next nonce from `nonce` on whose hash meets the channel's target and solves no block.
    pub fn share(&self, nonce: u32) -> u32 {
        let network = Target::from_compact(self.header.bits);
        self.find(nonce, |hash| self.target.is_met_by(hash) && !network.is_met_by(hash))
    }

    /// A nonce that solves the block.
    pub fn solution(&self) -> u32 {
        let network = Target::from_compact(self.header.bits);
        self.find(0, |hash| network.is_met_by(hash))
    }

    fn find(&self, nonce: u32, wanted: impl Fn(BlockHash) -> bool) -> u32 {
        let mut header = self.header;
        header.nonce = nonce;
        while !wanted(header.block_hash()) {
            header.nonce = header.nonce.wrapping_add(1);
        }
        header.nonce
    }

    /// SubmitSharesStandard; the share's number is `number`.
    pub fn submit(&self, number: u32, nonce: u32) -> [u8; 24] {
        let version = self.header.version.to_consensus().cast_unsigned();
        let fields = [self.id, number, self.job_id, nonce, self.header.time, version];
        let mut payload = [0; 24];
        for (at, field) in payload.chunks_mut(4).zip(fields) {
            at.copy_from_slice(&field.to_le_bytes());
        }
        payload
    }
}

/// STR0_255.
fn text(text: &str) -> Vec<u8> {
    [&[text.len() as u8], text.as_bytes()].concat()
}

/// A U32 of a payload.
///
/// # Errors
/// When the payload is too short.
pub fn word(frame: &Frame, at: usize) -> Result<u32> {
    Ok(u32::from_le_bytes(bytes(frame, at)?))
}

fn bytes<const N: usize>(frame: &Frame, at: usize) -> Result<[u8; N]> {
    let bytes = frame.payload.get(at..at + N).with_context(|| format!("a short message: {frame:?}"))?;
    Ok(bytes.try_into()?)
}
