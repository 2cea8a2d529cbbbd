//! The frame header (SV2 specification, 03 Protocol Overview, "Framing").

use common_messages_sv2::MESSAGE_TYPE_SETUP_CONNECTION;
use mining_sv2::{
    MESSAGE_TYPE_NEW_EXTENDED_MINING_JOB, MESSAGE_TYPE_SET_CUSTOM_MINING_JOB, MESSAGE_TYPE_SET_GROUP_CHANNEL,
};
use template_distribution_sv2::{
    MESSAGE_TYPE_NEW_TEMPLATE, MESSAGE_TYPE_REQUEST_TRANSACTION_DATA_SUCCESS as TRANSACTION_DATA,
};

/// The six bytes before every payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Which extension the message belongs to, without the channel bit; 0 is the base protocol.
    pub extension: u16,
    /// The message is for a channel. To be sent right; not to be relied on when received.
    pub channel_msg: bool,
    /// Message type within the extension.
    pub msg_type: u8,
    /// Payload length in bytes, below 2^24.
    pub length: usize,
}

const CHANNEL_BIT: u16 = 0x8000;
/// Longest SetupConnection, bytes.
const MAX_SETUP: usize = 2 << 10;
/// Longest RequestTransactionData.Success: the 4,000,000 bytes that a block may have, three bytes of length
/// for each of 65,535 transactions, and 64 KiB of other data.
const MAX_TRANSACTION_DATA: usize = 4_000_000 + 3 * 65_535 + (64 << 10) + 64;

impl Header {
    /// Reads a header; every six bytes are one.
    pub fn parse(bytes: [u8; 6]) -> Self {
        let extension = u16::from_le_bytes([bytes[0], bytes[1]]);
        Self {
            extension: extension & !CHANNEL_BIT,
            channel_msg: extension & CHANNEL_BIT != 0,
            msg_type: bytes[2],
            length: u32::from_le_bytes([bytes[3], bytes[4], bytes[5], 0]) as usize,
        }
    }

    /// The bytes of a header.
    pub fn to_bytes(self) -> [u8; 6] {
        let [e0, e1] = (self.extension | if self.channel_msg { CHANNEL_BIT } else { 0 }).to_le_bytes();
        let [l0, l1, l2, _] = (self.length as u32).to_le_bytes();
        [e0, e1, self.msg_type, l0, l1, l2]
    }

    /// The longest payload that is read for this type; before setup only SetupConnection has a meaning.
    pub(super) fn max_length(&self, from: Side, set_up: bool) -> usize {
        match (from, self.msg_type) {
            (Side::Client, _) if !set_up => MAX_SETUP,
            _ if self.extension != 0 => 4 << 10,
            (_, MESSAGE_TYPE_SETUP_CONNECTION) => MAX_SETUP,
            (Side::Client, MESSAGE_TYPE_SET_CUSTOM_MINING_JOB) => 80 << 10,
            (Side::Server, MESSAGE_TYPE_NEW_EXTENDED_MINING_JOB | MESSAGE_TYPE_SET_GROUP_CHANNEL) => {
                512 << 10
            }
            (Side::Provider, TRANSACTION_DATA) if set_up => MAX_TRANSACTION_DATA,
            // Outputs of up to 64 KiB, and a merkle path of up to 255 hashes.
            (Side::Provider, MESSAGE_TYPE_NEW_TEMPLATE) => 80 << 10,
            // Everything else is far smaller; a submitted share may carry TLVs behind it.
            _ => 4 << 10,
        }
    }
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// A miner or proxy.
    Client,
    /// The gateway.
    Server,
    /// A Template Provider.
    Provider,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_as_it_was() {
        for header in [
            Header { extension: 0, channel_msg: true, msg_type: 0x1b, length: 45 },
            Header { extension: 0x7fff, channel_msg: false, msg_type: 0xff, length: 0x00ff_ffff },
        ] {
            assert_eq!(Header::parse(header.to_bytes()), header);
        }
    }

    #[test]
    fn the_channel_bit_is_bit_15_and_lengths_are_little_endian() {
        let header = Header { extension: 0, channel_msg: true, msg_type: 0x15, length: 0x01_02_03 };
        assert_eq!(header.to_bytes(), [0x00, 0x80, 0x15, 0x03, 0x02, 0x01]);
    }
}
