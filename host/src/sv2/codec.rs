//! Sealed bytes to frames, messages to sealed bytes.

use super::frame::{Header, Side};
use crate::{
    noise::{Opener, SEALED_HEADER_LEN, Sealer, TransportError, sealed_chunk_lens},
    reason::Reason,
};
use binary_sv2::{Encodable, GetSize};
use parsers_sv2::IsSv2Message;

/// One decrypted frame.
#[derive(Debug)]
pub struct Frame {
    /// Its header.
    pub header: Header,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// Why a connection's bytes cannot be read on. The connection is useless after it.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// A header or chunk is not authentic.
    #[error(transparent)]
    Forged(#[from] TransportError),
    /// The header announces more than its message type may have.
    #[error("message type 0x{msg_type:02x} announces {length} bytes; at most {limit} are read")]
    TooLarge {
        /// The announced type.
        msg_type: u8,
        /// The announced length, bytes.
        length: usize,
        /// What is allowed, bytes.
        limit: usize,
    },
}

impl DecodeError {
    /// The reason code.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Forged(_) => Reason::FrameDecryptFailed,
            Self::TooLarge { .. } => Reason::FrameTooLarge,
        }
    }
}

/// Room for sealed bytes that is kept for the next ones; more is given back once it was needed.
const KEPT: usize = 2 << 10;
/// The longest payload whose room is used again.
const REUSED: usize = 256;

/// Turns a stream of sealed bytes into frames. Holds at most one frame and what came with it.
pub struct FrameDecoder {
    opener: Opener,
    from: Side,
    set_up: bool,
    buffer: Vec<u8>,
    /// Bytes at the front of `buffer` that are already used up.
    used: usize,
    current: Option<Frame>,
    /// Room for the next payload.
    spare: Vec<u8>,
}

impl FrameDecoder {
    /// A decoder for what `from` sends, from the first frame on.
    pub fn new(opener: Opener, from: Side) -> Self {
        Self { opener, from, set_up: false, buffer: Vec::new(), used: 0, current: None, spare: Vec::new() }
    }

    /// SetupConnection is done: from now on messages may have the lengths of their types.
    pub fn set_up(&mut self) {
        self.set_up = true;
    }

    /// Bytes of a frame are here, and others are missing.
    pub fn is_midway(&self) -> bool {
        self.current.is_some() || self.used < self.buffer.len()
    }

    /// Takes back a frame that nobody needs any more, for its room.
    pub fn reuse(&mut self, frame: Frame) {
        if frame.payload.capacity() <= REUSED {
            self.spare = frame.payload;
        }
    }

    /// Takes bytes as they come from the socket.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.used == self.buffer.len() {
            self.buffer.clear();
        } else {
            self.buffer.drain(..self.used);
        }
        self.used = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, if its bytes are here.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn next_frame(&mut self) -> Result<Option<Frame>, DecodeError> {
        loop {
            let rest = &self.buffer[self.used..];
            let Some(frame) = &mut self.current else {
                let Some(sealed) = rest.first_chunk::<SEALED_HEADER_LEN>() else {
                    if rest.is_empty() && self.buffer.capacity() > KEPT {
                        (self.buffer, self.used) = (Vec::new(), 0);
                    }
                    return Ok(None);
                };
                let header = Header::parse(self.opener.open_header(sealed)?);
                self.used += SEALED_HEADER_LEN;
                let limit = header.max_length(self.from, self.set_up);
                if header.length > limit {
                    return Err(DecodeError::TooLarge {
                        msg_type: header.msg_type,
                        length: header.length,
                        limit,
                    });
                }
                let mut payload = std::mem::take(&mut self.spare);
                payload.clear();
                payload.reserve(header.length);
                self.current = Some(Frame { header, payload });
                continue;
            };
            match sealed_chunk_lens(frame.header.length - frame.payload.len()).next() {
                None => return Ok(self.current.take()),
                Some(length) if rest.len() < length => return Ok(None),
                Some(length) => {
                    self.opener.open_chunk(&rest[..length], &mut frame.payload)?;
                    self.used += length;
                }
            }
        }
    }
}

