//! The certificate of a server, and the identity that a server presents.
//!
//! A server proves that it belongs to a pool with 74 bytes: version u16, valid_from u32, not_valid_after u32
//! (little-endian, Unix seconds), and a BIP340 signature by the pool's authority key over the SHA-256 of
//! those ten bytes and the server's x-only static key. Nothing in it depends on the connection, so key and
//! signature, which are costly, are made once per validity period: [`Identity`] holds the static key with
//! its certificate and says when it is time for the next one.
//!
//! Source: Stratum V2 specification, sections 4.5.2 (SIGNATURE_NOISE_MESSAGE) and 4.5.3 (Server authentication).

use bitcoin::secp256k1::schnorr::Signature;
use bitcoin::secp256k1::{Message, XOnlyPublicKey};
use ring::digest;
use std::fmt;
use std::time::Duration;

use super::keys::{AuthorityPublicKey, AuthoritySecretKey};
use super::suite::{EllSwiftKey, SECP, x_only};

/// Bytes of a certificate on the wire, before encryption.
pub const CERTIFICATE_LEN: usize = 74;
/// The only version of the certificate format.
pub const CERTIFICATE_VERSION: u16 = 0;
/// Seconds by which the clocks of the two sides may differ when a certificate is judged.
pub const CLOCK_LEEWAY: u32 = 10;
/// Seconds by which a certificate is valid before it was made, for miners whose clock is behind.
const BACKDATE: u32 = 60;
/// Bytes of the certificate that are signed, beside the static key.
const SIGNED_LEN: usize = 10;

/// Why a server's certificate was not accepted. Times are Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// A format this software does not know.
    #[error("the server's certificate has version {found}, expected {CERTIFICATE_VERSION}")]
    Version {
        /// The version in the certificate.
        found: u16,
    },
    /// The validity period lies in the future.
    #[error(
        "the server's certificate is not valid before {valid_from}, the clock here says {now} (Unix seconds): check both clocks"
    )]
    NotYetValid {
        /// Start of the validity period.
        valid_from: u32,
        /// The time it was judged at.
        now: u32,
    },
    /// The validity period is over.
    #[error(
        "the server's certificate expired at {not_valid_after}, the clock here says {now} (Unix seconds): check both clocks, or have the server renew it"
    )]
    Expired {
        /// End of the validity period.
        not_valid_after: u32,
        /// The time it was judged at.
        now: u32,
    },
    /// Signed by another key, or altered after it was signed; a signature cannot tell these apart.
    #[error(
        "the server's certificate is not signed by the expected authority key {expected}: the server has another authority key, or somebody is in between"
    )]
    WrongAuthority {
        /// The key that should have signed it.
        expected: AuthorityPublicKey,
    },
}

/// The fields of a certificate, as received or as about to be sent.
#[derive(Clone, Copy)]
pub(super) struct Certificate {
    version: u16,
    valid_from: u32,
    not_valid_after: u32,
    signature: [u8; 64],
}

impl Certificate {
    /// Signs a certificate for `static_key` with the authority's key.
    pub(super) fn sign(
        authority: &AuthoritySecretKey,
        static_key: &XOnlyPublicKey,
        version: u16,
        valid_from: u32,
        not_valid_after: u32,
    ) -> Self {
        let mut certificate = Self { version, valid_from, not_valid_after, signature: [0; 64] };
        certificate.signature = SECP.sign_schnorr(&certificate.message(static_key), &authority.0).serialize();
        certificate
    }

    /// Checks version, period and signature, in this order, so that the error names the plainest cause.
    ///
    /// Without an authority key only the version is checked: nobody vouches for the other fields, and many
    /// miners have no clock before they have a network.
    pub(super) fn verify(
        &self,
        static_key: &XOnlyPublicKey,
        authority: Option<&AuthorityPublicKey>,
        now: u32,
    ) -> Result<(), CertificateError> {
        if self.version != CERTIFICATE_VERSION {
            return Err(CertificateError::Version { found: self.version });
        }
        let Some(authority) = authority else { return Ok(()) };
        if now < self.valid_from.saturating_sub(CLOCK_LEEWAY) {
            return Err(CertificateError::NotYetValid { valid_from: self.valid_from, now });
        }
        if now > self.not_valid_after.saturating_add(CLOCK_LEEWAY) {
            return Err(CertificateError::Expired { not_valid_after: self.not_valid_after, now });
        }
        Signature::from_slice(&self.signature)
            .and_then(|signature| SECP.verify_schnorr(&signature, &self.message(static_key), &authority.0))
            .map_err(|_| CertificateError::WrongAuthority { expected: *authority })
    }

