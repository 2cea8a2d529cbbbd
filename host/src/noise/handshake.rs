//! The two acts of the handshake, for both roles.
//!
//! Act 1, initiator to responder: an ephemeral key, 64 bytes in the clear. Any 64 bytes are a key, so a
//! responder cannot tell garbage from a miner and answers both; garbage shows when the first frame fails
//! to open. Act 2, responder to initiator: an ephemeral key (64), the encrypted static key (80) and the
//! encrypted certificate (90). The initiator checks the certificate and both sides have their keys.
//!
//! Both lengths are fixed and in the types: read exactly that many bytes, within a deadline. (The 170 bytes
//! of act 2 in parts of the specification date from 32-byte keys.)
//!
//! Source: Stratum V2 specification, section 4.5 (Authenticated Key Agreement Handshake).

use snow::HandshakeState;
use std::fmt;

use super::certificate::{CERTIFICATE_LEN, Certificate, CertificateError, Identity};
use super::keys::AuthorityPublicKey;
use super::suite::{self, ENCODING_LEN};
use super::transport::{TAG_LEN, Transport};

/// Bytes of the initiator's message.
pub const ACT1_LEN: usize = ENCODING_LEN;
/// Bytes of the responder's message.
pub const ACT2_LEN: usize = ENCODING_LEN + (ENCODING_LEN + TAG_LEN) + (CERTIFICATE_LEN + TAG_LEN);

/// Why a handshake did not succeed.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum HandshakeError {
    /// Act 2 is not the answer to act 1.
    #[error(
        "the server's answer to the Noise handshake failed authentication: it was altered, or the server speaks another protocol"
    )]
    Forged,
    /// The server did not prove that it belongs to the expected authority.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The operating system gave no randomness, or the Noise library refused for a reason of its own.
    #[error("the Noise handshake could not be computed: {0:?}")]
    Internal(snow::Error),
}

/// Answers act 1 of an initiator: act 2, to be sent, and the transport for everything after it.
///
/// Fails only without randomness. That the initiator means it is known when its first frame opens.
pub fn respond(
    identity: &Identity,
    act1: &[u8; ACT1_LEN],
) -> Result<([u8; ACT2_LEN], Transport), HandshakeError> {
    let mut state = suite::responder(&identity.static_key).map_err(HandshakeError::Internal)?;
    // snow wants room for a tag even where nothing is encrypted.
    state.read_message(act1, &mut [0; TAG_LEN]).map_err(HandshakeError::Internal)?;
    let mut act2 = [0; ACT2_LEN];
    let written = state.write_message(&identity.certificate, &mut act2).map_err(HandshakeError::Internal)?;
    debug_assert_eq!(written, ACT2_LEN);
    Ok((act2, transport(state)?))
}

/// An initiator that has made act 1 and waits for act 2.
pub struct Initiator {
    state: HandshakeState,
    authority: Option<AuthorityPublicKey>,
}

impl Initiator {
    /// Makes act 1, to be sent.
    ///
    /// Without an expected authority anybody may answer: the connection is encrypted, but whom it leads to
    /// is unknown. That is for networks where nobody else can answer.
    pub fn start(
        expected_authority: Option<AuthorityPublicKey>,
    ) -> Result<(Self, [u8; ACT1_LEN]), HandshakeError> {
        let mut state = suite::initiator().map_err(HandshakeError::Internal)?;
        let mut message = [0; ACT1_LEN + TAG_LEN];
        let written = state.write_message(&[], &mut message).map_err(HandshakeError::Internal)?;
        debug_assert_eq!(written, ACT1_LEN);
        let mut act1 = [0; ACT1_LEN];
        act1.copy_from_slice(&message[..ACT1_LEN]);
        Ok((Self { state, authority: expected_authority }, act1))
    }

