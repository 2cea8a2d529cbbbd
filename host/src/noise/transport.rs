//! Frames after the handshake: sealing what is sent, opening what is received.
//!
//! A frame is a 6-byte header and up to 2^24 - 1 bytes of payload. On the wire the header is sealed by
//! itself (22 bytes) and the payload in chunks of at most 65,519 bytes, each followed by a 16-byte tag; a
//! frame without payload is its header alone. What the header says is the business of the frame codec.
//!
//! The two directions have separate keys and counters and are owned separately, so that one task may read
//! while another writes. A reader opens the header, learns the length, and then reads and opens one chunk
//! after the other: memory grows with the bytes that really came, never with the length that was announced.
//! After the first failure a half is dead: the other side counts differently, or is not who it was.
//!
//! Source: Stratum V2 specification, section 4.6 (Encrypted stratum message framing).

use snow::StatelessTransportState;
use std::fmt;
use std::sync::Arc;

/// Bytes that sealing adds to a header or chunk.
pub const TAG_LEN: usize = 16;
/// Bytes of a frame header.
pub const HEADER_LEN: usize = 6;
/// Bytes of a frame header on the wire.
pub const SEALED_HEADER_LEN: usize = HEADER_LEN + TAG_LEN;
/// Most payload bytes in one chunk: the largest Noise message, 65,535 bytes, without its tag.
pub const MAX_CHUNK_LEN: usize = 65_535 - TAG_LEN;
/// Most payload bytes in one frame: its length is a 24-bit number.
pub const MAX_PAYLOAD_LEN: usize = (1 << 24) - 1;

/// Why a frame could not be sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The header or chunk was altered, is out of order, or was sealed with another key.
    #[error("the {part} failed authentication as message {counter} of this connection")]
    Forged {
        /// "frame header" or "payload chunk".
        part: &'static str,
        /// Headers and chunks opened before this one.
        counter: u64,
    },
    /// The bytes handed in cannot be one sealed chunk.
    #[error("a sealed chunk has 17 to 65535 bytes, not {len}")]
    ChunkLength {
        /// Bytes that were handed in.
        len: usize,
    },
    /// More payload than a frame can have.
    #[error("a frame carries at most {MAX_PAYLOAD_LEN} bytes of payload, not {len}")]
    PayloadTooLong {
        /// Bytes that were handed in.
        len: usize,
    },
    /// The message counter of this direction is used up (after 2^64 - 1 messages).
    #[error("the message counter of this connection is used up: connect again")]
    Exhausted,
    /// An earlier header or chunk failed.
    #[error("an earlier frame of this connection failed authentication: the connection must be closed")]
    Poisoned,
}

/// Length on the wire of a frame with this many payload bytes: sealed header and sealed chunks.
pub fn sealed_frame_len(payload_len: usize) -> usize {
    SEALED_HEADER_LEN + payload_len + payload_len.div_ceil(MAX_CHUNK_LEN) * TAG_LEN
}

/// Lengths on the wire of the chunks that follow a header which announces this many payload bytes, in
/// order; nothing for an empty payload.
pub fn sealed_chunk_lens(payload_len: usize) -> impl Iterator<Item = usize> {
    (0..payload_len).step_by(MAX_CHUNK_LEN).map(move |start| MAX_CHUNK_LEN.min(payload_len - start) + TAG_LEN)
}

/// Both directions of a connection whose handshake is complete.
#[derive(Debug)]
pub struct Transport {
    /// For what is sent.
    pub sealer: Sealer,
    /// For what is received.
    pub opener: Opener,
}

impl Transport {
    pub(super) fn new(keys: StatelessTransportState) -> Self {
        let keys = Arc::new(keys);
        Self {
            sealer: Sealer { keys: Arc::clone(&keys), counter: 0 },
            opener: Opener { keys, counter: 0, poisoned: false },
        }
    }

    /// The two halves, for two owners.
    pub fn split(self) -> (Sealer, Opener) {
        (self.sealer, self.opener)
    }
}

/// The sending half: owns the counter, which is never used twice.
pub struct Sealer {
    keys: Arc<StatelessTransportState>,
    counter: u64,
}

impl Sealer {
    /// Appends the sealed frame to `out`: the 22-byte header, then the chunks of `payload`.
    ///
    /// The header must announce `payload.len()`. On an error `out` is as before and nothing was sealed.
    pub fn seal_frame(
        &mut self,
        header: &[u8; HEADER_LEN],
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), TransportError> {
        if payload.len() > MAX_PAYLOAD_LEN {
            return Err(TransportError::PayloadTooLong { len: payload.len() });
        }
        let messages = 1 + payload.len().div_ceil(MAX_CHUNK_LEN) as u64;
        let end = self.counter.checked_add(messages).ok_or(TransportError::Exhausted)?;
        let start = out.len();
        out.resize(start + sealed_frame_len(payload.len()), 0);
        let mut rest = &mut out[start..];
        for (counter, part) in
            (self.counter..end).zip([&header[..]].into_iter().chain(payload.chunks(MAX_CHUNK_LEN)))
        {
            let (sealed, after) = rest.split_at_mut(part.len() + TAG_LEN);
            if self.keys.write_message(counter, part, sealed).is_err() {
                // Cannot happen with the lengths and counters above; still never send half a frame.
                out.truncate(start);
                self.counter = u64::MAX;
                return Err(TransportError::Exhausted);
            }
            rest = after;
        }
        self.counter = end;
        Ok(())
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("counter", &self.counter).finish_non_exhaustive()
    }
}

