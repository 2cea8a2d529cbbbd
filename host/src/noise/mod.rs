//! The encrypted connection: Noise NX over secp256k1 as Stratum V2 prescribes it.
//!
//! A miner (initiator) sends 64 bytes, the pool (responder) answers with 234 bytes that carry its static
//! key and a certificate signed by the pool's authority key; from then on both sides exchange encrypted
//! frames. This room turns bytes into bytes and holds no socket, clock or task: the caller reads, writes,
//! sets deadlines and says what time it is. It knows nothing of mining.
//!
//! | file | what it holds |
//! |---|---|
//! | `keys` | the authority key pair and its text form |
//! | `certificate` | the 74 signed bytes, and the identity of a responder made from them |
//! | `suite` | what `snow` does not bring: EllSwift Diffie-Hellman, and a faster cipher |
//! | `handshake` | the two acts, both roles |
//! | `transport` | sealing and opening frames after the handshake |
//!
//! Source: Stratum V2 specification, section 4 (Protocol Security); BIP324 for EllSwift; BIP340 for signatures.

mod certificate;
mod handshake;
mod keys;
mod suite;
mod transport;

pub use certificate::{CERTIFICATE_LEN, CERTIFICATE_VERSION, CLOCK_LEEWAY, CertificateError, Identity};
pub use handshake::{ACT1_LEN, ACT2_LEN, HandshakeError, Initiator, respond};
pub use keys::{AuthorityPublicKey, AuthoritySecretKey, KeyTextError};
pub use transport::{
    HEADER_LEN, MAX_CHUNK_LEN, MAX_PAYLOAD_LEN, Opener, SEALED_HEADER_LEN, Sealer, TAG_LEN, Transport,
    TransportError, sealed_chunk_lens, sealed_frame_len,
};
