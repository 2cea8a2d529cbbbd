//! The encrypted connection of a [`Client`]: handshake, frames, and the header of each.

use super::{Client, Message};
use crate::gateway::{DEADLINE, Gateway};
use anyhow::{Context, Result, anyhow, bail, ensure};
use codec_sv2::{Decrypted, EncodableFrame, Handshake, MessageFrame, NoiseDecoder, NoiseEncoder};
use noise_sv2::Initiator;
use parsers_sv2::{CommonMessages, IsSv2Message, Mining};
use std::{
    collections::{BTreeSet, VecDeque},
    io::ErrorKind,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// One decrypted frame, taken apart by its header and no further.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Extension, without the channel bit.
    pub extension: u16,
    /// The `channel_msg` bit.
    pub channel_bit: bool,
    /// Message type.
    pub msg_type: u8,
    /// Payload.
    pub payload: Vec<u8>,
}

impl Client {
    /// Connects and does the handshake; the certificate must be signed by the gateway's authority key.
    ///
    /// # Errors
    /// When the gateway does not take part in it.
    pub async fn connect(gateway: &Gateway) -> Result<Self> {
        let stream = TcpStream::connect(gateway.address()?).await?;
        Self::over(stream, gateway.authority_key()?).await
    }

    /// [`connect`](Self::connect) on a socket of the test's own making.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn over(mut stream: TcpStream, authority_key: &str) -> Result<Self> {
        stream.set_nodelay(true)?;
        let peer = stream.local_addr()?.to_string();
        let key = bitcoin::base58::decode_check(authority_key)?;
        let key: [u8; 32] = key.strip_prefix(&[1, 0]).context("not a public key")?.try_into()?;
        let initiator = Initiator::from_raw_k(key).map_err(|error| anyhow!("{error:?}"))?;
        let (act1, handshake) =
            Handshake::initiator(initiator).step_0().map_err(|error| anyhow!("{error:?}"))?;
        stream.write_all(act1.payload()).await?;
        let mut act2 = [0; noise_sv2::INITIATOR_EXPECTED_HANDSHAKE_MESSAGE_SIZE];
        let answer =
            timeout(DEADLINE, stream.read_exact(&mut act2)).await.context("no answer to the handshake")?;
        answer.context("the handshake was not answered")?;
        let transport = handshake.step_2(act2).map_err(|error| anyhow!("{error:?}"))?;
        let (sealing, opening) = transport.split();
        Ok(Self {
            stream,
            peer,
            encoder: NoiseEncoder::new(),
            sealing,
            decoder: NoiseDecoder::new(),
            opening: Some(opening),
            unread: Vec::new(),
            waiting: VecDeque::new(),
            seen: BTreeSet::new(),
            next_number: 1,
        })
    }

    /// Sends a message of the mining protocol.
    ///
    /// # Errors
    /// When it cannot be encoded or sent.
    pub async fn send(&mut self, message: Mining<'_>) -> Result<()> {
        let (msg_type, extension, bit) =
            (message.message_type(), message.extension_type(), message.channel_bit());
        let frame = MessageFrame::from_message(message, msg_type, extension, bit);
        let frame = frame.map_err(|error| anyhow!("{error:?}"))?;
        let bytes =
            self.encoder.encode_transport(frame, &mut self.sealing).map_err(|error| anyhow!("{error:?}"))?;
        self.send_bytes(&bytes).await
    }

    /// Sends a frame of any type and content.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub async fn send_raw_frame(
        &mut self,
        extension: u16,
        bit: bool,
        msg_type: u8,
        payload: &[u8],
    ) -> Result<()> {
        let bytes = self.seal(extension, bit, msg_type, payload.len(), payload)?;
        self.send_bytes(&bytes).await
    }

    /// Seals a frame without sending it; its header may announce a length that is not the payload's.
    ///
    /// # Errors
    /// When it cannot be sealed.
    pub fn seal(
        &mut self,
        extension: u16,
        bit: bool,
        msg_type: u8,
        announced: usize,
        payload: &[u8],
    ) -> Result<Vec<u8>> {
        let [e0, e1] = (extension | if bit { 0x8000 } else { 0 }).to_le_bytes();
        let [l0, l1, l2, ..] = announced.to_le_bytes();
        let frame = RawFrame([&[e0, e1, msg_type, l0, l1, l2], payload].concat());
        self.encoder.encode_transport(frame, &mut self.sealing).map_err(|error| anyhow!("{error:?}"))
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When they cannot be sent.
    pub async fn send_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes).await?)
    }

    /// The next frame; `None` when the gateway has closed the connection.
    ///
    /// # Errors
    /// When none comes in time, or one that is not authentic.
    pub async fn next_frame(&mut self) -> Result<Option<Frame>> {
        timeout(DEADLINE, self.read_frame()).await.context("waited in vain for a frame")?
    }

    async fn read_frame(&mut self) -> Result<Option<Frame>> {
        loop {
            let wanted = self.decoder.writable_len();
            if self.unread.len() < wanted {
                match self.stream.read_buf(&mut self.unread).await {
                    Ok(0) => return Ok(None),
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(None),
                    read => read?,
                };
                continue;
            }
            self.decoder.writable().copy_from_slice(&self.unread[..wanted]);
            self.unread.drain(..wanted);
            let opening = self.opening.take().context("a frame before this one was not authentic")?;
            match self.decoder.next_transport_frame(opening).map_err(|error| anyhow!("{error:?}"))? {
                Decrypted::Incomplete(_, opening) => self.opening = Some(opening),
                Decrypted::Frame(mut frame, opening) => {
                    self.opening = Some(opening);
                    let header = frame.header();
                    return Ok(Some(Frame {
                        extension: header.ext_type_without_channel_msg(),
                        channel_bit: header.channel_msg(),
                        msg_type: header.msg_type(),
                        payload: frame.payload().to_vec(),
                    }));
                }
            }
        }
    }
}

