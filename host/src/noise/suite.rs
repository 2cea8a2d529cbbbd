//! The cipher suite of Stratum V2, plugged into `snow`: EllSwift Diffie-Hellman and a faster cipher.
//!
//! `snow` knows neither the curve secp256k1 nor the EllSwift encoding of its keys, but takes both from a
//! resolver. Four things about that are not obvious:
//! - It cannot parse the protocol name. A name it knows is parsed and replaced; only the text is hashed.
//! - Public keys have 64 bytes and shared secrets 32, so `dh_len` and `pub_len` must differ.
//! - Its key buffers are large enough (65 bytes) only with the cargo feature `use-p256`; without it any
//!   first message makes it panic. A test in `handshake` holds that down.
//! - EllSwift hashes both encodings in the order initiator, responder, so the resolver carries the role.
//!
//! Source: Stratum V2 specification, section 4.3 (choice of cryptographic primitives); BIP324 for the hash.

use bitcoin::secp256k1::ellswift::{ElligatorSwift, ElligatorSwiftParty};
use bitcoin::secp256k1::rand::{RngCore, rngs::OsRng};
use bitcoin::secp256k1::{All, PublicKey, Secp256k1, SecretKey, XOnlyPublicKey};
use ring::aead::{self, Aad, LessSafeKey, UnboundKey};
use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, Error, HandshakeState};
use std::sync::LazyLock;

/// The curve's tables, blinded once at first use.
pub(super) static SECP: LazyLock<Secp256k1<All>> = LazyLock::new(Secp256k1::new);

#[expect(clippy::expect_used, reason = "a constant, parsed in every test")]
static PARAMS: LazyLock<NoiseParams> = LazyLock::new(|| {
    let mut params: NoiseParams = "Noise_NX_25519_ChaChaPoly_SHA256".parse().expect("snow knows this name");
    params.name = "Noise_NX_Secp256k1+EllSwift_ChaChaPoly_SHA256".to_owned();
    params
});

/// Bytes of an EllSwift-encoded public key.
pub(super) const ENCODING_LEN: usize = 64;
const SECRET_LEN: usize = 32;
const TAG_LEN: usize = 16;

/// The state in which an initiator starts: a new ephemeral key will be made.
pub(super) fn initiator() -> Result<HandshakeState, Error> {
    Builder::with_resolver(PARAMS.clone(), Box::new(Suite { role: ElligatorSwiftParty::A, own: None }))
        .build_initiator()
}

/// The state in which a responder with this static key starts.
pub(super) fn responder(own: &EllSwiftKey) -> Result<HandshakeState, Error> {
    let suite = Suite { role: ElligatorSwiftParty::B, own: Some(own.clone()) };
    Builder::with_resolver(PARAMS.clone(), Box::new(suite))
        .local_private_key(own.secret.as_ref())?
        .build_responder()
}

/// The x-only key (BIP340) that an EllSwift encoding stands for; every 64 bytes stand for one.
pub(super) fn x_only(encoding: &[u8; ENCODING_LEN]) -> XOnlyPublicKey {
    PublicKey::from_ellswift(ElligatorSwift::from_array(*encoding)).x_only_public_key().0
}

/// A secret key with its EllSwift encoding, which is not unique and costly to make. Wiped when dropped.
#[derive(Clone)]
pub(super) struct EllSwiftKey {
    secret: SecretKey,
    pub(super) encoding: [u8; ENCODING_LEN],
}

impl EllSwiftKey {
    /// A new key from the randomness of the operating system.
    pub(super) fn random() -> Self {
        let mut aux = [0; 32];
        OsRng.fill_bytes(&mut aux);
        Self::new(SecretKey::new(&mut OsRng), aux)
    }

    /// `aux` chooses among the many encodings of the key, so that they look like random bytes.
    fn new(secret: SecretKey, aux: [u8; 32]) -> Self {
        let encoding = ElligatorSwift::from_seckey(&SECP, secret, Some(aux)).to_array();
        Self { secret, encoding }
    }
}

impl Drop for EllSwiftKey {
    fn drop(&mut self) {
        self.secret.non_secure_erase();
    }
}

/// What one handshake uses.
struct Suite {
    role: ElligatorSwiftParty,
    /// The static key of a responder.
    own: Option<EllSwiftKey>,
}

impl CryptoResolver for Suite {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        DefaultResolver.resolve_rng()
    }

    fn resolve_dh(&self, _: &DHChoice) -> Option<Box<dyn Dh>> {
        Some(Box::new(EllSwiftDh { role: self.role, own: self.own.clone(), key: None }))
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, _: &CipherChoice) -> Option<Box<dyn Cipher>> {
        Some(Box::new(ChaChaPoly { key: None }))
    }
}