    pub(super) fn to_bytes(self) -> [u8; CERTIFICATE_LEN] {
        let mut bytes = [0; CERTIFICATE_LEN];
        bytes[..SIGNED_LEN].copy_from_slice(&self.signed_fields());
        bytes[SIGNED_LEN..].copy_from_slice(&self.signature);
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8; CERTIFICATE_LEN]) -> Self {
        let mut signature = [0; 64];
        signature.copy_from_slice(&bytes[SIGNED_LEN..]);
        Self {
            version: u16::from_le_bytes([bytes[0], bytes[1]]),
            valid_from: u32::from_le_bytes([bytes[2], bytes[3], bytes[4], bytes[5]]),
            not_valid_after: u32::from_le_bytes([bytes[6], bytes[7], bytes[8], bytes[9]]),
            signature,
        }
    }

    fn signed_fields(&self) -> [u8; SIGNED_LEN] {
        let mut bytes = [0; SIGNED_LEN];
        bytes[..2].copy_from_slice(&self.version.to_le_bytes());
        bytes[2..6].copy_from_slice(&self.valid_from.to_le_bytes());
        bytes[6..].copy_from_slice(&self.not_valid_after.to_le_bytes());
        bytes
    }

    fn message(&self, static_key: &XOnlyPublicKey) -> Message {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(&self.signed_fields());
        hash.update(&static_key.serialize());
        let mut bytes = [0; 32];
        bytes.copy_from_slice(hash.finish().as_ref());
        Message::from_digest(bytes)
    }
}

/// What a server shows in every handshake: a static key and the certificate for it.
///
/// Made once per validity period and shared by all connections; a connection that is already open is not
/// affected by the next one.
pub struct Identity {
    pub(super) static_key: EllSwiftKey,
    pub(super) certificate: [u8; CERTIFICATE_LEN],
    valid_from: u32,
    not_valid_after: u32,
}

impl Identity {
    /// Makes a new static key and signs a certificate for it.
    ///
    /// The certificate is valid from a minute before `now_unix` until `validity` (in whole seconds) after
    /// it, or until the end of 32-bit Unix time if that is earlier.
    pub fn issue(authority: &AuthoritySecretKey, now_unix: u32, validity: Duration) -> Self {
        let validity = u32::try_from(validity.as_secs()).unwrap_or(u32::MAX);
        let (valid_from, not_valid_after) =
            (now_unix.saturating_sub(BACKDATE), now_unix.saturating_add(validity));
        let static_key = EllSwiftKey::random();
        let certificate = Certificate::sign(
            authority,
            &x_only(&static_key.encoding),
            CERTIFICATE_VERSION,
            valid_from,
            not_valid_after,
        );
        Self { static_key, certificate: certificate.to_bytes(), valid_from, not_valid_after }
    }

    /// Whether the next identity should be issued: three quarters of the period are over, or the clock was
    /// set back to before it.
    pub fn needs_renewal(&self, now_unix: u32) -> bool {
        let remaining = self.not_valid_after.saturating_sub(now_unix);
        let period = self.not_valid_after - self.valid_from;
        now_unix < self.valid_from || remaining <= period / 4
    }

    /// First and last second at which the certificate is valid, in Unix time.
    pub fn validity(&self) -> (u32, u32) {
        (self.valid_from, self.not_valid_after)
    }