impl Frame {
    /// The message in it.
    ///
    /// # Errors
    /// When it does not decode or its `channel_msg` bit is wrong.
    pub fn decode(mut self) -> Result<Message> {
        let bit = channel_bit(self.msg_type).with_context(|| format!("no server sends {self:?}"))?;
        ensure!(self.extension == 0, "an extension that was not agreed: {self:?}");
        ensure!(self.channel_bit == bit, "the channel_msg bit should be {bit}: {self:?}");
        if let Ok(message) = CommonMessages::try_from((self.msg_type, &mut self.payload[..])) {
            return Ok(Message::Common(message.into_owned()));
        }
        match Mining::try_from((self.msg_type, &mut self.payload[..])) {
            Ok(message) => Ok(Message::Mining(message.into_owned())),
            Err(error) => bail!("{error:?}: message type 0x{:02x}, {:02x?}", self.msg_type, self.payload),
        }
    }
}

/// The `channel_msg` bit of what a mining server sends (SV2 specification 08, Message Types); `None` for
/// types that no server sends.
pub fn channel_bit(msg_type: u8) -> Option<bool> {
    match msg_type {
        // SetupConnection.Success and .Error, Reconnect, open Success (two) and Error, SetGroupChannel
        0x01 | 0x02 | 0x04 | 0x11 | 0x12 | 0x14 | 0x25 => Some(false),
        // jobs, UpdateChannel.Error, CloseChannel, SetExtranoncePrefix, answers to shares, SetNewPrevHash,
        // SetTarget, answers to SetCustomMiningJob
        0x15 | 0x17..=0x19 | 0x1c | 0x1d | 0x1f..=0x21 | 0x23 | 0x24 => Some(true),
        _ => None,
    }
}

/// Header and payload in one, as they are.
struct RawFrame(Vec<u8>);

impl EncodableFrame for RawFrame {
    fn encoded_length(&self) -> usize {
        self.0.len()
    }

    fn encode_into(self, out: &mut [u8]) -> Result<(), framing_sv2::Error> {
        out.copy_from_slice(&self.0);
        Ok(())
    }
}