    /// Takes act 2 and judges the server's certificate at the time `now_unix` (seconds).
    pub fn finish(mut self, act2: &[u8; ACT2_LEN], now_unix: u32) -> Result<Transport, HandshakeError> {
        let mut certificate = [0; CERTIFICATE_LEN];
        self.state.read_message(act2, &mut certificate).map_err(|error| match error {
            snow::Error::Decrypt => HandshakeError::Forged,
            other => HandshakeError::Internal(other),
        })?;
        // Taken before the transport is made, which knows only the first 32 bytes of it.
        let static_key = self
            .state
            .get_remote_static()
            .and_then(|key| key.first_chunk())
            .ok_or(HandshakeError::Internal(snow::Error::Dh))?;
        Certificate::from_bytes(&certificate).verify(
            &suite::x_only(static_key),
            self.authority.as_ref(),
            now_unix,
        )?;
        transport(self.state)
    }
}

impl fmt::Debug for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Initiator").field("authority", &self.authority).finish_non_exhaustive()
    }
}

fn transport(state: HandshakeState) -> Result<Transport, HandshakeError> {
    state.into_stateless_transport_mode().map(Transport::new).map_err(HandshakeError::Internal)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::noise::AuthoritySecretKey;
    use std::time::Duration;

    const NOW: u32 = 1_700_000_000;

    fn finish_with(
        identity: &Identity,
        authority: Option<AuthorityPublicKey>,
    ) -> Result<Transport, HandshakeError> {
        let (initiator, act1) = Initiator::start(authority).unwrap();
        let (act2, _) = respond(identity, &act1).unwrap();
        initiator.finish(&act2, NOW)
    }

    #[test]
    fn the_acts_have_64_and_234_bytes() {
        assert_eq!((ACT1_LEN, ACT2_LEN), (64, 234));
    }

    /// Without snow's feature `use-p256` its key buffer has 56 bytes and this panics.
    #[test]
    fn a_64_byte_first_message_does_not_panic_whatever_it_holds() {
        let identity = Identity::issue(&AuthoritySecretKey::generate(), NOW, Duration::from_secs(60));
        for byte in [0x00, 0x01, 0x7f, 0x80, 0xff] {
            assert!(respond(&identity, &[byte; 64]).is_ok());
        }
    }

    #[test]
    fn a_certificate_of_another_version_is_refused_even_without_an_expected_authority() {
        let authority = AuthoritySecretKey::generate();
        let identity = Identity::issue(&authority, NOW, Duration::from_secs(60))
            .with_certificate(|key| Certificate::sign(&authority, key, 1, NOW - 60, NOW + 60));
        for expected in [Some(authority.public()), None] {
            let error = finish_with(&identity, expected).unwrap_err();
            assert_eq!(error, CertificateError::Version { found: 1 }.into());
            assert!(error.to_string().contains("version 1, expected 0"), "{error}");
        }
    }

    #[test]
    fn a_period_extended_after_signing_is_refused() {
        let authority = AuthoritySecretKey::generate();
        let expected = authority.public();
        let identity = Identity::issue(&authority, NOW, Duration::from_secs(60)).with_certificate(|key| {
            let mut bytes = Certificate::sign(&authority, key, 0, NOW - 60, NOW + 60).to_bytes();
            bytes[9] |= 0x80;
            Certificate::from_bytes(&bytes)
        });
        let error = finish_with(&identity, Some(expected)).unwrap_err();
        assert_eq!(error, CertificateError::WrongAuthority { expected }.into());
    }

    #[test]
    fn a_signature_that_is_no_signature_is_refused() {
        let authority = AuthoritySecretKey::generate();
        let expected = authority.public();
        let identity = Identity::issue(&authority, NOW, Duration::from_secs(60)).with_certificate(|key| {
            let mut bytes = Certificate::sign(&authority, key, 0, NOW - 60, NOW + 60).to_bytes();
            bytes[10..].fill(0xff);
            Certificate::from_bytes(&bytes)
        });
        let error = finish_with(&identity, Some(expected)).unwrap_err();
        assert_eq!(error, CertificateError::WrongAuthority { expected }.into());
    }
}
