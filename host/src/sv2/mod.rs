//! Stratum V2 without sockets: frames, messages, and what is agreed at setup.
//!
//! Bytes from a peer go into a [`FrameDecoder`], which opens them and gives whole frames, refusing
//! lengths that no message of that type has before it buffers them. Messages go into [`encode`] and
//! come out as sealed bytes. The message structs are SRI's (`mining_sv2`, `common_messages_sv2`), the
//! same that miners' software uses.
//!
//! - `frame`: the six header bytes and the limits by message type
//! - `codec`: the decoder and the encoder
//! - `setup`: SetupConnection judged (SV2 specification, 03 Protocol Overview)
//! - `tlv`: what extensions add behind messages

mod codec;
mod frame;
pub mod setup;
pub mod tlv;

pub use codec::{DecodeError, EncodeError, Frame, FrameDecoder, encode};
pub use frame::{Header, Side};