    /// The same static key with another certificate: for showing peers what no honest server sends.
    #[cfg(test)]
    pub(super) fn with_certificate(self, make: impl FnOnce(&XOnlyPublicKey) -> Certificate) -> Self {
        let certificate = make(&x_only(&self.static_key.encoding)).to_bytes();
        Self { certificate, ..self }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("valid_from", &self.valid_from)
            .field("not_valid_after", &self.not_valid_after)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use bitcoin::hashes::{Hash, sha256};

    const NOW: u32 = 1_700_000_000;
    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn the_74_bytes_are_version_period_and_a_signature_over_them_and_the_static_key() {
        let authority = AuthoritySecretKey::generate();
        let static_key = x_only(&EllSwiftKey::random().encoding);
        let bytes = Certificate::sign(&authority, &static_key, 0x0201, 0x0605_0403, 0x0a09_0807).to_bytes();
        assert_eq!(bytes[..10], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);

        let mut signed = bytes[..10].to_vec();
        signed.extend_from_slice(&static_key.serialize());
        let message = Message::from_digest(sha256::Hash::hash(&signed).to_byte_array());
        let signature = Signature::from_slice(&bytes[10..]).unwrap();
        SECP.verify_schnorr(&signature, &message, &authority.public().0).unwrap();
    }

    #[test]
    fn the_certificate_of_an_identity_is_for_its_static_key_and_its_authority_only() {
        let authority = AuthoritySecretKey::generate();
        let identity = Identity::issue(&authority, NOW, DAY);
        let certificate = Certificate::from_bytes(&identity.certificate);
        let (own, other) = (x_only(&identity.static_key.encoding), x_only(&EllSwiftKey::random().encoding));
        let (expected, stranger) = (authority.public(), AuthoritySecretKey::generate().public());
        assert_eq!(certificate.verify(&own, Some(&expected), NOW), Ok(()));
        assert_eq!(
            certificate.verify(&other, Some(&expected), NOW),
            Err(CertificateError::WrongAuthority { expected })
        );
        assert_eq!(
            certificate.verify(&own, Some(&stranger), NOW),
            Err(CertificateError::WrongAuthority { expected: stranger })
        );
    }

    #[test]
    fn the_period_is_judged_to_the_second_with_ten_seconds_of_leeway() {
        let authority = AuthoritySecretKey::generate();
        let identity = Identity::issue(&authority, NOW, DAY);
        let (valid_from, not_valid_after) = identity.validity();
        assert_eq!((valid_from, not_valid_after), (NOW - 60, NOW + 86_400));
        let own = x_only(&identity.static_key.encoding);
        let at =
            |now| Certificate::from_bytes(&identity.certificate).verify(&own, Some(&authority.public()), now);
        assert_eq!(at(valid_from - 10), Ok(()));
        assert_eq!(at(not_valid_after + 10), Ok(()));
        let now = valid_from - 11;
        assert_eq!(at(now), Err(CertificateError::NotYetValid { valid_from, now }));
        let now = not_valid_after + 11;
        assert_eq!(at(now), Err(CertificateError::Expired { not_valid_after, now }));
    }

    #[test]
    fn a_period_is_cut_at_both_ends_of_unix_time() {
        let authority = AuthoritySecretKey::generate();
        assert_eq!(Identity::issue(&authority, 5, DAY).validity(), (0, 86_405));
        let identity = Identity::issue(&authority, NOW, Duration::MAX);
        assert_eq!(identity.validity(), (NOW - 60, u32::MAX));
        let own = x_only(&identity.static_key.encoding);
        let certificate = Certificate::from_bytes(&identity.certificate);
        assert_eq!(certificate.verify(&own, Some(&authority.public()), u32::MAX), Ok(()));
    }

    #[test]
    fn an_identity_is_renewed_when_a_quarter_of_its_period_is_left_or_the_clock_was_set_back() {
        let identity = Identity::issue(
            &AuthoritySecretKey::generate(),
            NOW,
            Duration::from_secs(400 - u64::from(BACKDATE)),
        );
        let (valid_from, _) = identity.validity();
        assert!(identity.needs_renewal(valid_from - 1));
        assert!(!identity.needs_renewal(valid_from));
        assert!(!identity.needs_renewal(valid_from + 299));
        assert!(identity.needs_renewal(valid_from + 300));
        assert!(identity.needs_renewal(u32::MAX));
    }
}
