//! A template and its surroundings as JSON: for recordings, replays and test cases.
//!
//! The form is lossless: assembled again, a recorded template has the same digest, and gets the same
//! verdict. Hashes stand in display order, as block explorers show them; bytes and scripts as hex; the
//! compact target as eight hex digits; amounts in satoshi. Fields that are not known are `null`.
//! [`FORMAT`] changes when the meaning of anything does; a field that is not known to a format is
//! damage, not an extension.

use super::{Context, Declared};
use serde::{Deserialize, Serialize};

/// The format that is written, and the only one that is read.
pub const FORMAT: u32 = 1;

/// A recorded template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    /// The number of the format.
    pub format: u32,
    /// What the source said.
    pub declared: Declared,
    /// What was known around it.
    pub context: Context,
}

/// Why a record cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It was written in another format, that of a newer gateway.
    #[error("the record has format {0}, and this gateway reads format {FORMAT} only: use a newer one")]
    Other(u32),
    /// It is no record, or not a whole one.
    #[error("this is no record of a template, or it is damaged: {0}")]
    Damaged(#[from] serde_json::Error),
}

impl Recorded {
    /// A record in the current format.
    pub fn new(declared: Declared, context: Context) -> Self {
        Self { format: FORMAT, declared, context }
    }

    /// The record as JSON, in one line.
    ///
    /// # Errors
    /// Never for what this type can hold; the error is that of the JSON writer.
    pub fn to_json(&self) -> Result<String, RecordError> {
        Ok(serde_json::to_string(self)?)
    }

    /// Reads a record.
    ///
    /// # Errors
    /// When it has another format, or is damaged; the position is named.
    pub fn from_json(json: &str) -> Result<Self, RecordError> {
        /// The one field that every format has.
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        match serde_json::from_str(json)? {
            Head { format: FORMAT } => Ok(serde_json::from_str(json)?),
            Head { format } => Err(RecordError::Other(format)),
        }
    }
}

/// Bytes as hex.
pub(super) mod hex_bytes {
    use crate::template::gbt::Bytes;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::template) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex::encode(bytes))
    }

    pub(in crate::template) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        Ok(Bytes::deserialize(from)?.0)
    }
}

/// A target, 32 bytes in the order they stand.
pub(super) mod hash {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(in crate::template) fn serialize<S: Serializer>(
        bytes: &Option<[u8; 32]>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        bytes.map(hex::encode).serialize(to)
    }

    pub(in crate::template) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<[u8; 32]>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        let decode = |text: String| {
            let mut bytes = [0; 32];
            hex::decode_to_slice(text, &mut bytes).map(|()| bytes).map_err(D::Error::custom)
        };
        text.map(decode).transpose()
    }
}

/// A merkle path: each hash in display order.
pub(super) mod path {
    use bitcoin::{TxMerkleNode, hashes::Hash};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    type Path = Option<Vec<[u8; 32]>>;

    pub(in crate::template) fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
        let nodes = path.as_ref().map(|path| path.iter().copied().map(TxMerkleNode::from_byte_array));
        nodes.map(Iterator::collect::<Vec<_>>).serialize(to)
    }

    pub(in crate::template) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Path, D::Error> {
        let nodes = Option::<Vec<TxMerkleNode>>::deserialize(from)?;
        Ok(nodes.map(|nodes| nodes.into_iter().map(TxMerkleNode::to_byte_array).collect()))
    }
}

/// A compact target as eight hex digits.
pub(super) mod compact {
    use bitcoin::CompactTarget;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(in crate::template) fn serialize<S: Serializer>(
        bits: &CompactTarget,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        super::Bits(*bits).serialize(to)
    }

    pub(in crate::template) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<CompactTarget, D::Error> {
        Ok(super::Bits::deserialize(from)?.0)
    }
}

/// A compact target that may be unknown.
pub(super) mod compact_option {
    use super::Bits;
    use bitcoin::CompactTarget;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(in crate::template) fn serialize<S: Serializer>(
        bits: &Option<CompactTarget>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        bits.map(Bits).serialize(to)
    }

    pub(in crate::template) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<CompactTarget>, D::Error> {
        Ok(Option::<Bits>::deserialize(from)?.map(|bits| bits.0))
    }
}

/// Eight hex digits.
#[derive(Clone, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
struct Bits(bitcoin::CompactTarget);

impl From<Bits> for String {
    fn from(bits: Bits) -> Self {
        format!("{:08x}", bits.0.to_consensus())
    }
}

impl TryFrom<String> for Bits {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let digits = text.len() == 8 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let value = u32::from_str_radix(&text, 16).ok().filter(|_| digits);
        let bits = value.ok_or_else(|| format!("{text:?} is no compact target of eight hex digits"))?;
        Ok(Self(bitcoin::CompactTarget::from_consensus(bits)))
    }
}

/// One digit a flag, 0 or 1, in one text.
pub(super) mod flags {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
    use std::sync::Arc;

    type Flags = Option<Arc<[bool]>>;

    pub(in crate::template) fn serialize<S: Serializer>(flags: &Flags, to: S) -> Result<S::Ok, S::Error> {
        let digit = |flag: &bool| if *flag { '1' } else { '0' };
        flags.as_ref().map(|flags| flags.iter().map(digit).collect::<String>()).serialize(to)
    }

    pub(in crate::template) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Flags, D::Error> {
        let flag = |digit: char| match digit {
            '0' => Ok(false),
            '1' => Ok(true),
            other => Err(D::Error::custom(format_args!("{other:?} is neither 0 nor 1"))),
        };
        Option::<String>::deserialize(from)?.map(|text| text.chars().map(flag).collect()).transpose()
    }
}