/// The receiving half: owns the counter, and stays shut after the first failure.
pub struct Opener {
    keys: Arc<StatelessTransportState>,
    counter: u64,
    poisoned: bool,
}

impl Opener {
    /// Opens a frame header. Where it announces a payload, its chunks must be opened next.
    pub fn open_header(
        &mut self,
        sealed: &[u8; SEALED_HEADER_LEN],
    ) -> Result<[u8; HEADER_LEN], TransportError> {
        let mut header = [0; HEADER_LEN];
        self.open("frame header", sealed, &mut header)?;
        Ok(header)
    }

    /// Opens one chunk, of a length that [`sealed_chunk_lens`] gives, and appends its bytes to `payload`.
    ///
    /// On an error `payload` is as before.
    pub fn open_chunk(&mut self, sealed: &[u8], payload: &mut Vec<u8>) -> Result<(), TransportError> {
        if sealed.len() <= TAG_LEN || sealed.len() > MAX_CHUNK_LEN + TAG_LEN {
            return Err(TransportError::ChunkLength { len: sealed.len() });
        }
        let start = payload.len();
        payload.resize(start + sealed.len() - TAG_LEN, 0);
        let opened = self.open("payload chunk", sealed, &mut payload[start..]);
        if opened.is_err() {
            payload.truncate(start);
        }
        opened
    }

    fn open(&mut self, part: &'static str, sealed: &[u8], out: &mut [u8]) -> Result<(), TransportError> {
        if self.poisoned {
            return Err(TransportError::Poisoned);
        }
        // Shut unless everything below succeeds.
        self.poisoned = true;
        let counter = self.counter;
        let next = counter.checked_add(1).ok_or(TransportError::Exhausted)?;
        self.keys.read_message(counter, sealed, out).map_err(|_| TransportError::Forged { part, counter })?;
        self.counter = next;
        self.poisoned = false;
        Ok(())
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener")
            .field("counter", &self.counter)
            .field("poisoned", &self.poisoned)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::noise::{AuthoritySecretKey, Identity, Initiator, respond};
    use std::time::Duration;

    const NOW: u32 = 1_700_000_000;

    fn pair() -> (Transport, Transport) {
        let authority = AuthoritySecretKey::generate();
        let identity = Identity::issue(&authority, NOW, Duration::from_secs(60));
        let (initiator, act1) = Initiator::start(Some(authority.public())).unwrap();
        let (act2, theirs) = respond(&identity, &act1).unwrap();
        (initiator.finish(&act2, NOW).unwrap(), theirs)
    }

    #[test]
    fn a_payload_is_cut_into_chunks_of_65519_bytes() {
        let lens = |payload| sealed_chunk_lens(payload).collect::<Vec<_>>();
        assert!(lens(0).is_empty());
        assert_eq!(lens(1), [17]);
        assert_eq!(lens(65_518), [65_534]);
        assert_eq!(lens(65_519), [65_535]);
        assert_eq!(lens(65_520), [65_535, 17]);
        assert_eq!(lens(MAX_PAYLOAD_LEN).len(), 257);
        for payload in [0, 1, 65_518, 65_519, 65_520, 131_038, 131_039, MAX_PAYLOAD_LEN] {
            assert_eq!(sealed_frame_len(payload), 22 + lens(payload).iter().sum::<usize>());
        }
    }

    #[test]
    fn the_last_counter_is_used_and_none_after_it() {
        let (mut ours, mut theirs) = pair();
        ours.sealer.counter = u64::MAX - 2;
        theirs.opener.counter = u64::MAX - 2;
        let mut wire = vec![7];
        // A header and two chunks would need three counters; two are left.
        let refused = ours.sealer.seal_frame(&[0; 6], &[0; MAX_CHUNK_LEN + 1], &mut wire);
        assert_eq!((refused, wire.as_slice()), (Err(TransportError::Exhausted), [7].as_slice()));

        ours.sealer.seal_frame(&[1; 6], &[2; 3], &mut wire).unwrap();
        assert_eq!(theirs.opener.open_header(wire[1..23].try_into().unwrap()), Ok([1; 6]));
        let mut payload = vec![];
        theirs.opener.open_chunk(&wire[23..], &mut payload).unwrap();
        assert_eq!(payload, [2; 3]);

        assert_eq!(ours.sealer.seal_frame(&[0; 6], &[], &mut wire), Err(TransportError::Exhausted));
        assert_eq!(theirs.opener.open_header(&[0; 22]), Err(TransportError::Exhausted));
        assert_eq!(theirs.opener.open_header(&[0; 22]), Err(TransportError::Poisoned));
    }

    #[test]
    fn lengths_that_no_frame_has_are_refused_before_anything_is_done() {
        let (mut ours, _) = pair();
        let mut wire = vec![];
        let len = MAX_PAYLOAD_LEN + 1;
        let refused = ours.sealer.seal_frame(&[0; 6], &vec![0; len], &mut wire);
        assert_eq!(refused, Err(TransportError::PayloadTooLong { len }));
        assert!(wire.is_empty());
        for len in [0, 16, 65_536] {
            let refused = ours.opener.open_chunk(&vec![0; len], &mut wire);
            assert_eq!(refused, Err(TransportError::ChunkLength { len }));
            assert!(wire.is_empty());
        }
    }
}
