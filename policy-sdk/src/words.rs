//! Bytes as people know them, for the one line that explains a rejection.

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    ::hex::encode(bytes)
}

/// A block hash or transaction id the way block explorers print it: reversed, in hexadecimal.
pub fn block_hash(internal: &[u8]) -> String {
    let reversed: Vec<u8> = internal.iter().rev().copied().collect();
    hex(&reversed)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_block_hash_is_printed_in_reverse() {
        assert_eq!(super::block_hash(&[0x0a, 0xff]), "ff0a");
    }
}
