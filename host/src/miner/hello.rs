//! The first bytes of a peer that is at the wrong door: what it speaks instead of Stratum V2 over Noise.
//!
//! The first message of the handshake is 64 bytes that look random, so a peer is only named when chance
//! would need more than 2^32 miners to look like it.

/// What a peer speaks, once its first bytes leave no doubt; `None` for what may be a handshake.
pub(super) fn foreign(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [b'{', ..] if is_json(bytes) => Some(
            "the peer speaks plain Stratum V1 (its first line is JSON): \
             point it at a Stratum V1 port or put a translator proxy before it",
        ),
        // Record header (handshake, version 3.x, length below 2^14), then a ClientHello with its version.
        [0x16, 3, 0..=4, 0..=0x40, _, 1, _, _, _, 3, 0..=4, ..] => Some(
            "the peer speaks TLS (a ClientHello): Stratum V2 brings its own encryption, \
             write stratum2+tcp:// instead of a TLS address",
        ),
        // A plain SetupConnection: header, protocol, versions 2 to 2.
        [0, 0, 0, _, _, 0, 0..=2, 2, 0, 2, 0, ..] => Some(
            "the peer speaks Stratum V2 without encryption: \
             give it the authority key so that it begins with the Noise handshake",
        ),
        _ => {
            const HTTP: [&[u8]; 6] = [b"GET /", b"HEAD /", b"POST /", b"PUT /", b"OPTIONS ", b"CONNECT "];
            HTTP.iter()
                .any(|method| bytes.starts_with(method))
                .then_some("the peer speaks HTTP: this port is for miners")
        }
    }
}

fn is_json(bytes: &[u8]) -> bool {
    bytes.len() >= 16 && bytes.iter().all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn foreign_protocols_are_named_as_soon_as_they_are_certain() {
        let line = br#"{"id":1,"method":"mining.subscribe","params":[]}"#;
        assert!(foreign(&line[..15]).is_none());
        assert!(foreign(&line[..16]).is_some_and(|name| name.contains("Stratum V1")));
        let hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
        assert!(foreign(&hello[..10]).is_none());
        assert!(foreign(&hello).is_some_and(|name| name.contains("TLS")));
        assert!(foreign(b"GET").is_none());
        assert!(foreign(b"GET / HTTP/1.1\r\n").is_some_and(|name| name.contains("HTTP")));
        let setup = [0, 0, 0, 50, 0, 0, 0, 2, 0, 2, 0, 4, 0, 0, 0];
        assert!(foreign(&setup).is_some_and(|name| name.contains("without encryption")));
    }

    proptest! {
        #[test]
        fn a_first_act_is_taken_for_what_it_is(act1 in any::<[u8; 32]>(), length in 0usize..32) {
            prop_assert!(foreign(&act1[..length]).is_none());
        }
    }
}
