//! Connections that the gateway, or its CPU miner, opens to a Stratum V2 server: Noise as initiator,
//! SetupConnection, then frames in both directions.
//!
//! The server may be a gateway (the CPU miner) or a Template Provider (a source of templates); what is said
//! after setup is theirs to know. Every wait has the patience of the caller, and an error says what was
//! waited for, so that it can be shown as it is.

use crate::{
    event::unix_seconds,
    noise::{ACT2_LEN, AuthorityPublicKey, HandshakeError, Initiator, Sealer},
    sv2::{self, DecodeError, EncodeError, Frame, FrameDecoder, Side, setup},
};
use binary_sv2::{Encodable, GetSize};
use common_messages_sv2::{Protocol, SetupConnection};
use parsers_sv2::{CommonMessages, IsSv2Message};
use std::{fmt::Display, io, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Bytes read at once: a chunk of a long message.
const READ: usize = 64 << 10;
/// Characters of a server's words that are repeated.
const MAX_WORDS: usize = 80;

/// Why there is no connection, or none any more.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Nobody answers there.
    #[error("cannot reach {address}: {error}")]
    Unreachable {
        /// Where.
        address: String,
        /// What the system says.
        error: io::Error,
    },
    /// Something did not come in time.
    #[error("no {what} within {} ms", patience.as_millis())]
    Late {
        /// What was awaited.
        what: &'static str,
        /// For how long.
        patience: Duration,
    },
    /// The server is not whom it should be, or speaks another protocol.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The server refuses the connection; its error code, printable.
    #[error("the server refuses the connection: {0}")]
    Refused(String),
    /// What it sends cannot be read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// It answers setup with something else.
    #[error("the answer to SetupConnection is none: {0}")]
    NoAnswer(String),
    /// It closed the connection.
    #[error("the server closed the connection{}", if *.midway { " in the middle of a message" } else { "" })]
    Closed {
        /// A message was not complete.
        midway: bool,
    },
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    /// A message of ours cannot be sent.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// What a client says about itself at setup.
#[derive(Clone, Copy, Debug)]
pub struct Introduction<'a> {
    /// The protocol it wants to speak.
    pub protocol: Protocol,
    /// The features it needs (SV2 specification, SetupConnection flags).
    pub flags: u32,
    /// Where it connects to, `host:port`.
    pub endpoint: &'a str,
    /// What kind of device it is.
    pub device: &'a str,
}

/// An open connection.
pub struct Link {
    stream: TcpStream,
    sealer: Sealer,
    decoder: FrameDecoder,
    chunk: Vec<u8>,
}

impl Link {
    /// Connects and does the handshake. Without an authority key the connection leads to whoever answers.
    ///
    /// # Errors
    /// See [`DialError`]; each wait lasts at most `patience`.
    pub async fn connect(
        address: &str,
        authority: Option<AuthorityPublicKey>,
        server: Side,
        patience: Duration,
    ) -> Result<Self, DialError> {
        let mut stream = within("connection", patience, TcpStream::connect(address))
            .await?
            .map_err(|error| DialError::Unreachable { address: address.to_owned(), error })?;
        stream.set_nodelay(true)?;
        let (initiator, act1) = Initiator::start(authority)?;
        within("room for the handshake", patience, stream.write_all(&act1)).await??;
        let mut act2 = [0; ACT2_LEN];
        within("answer to the handshake", patience, stream.read_exact(&mut act2)).await??;
        let (sealer, opener) = initiator.finish(&act2, unix_seconds())?.split();
        Ok(Self { stream, sealer, decoder: FrameDecoder::new(opener, server), chunk: vec![0; READ] })
    }

    /// SetupConnection and its answer.
    ///
    /// # Errors
    /// See [`DialError`].
    pub async fn setup(&mut self, who: Introduction<'_>, patience: Duration) -> Result<(), DialError> {
        let (host, port) = who.endpoint.rsplit_once(':').unwrap_or((who.endpoint, "0"));
        let message = SetupConnection {
            protocol: who.protocol,
            min_version: setup::VERSION,
            max_version: setup::VERSION,
            flags: who.flags,
            endpoint_host: text(host)?,
            endpoint_port: port.parse().unwrap_or(0),
            vendor: text("ReserveGrid")?,
            hardware_version: text(who.device)?,
            firmware: text(env!("CARGO_PKG_VERSION"))?,
            device_id: text("")?,
        };
        self.send(CommonMessages::SetupConnection(message), patience).await?;
        let mut frame = within("answer to SetupConnection", patience, self.next_frame()).await??;
        let answer = CommonMessages::try_from((frame.header.msg_type, &mut frame.payload[..]));
        match answer.map_err(|error| DialError::NoAnswer(words(format!("{error:?}"))))? {
            CommonMessages::SetupConnectionSuccess(success) if success.used_version == setup::VERSION => {
                self.decoder.set_up();
                Ok(())
            }
            CommonMessages::SetupConnectionError(error) => {
                Err(DialError::Refused(words(error.error_code.as_utf8_or_hex())))
            }
            other => Err(DialError::NoAnswer(words(other))),
        }
    }

    /// Sends a message.
    ///
    /// # Errors
    /// When it cannot be encoded, or did not leave in time; the connection is of no use then.
    pub async fn send<M>(&mut self, message: M, patience: Duration) -> Result<(), DialError>
    where
        M: IsSv2Message + Encodable + GetSize,
    {
        let mut bytes = Vec::new();
        sv2::encode(&mut self.sealer, message, &mut bytes)?;
        Ok(within("room for a message", patience, self.stream.write_all(&bytes)).await??)
    }

    /// The next frame. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// When there will be none any more.
    pub async fn next_frame(&mut self) -> Result<Frame, DialError> {
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                return Ok(frame);
            }
            let length = self.stream.read(&mut self.chunk).await?;
            if length == 0 {
                return Err(DialError::Closed { midway: self.decoder.is_midway() });
            }
            self.decoder.push(&self.chunk[..length]);
        }
    }
}

/// What a server said, short and printable, to be repeated in an error.
pub fn words(said: impl Display) -> String {
    said.to_string().chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(MAX_WORDS).collect()
}

fn text(text: &str) -> Result<binary_sv2::Str0255<'_>, EncodeError> {
    text.try_into().map_err(|_| EncodeError(format!("{:?} is longer than 255 bytes", words(text))))
}

async fn within<T>(
    what: &'static str,
    patience: Duration,
    doing: impl Future<Output = T>,
) -> Result<T, DialError> {
    timeout(patience, doing).await.map_err(|_| DialError::Late { what, patience })
}