/// Appends a message to `out` as one sealed frame.
///
/// # Errors
/// When the message cannot be encoded (a field is longer than its type allows) or the key is used up.
pub fn encode<M>(sealer: &mut Sealer, message: M, out: &mut Vec<u8>) -> Result<(), EncodeError>
where
    M: IsSv2Message + Encodable + GetSize,
{
    let header = Header {
        extension: message.extension_type(),
        channel_msg: message.channel_bit(),
        msg_type: message.message_type(),
        length: message.get_size(),
    };
    // Most messages are short, and shares are answered by the hundred thousand.
    let (mut short, mut long) = ([0; 256], Vec::new());
    let payload = match short.get_mut(..header.length) {
        Some(payload) => payload,
        None => {
            long.resize(header.length, 0);
            &mut long[..]
        }
    };
    message.to_bytes(payload).map_err(|error| EncodeError(format!("{error:?}")))?;
    sealer.seal_frame(&header.to_bytes(), payload, out).map_err(|error| EncodeError(error.to_string()))
}

/// A message that cannot be sent.
#[derive(Debug, thiserror::Error)]
#[error("a message cannot be encoded: {0}")]
pub struct EncodeError(pub(crate) String);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::noise::{AuthoritySecretKey, Identity, Initiator, Transport, respond};
    use std::time::Duration;

    fn pair() -> (Transport, Transport) {
        let identity =
            Identity::issue(&AuthoritySecretKey::generate(), 1_700_000_000, Duration::from_secs(3600));
        let (initiator, act1) = Initiator::start(None).unwrap();
        let (act2, server) = respond(&identity, &act1).unwrap();
        (initiator.finish(&act2, 1_700_000_000).unwrap(), server)
    }

    #[test]
    fn frames_are_found_however_the_bytes_are_cut() {
        let (mut client, server) = pair();
        let mut decoder = FrameDecoder::new(server.opener, Side::Client);
        decoder.set_up();
        let mut bytes = Vec::new();
        for length in [0usize, 1, 40, 4096] {
            let header = Header { extension: 0, channel_msg: true, msg_type: 0x1b, length };
            client.sealer.seal_frame(&header.to_bytes(), &vec![7; length], &mut bytes).unwrap();
        }
        let mut lengths = Vec::new();
        for piece in bytes.chunks(7) {
            decoder.push(piece);
            while let Some(frame) = decoder.next_frame().unwrap() {
                assert!(frame.payload.iter().all(|b| *b == 7));
                lengths.push(frame.payload.len());
            }
        }
        assert_eq!(lengths, [0, 1, 40, 4096]);
    }

    #[test]
    fn a_header_that_announces_too_much_is_refused_before_its_payload_comes() {
        let (mut client, server) = pair();
        let mut decoder = FrameDecoder::new(server.opener, Side::Client);
        let header = Header { extension: 0, channel_msg: false, msg_type: 0x00, length: 0x00ff_ffff };
        let mut bytes = Vec::new();
        client.sealer.seal_frame(&header.to_bytes(), &[], &mut bytes).unwrap();
        decoder.push(&bytes);
        assert_eq!(decoder.next_frame().unwrap_err().reason(), Reason::FrameTooLarge);
    }

    #[test]
    fn before_setup_no_message_is_longer_than_a_setup() {
        for (length, set_up, fits) in
            [(2_048, false, true), (2_049, false, false), (2_049, true, true), (100_000, true, false)]
        {
            let (mut client, server) = pair();
            let mut decoder = FrameDecoder::new(server.opener, Side::Client);
            if set_up {
                decoder.set_up();
            }
            // SetCustomMiningJob, the longest message of a client.
            let header = Header { extension: 0, channel_msg: true, msg_type: 0x22, length };
            let mut bytes = Vec::new();
            client.sealer.seal_frame(&header.to_bytes(), &[], &mut bytes).unwrap();
            decoder.push(&bytes);
            assert_eq!(decoder.next_frame().is_ok(), fits, "{length} bytes, set up: {set_up}");
        }
    }

    #[test]
    fn a_flipped_bit_ends_the_stream() {
        let (mut client, server) = pair();
        let mut decoder = FrameDecoder::new(server.opener, Side::Client);
        let header = Header { extension: 0, channel_msg: false, msg_type: 0x10, length: 3 };
        let mut bytes = Vec::new();
        client.sealer.seal_frame(&header.to_bytes(), &[1, 2, 3], &mut bytes).unwrap();
        bytes[30] ^= 1;
        decoder.push(&bytes);
        assert_eq!(decoder.next_frame().unwrap_err().reason(), Reason::FrameDecryptFailed);
    }
}