struct EllSwiftDh {
    role: ElligatorSwiftParty,
    own: Option<EllSwiftKey>,
    key: Option<EllSwiftKey>,
}

impl Dh for EllSwiftDh {
    fn name(&self) -> &'static str {
        "Secp256k1+EllSwift"
    }

    fn pub_len(&self) -> usize {
        ENCODING_LEN
    }

    fn priv_len(&self) -> usize {
        SECRET_LEN
    }

    fn dh_len(&self) -> usize {
        32
    }

    /// Takes the prepared key rather than encoding the same key again for every connection. Any other key
    /// would be a mistake of ours and leaves none, so that the handshake fails.
    fn set(&mut self, private: &[u8]) {
        self.key = self.own.clone().filter(|own| own.secret[..] == *private);
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        let mut random = [0; SECRET_LEN + 32];
        rng.try_fill_bytes(&mut random)?;
        // Out of range with a probability of 2^-128: as good as a broken generator.
        let secret = SecretKey::from_slice(&random[..SECRET_LEN]).map_err(|_| Error::Rng)?;
        let mut aux = [0; 32];
        aux.copy_from_slice(&random[SECRET_LEN..]);
        self.key = Some(EllSwiftKey::new(secret, aux));
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        self.key.as_ref().map_or(&[], |key| &key.encoding)
    }

    fn privkey(&self) -> &[u8] {
        self.key.as_ref().map_or(&[], |key| key.secret.as_ref())
    }

    fn dh(&self, theirs: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let own = self.key.as_ref().ok_or(Error::Dh)?;
        // snow hands over its whole buffer, which is longer than a key.
        let theirs: &[u8; ENCODING_LEN] = theirs.first_chunk().ok_or(Error::Dh)?;
        let theirs = ElligatorSwift::from_array(*theirs);
        let ours = ElligatorSwift::from_array(own.encoding);
        let (initiator, responder) = match self.role {
            ElligatorSwiftParty::A => (ours, theirs),
            ElligatorSwiftParty::B => (theirs, ours),
        };
        let shared = ElligatorSwift::shared_secret(initiator, responder, own.secret, self.role, None);
        out.get_mut(..32).ok_or(Error::Dh)?.copy_from_slice(shared.as_secret_bytes());
        Ok(())
    }
}

/// ChaCha20-Poly1305 of `ring`, several times faster on short frames than the one `snow` brings.
struct ChaChaPoly {
    /// None until snow sets one; snow itself refuses to use a cipher without a key.
    key: Option<LessSafeKey>,
}

/// 96 bits: four zero bytes and the counter in little-endian order (Noise specification, section 12.3).
fn nonce(counter: u64) -> aead::Nonce {
    let mut bytes = [0; aead::NONCE_LEN];
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    aead::Nonce::assume_unique_for_key(bytes)
}

impl Cipher for ChaChaPoly {
    fn name(&self) -> &'static str {
        "ChaChaPoly"
    }

    #[expect(clippy::expect_used, reason = "the length, the only condition, is in the type")]
    fn set(&mut self, key: &[u8; 32]) {
        self.key =
            Some(LessSafeKey::new(UnboundKey::new(&aead::CHACHA20_POLY1305, key).expect("32-byte key")));
    }

    #[expect(
        clippy::expect_used,
        reason = "snow sets a key first; a message is far below ring's limit of 256 GiB"
    )]
    fn encrypt(&self, counter: u64, ad: &[u8], plain: &[u8], out: &mut [u8]) -> usize {
        let (body, rest) = out.split_at_mut(plain.len());
        body.copy_from_slice(plain);
        let key = self.key.as_ref().expect("snow checks that a key is set");
        let tag = key
            .seal_in_place_separate_tag(nonce(counter), Aad::from(ad), body)
            .expect("length within limits");
        rest[..TAG_LEN].copy_from_slice(tag.as_ref());
        plain.len() + TAG_LEN
    }

    fn decrypt(&self, counter: u64, ad: &[u8], sealed: &[u8], out: &mut [u8]) -> Result<usize, Error> {
        let key = self.key.as_ref().ok_or(Error::Decrypt)?;
        let (body, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(Error::Decrypt)?;
        let out = out.get_mut(..body.len()).ok_or(Error::Decrypt)?;
        out.copy_from_slice(body);
        key.open_in_place_separate_tag(nonce(counter), Aad::from(ad), aead::Tag::from(*tag), out, 0..)
            .map_err(|_| Error::Decrypt)?;
        Ok(body.len())
    }
}
