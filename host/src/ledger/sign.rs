//! The signature on what goes to the pool backend.
//!
//! `X-ReserveGrid-Signature` is the hex of HMAC-SHA256, with the shared secret, over
//! `timestamp "." body`: the exact bytes of the header `X-ReserveGrid-Timestamp` (Unix seconds), a full
//! stop, the exact bytes of the body. `X-ReserveGrid-Key-Id` names the secret, so that it can be rotated.

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// Header with the name of the secret.
pub const KEY_ID_HEADER: &str = "x-reservegrid-key-id";
/// Header with the time of signing, Unix seconds.
pub const TIMESTAMP_HEADER: &str = "x-reservegrid-timestamp";
/// Header with the signature, hex.
pub const SIGNATURE_HEADER: &str = "x-reservegrid-signature";

fn mac(secret: &[u8], timestamp: &str, body: &[u8]) -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length (RFC 2104)")]
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    mac
}

/// The signature, hex.
pub fn sign(secret: &[u8], timestamp: &str, body: &[u8]) -> String {
    hex::encode(mac(secret, timestamp, body).finalize().into_bytes())
}

/// Whether `signature` (hex) is right; compares in constant time.
pub fn verify(secret: &[u8], timestamp: &str, body: &[u8], signature: &str) -> bool {
    hex::decode(signature).is_ok_and(|bytes| mac(secret, timestamp, body).verify_slice(&bytes).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_the_one_anybody_can_compute() {
        // printf '1700000000.{"shares":[]}' | openssl dgst -sha256 -hmac 'a shared secret of a pool'
        let signature = sign(b"a shared secret of a pool", "1700000000", b"{\"shares\":[]}");
        assert_eq!(signature, "10738f407d9713c0be9061b40a850918ab8a74b7f420352a5232bb243db18b64");
    }

    #[test]
    fn any_change_breaks_it() {
        let signature = sign(b"secret", "1", b"body");
        assert!(verify(b"secret", "1", b"body", &signature));
        for (secret, time, body) in
            [("secret", "2", "body"), ("secret", "1", "bodY"), ("Secret", "1", "body")]
        {
            assert!(!verify(secret.as_bytes(), time, body.as_bytes(), &signature));
        }
        assert!(!verify(b"secret", "1", b"body", "not hex"));
    }
}
