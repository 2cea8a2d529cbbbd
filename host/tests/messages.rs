//! Messages from strangers: whatever the bytes are, decoding says yes or no and nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use parsers_sv2::{CommonMessages, Mining};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_payloads_of_every_type_are_decoded_or_refused(
        msg_type in any::<u8>(),
        mut payload in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        let _ = Mining::try_from((msg_type, &mut payload.clone()[..]));
        let _ = CommonMessages::try_from((msg_type, &mut payload[..]));
    }

    /// Lengths inside a message that promise more than there is are where decoders go wrong.
    #[test]
    fn payloads_of_client_messages_with_odd_lengths_are_decoded_or_refused(
        msg_type in prop_oneof![Just(0x10u8), Just(0x13), Just(0x16), Just(0x18), Just(0x1a), Just(0x1b), Just(0x22)],
        length in any::<u8>(),
        mut payload in proptest::collection::vec(any::<u8>(), 0..120),
        at in 0usize..120,
    ) {
        if let Some(byte) = payload.get_mut(at) {
            *byte = length;
        }
        let _ = Mining::try_from((msg_type, &mut payload[..]));
    }
}
