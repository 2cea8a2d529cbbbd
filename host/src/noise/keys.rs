//! The authority key of a pool, and how it is written down.
//!
//! The authority key signs the certificates of a pool's servers; miners are configured with its public
//! half and trust nothing else. Both halves travel as base58check text in configuration files, in the form
//! that other Stratum V2 software uses: the public key as `01 00` followed by the 32-byte x-only key, the
//! secret key as its 32 bytes alone. The two look alike to a person, so an error says when one was given
//! in place of the other; no error ever repeats the text itself, which may be a secret.
//!
//! Source: Stratum V2 specification, section 4.7 (URL Scheme and Pool Authority Key); it leaves the text form
//! of the secret key open.

use bitcoin::base58;
use bitcoin::secp256k1::{Keypair, SecretKey, XOnlyPublicKey, rand::rngs::OsRng};
use std::fmt;
use std::str::FromStr;

use super::suite::SECP;

/// What precedes the x-only key in the text form of a public key: the version, 1, as little-endian u16.
const PUBLIC_PREFIX: [u8; 2] = [0x01, 0x00];
const PUBLIC_LEN: usize = PUBLIC_PREFIX.len() + 32;
const SECRET_LEN: usize = 32;
/// Either key has about 52 characters. Decoding takes quadratic time, so longer texts are refused unread.
const MAX_TEXT_LEN: usize = 80;

/// Why a text is not an authority key. The messages never contain the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyTextError {
    /// Nothing was given.
    #[error("the key is empty")]
    Empty,
    /// Far too many characters.
    #[error("the key has {length} characters, a base58check key has about 52")]
    TooLong {
        /// Bytes of text that were given.
        length: usize,
    },
    /// A character outside the base58 alphabet.
    #[error(
        "character {position} of the key is {found:?}, which base58 does not use (letters and digits without 0, O, I, l)"
    )]
    Character {
        /// Position in the text, the first character being 1.
        position: usize,
        /// The character.
        found: char,
    },
    /// The last four bytes are not the checksum of the others.
    #[error("the checksum of the key does not match: a character is wrong or missing, copy the key again")]
    Checksum,
    /// A secret key where a public key belongs.
    #[error(
        "this has the length of a secret key, a public key belongs here; keep the secret key to the server"
    )]
    SecretForPublic,
    /// A public key where a secret key belongs.
    #[error("this is a public key, the secret key belongs here")]
    PublicForSecret,
    /// Correct base58check, but not of this many bytes.
    #[error("the key decodes to {found} bytes, expected {expected}")]
    Length {
        /// Bytes that the kind of key has.
        expected: usize,
        /// Bytes that were found.
        found: usize,
    },
    /// A public key whose first two bytes are not `01 00`.
    #[error("the public key starts with the bytes {:02x} {:02x}, expected 01 00", found[0], found[1])]
    Prefix {
        /// The two bytes.
        found: [u8; 2],
    },
    /// Not an x coordinate of a point on secp256k1.
    #[error("the 32 bytes of the public key are not a point on the curve secp256k1")]
    NotOnCurve,
    /// Zero, or not below the order of the curve.
    #[error("the 32 bytes of the secret key are out of range for the curve secp256k1")]
    SecretOutOfRange,
}

/// Base58check with errors that point at the fault.
fn decode(text: &str) -> Result<Vec<u8>, KeyTextError> {
    if text.is_empty() {
        return Err(KeyTextError::Empty);
    }
    if text.len() > MAX_TEXT_LEN {
        return Err(KeyTextError::TooLong { length: text.len() });
    }
    let is_base58 = |c: char| c.is_ascii_alphanumeric() && !matches!(c, '0' | 'O' | 'I' | 'l');
    if let Some((index, found)) = text.chars().enumerate().find(|(_, c)| !is_base58(*c)) {
        return Err(KeyTextError::Character { position: index + 1, found });
    }
    base58::decode_check(text).map_err(|_| KeyTextError::Checksum)
}

/// The public half of the authority key: what a miner is configured with.
///
/// `Display` and `FromStr` use base58check of `01 00` and the 32-byte x-only key (BIP340).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AuthorityPublicKey(pub(super) XOnlyPublicKey);

impl AuthorityPublicKey {
    /// The key from its 32 x-only bytes; an error where they are not on the curve.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, KeyTextError> {
        XOnlyPublicKey::from_slice(&bytes).map(Self).map_err(|_| KeyTextError::NotOnCurve)
    }

    /// The 32 x-only bytes (BIP340).
    pub fn to_bytes(self) -> [u8; 32] {
        self.0.serialize()
    }
}

impl fmt::Display for AuthorityPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; PUBLIC_LEN];
        bytes[..2].copy_from_slice(&PUBLIC_PREFIX);
        bytes[2..].copy_from_slice(&self.0.serialize());
        f.write_str(&base58::encode_check(&bytes))
    }
}

impl fmt::Debug for AuthorityPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthorityPublicKey({self})")
    }
}

impl FromStr for AuthorityPublicKey {
    type Err = KeyTextError;

    fn from_str(text: &str) -> Result<Self, KeyTextError> {
        let bytes = decode(text)?;
        match bytes.as_slice() {
            [a, b, key @ ..] if bytes.len() == PUBLIC_LEN => {
                if [*a, *b] != PUBLIC_PREFIX {
                    return Err(KeyTextError::Prefix { found: [*a, *b] });
                }
                XOnlyPublicKey::from_slice(key).map(Self).map_err(|_| KeyTextError::NotOnCurve)
            }
            _ if bytes.len() == SECRET_LEN => Err(KeyTextError::SecretForPublic),
            _ => Err(KeyTextError::Length { expected: PUBLIC_LEN, found: bytes.len() }),
        }
    }
}

/// The secret half of the authority key: signs certificates. Held by the pool only, wiped when dropped.
///
/// `FromStr` reads base58check of the 32 bytes. `Debug` shows the public half.
pub struct AuthoritySecretKey(pub(super) Keypair);

impl AuthoritySecretKey {
    /// A new key from the randomness of the operating system.
    pub fn generate() -> Self {
        Self(Keypair::new(&SECP, &mut OsRng))
    }

    /// The public half.
    pub fn public(&self) -> AuthorityPublicKey {
        AuthorityPublicKey(self.0.x_only_public_key().0)
    }

    /// The secret itself as base58check text, to be stored; on purpose not `Display`.
    pub fn expose_text(&self) -> String {
        base58::encode_check(&self.0.secret_bytes())
    }
}

impl fmt::Debug for AuthoritySecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthoritySecretKey(of {})", self.public())
    }
}

impl FromStr for AuthoritySecretKey {
    type Err = KeyTextError;

    fn from_str(text: &str) -> Result<Self, KeyTextError> {
        let bytes = decode(text)?;
        if bytes.len() == PUBLIC_LEN && bytes.starts_with(&PUBLIC_PREFIX) {
            return Err(KeyTextError::PublicForSecret);
        }
        if bytes.len() != SECRET_LEN {
            return Err(KeyTextError::Length { expected: SECRET_LEN, found: bytes.len() });
        }
        let secret = SecretKey::from_slice(&bytes).map_err(|_| KeyTextError::SecretOutOfRange)?;
        Ok(Self(Keypair::from_secret_key(&SECP, &secret)))
    }
}

impl Drop for AuthoritySecretKey {
    fn drop(&mut self) {
        self.0.non_secure_erase();
    }
}
