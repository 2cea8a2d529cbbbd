//! Bytes as hex in JSON, without an allocation for each: the backend is sent a hundred thousand shares a
//! second.

use serde::{Serialize, Serializer};

/// Bytes in their order.
pub(super) struct Hex<'a>(pub(super) &'a [u8]);

/// A hash as it is shown: the last byte first.
pub(super) struct ReversedHex<'a>(pub(super) &'a [u8; 32]);

impl Serialize for Hex<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = [0; 64];
        match text.get_mut(..2 * self.0.len()) {
            Some(text) => digits(self.0, text, serializer),
            None => serializer.serialize_str(&hex::encode(self.0)),
        }
    }
}

impl Serialize for ReversedHex<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = *self.0;
        bytes.reverse();
        digits(&bytes, &mut [0; 64], serializer)
    }
}

fn digits<S: Serializer>(bytes: &[u8], text: &mut [u8], serializer: S) -> Result<S::Ok, S::Error> {
    hex::encode_to_slice(bytes, text).map_err(serde::ser::Error::custom)?;
    serializer.serialize_str(std::str::from_utf8(text).map_err(serde::ser::Error::custom)?)
}
