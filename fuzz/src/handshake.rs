//! The first bytes of a stranger, to the server and to the client, and the key that an operator pastes.
//!
//! Promises: any act 1 is answered or refused; the act 2 of somebody who does not know the server's key is
//! never believed; a text is a key only if it says so in its checksum, and then comes back as it was.

use crate::Choices;
use reservegrid::noise::{
    ACT1_LEN, ACT2_LEN, AuthorityPublicKey, AuthoritySecretKey, Identity, Initiator, respond,
};
use std::{sync::LazyLock, time::Duration};

const NOW: u32 = 1_700_000_000;

struct Server {
    key: AuthorityPublicKey,
    identity: Identity,
}

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let secret = AuthoritySecretKey::generate();
    let identity = Identity::issue(&secret, NOW, Duration::from_secs(3600));
    Server { key: secret.public(), identity }
});

/// First byte: which of the three. The rest: its bytes.
pub fn one(data: &[u8]) {
    let mut choices = Choices(data);
    match choices.byte() % 3 {
        0 => {
            let mut act1 = [0; ACT1_LEN];
            let given = choices.bytes(ACT1_LEN);
            act1[..given.len()].copy_from_slice(given);
            // Every 64 bytes encode a curve point (ElligatorSwift), so there is nothing to refuse.
            respond(&SERVER.identity, &act1).expect("an answer to every act 1");
        }
        1 => {
            let (initiator, act1) = Initiator::start(Some(SERVER.key)).unwrap();
            let (mut act2, _) = respond(&SERVER.identity, &act1).unwrap();
            let honest = act2;
            // Differences to the honest answer: position, value.
            while !choices.done() {
                let at = usize::from(choices.short()) % ACT2_LEN;
                act2[at] ^= choices.byte();
            }
            let believed = initiator.finish(&act2, NOW).is_ok();
            assert_eq!(believed, act2 == honest, "an altered answer is not believed, an honest one is");
        }
        _ => {
            if let Ok(text) = std::str::from_utf8(choices.0)
                && let Ok(key) = text.parse::<AuthorityPublicKey>()
            {
                assert_eq!(key.to_string(), text.trim(), "a key comes back as it was");
            }
        }
    }
}

/// An act 1, an honest and an altered act 2, a key.
pub fn seeds() -> Vec<Vec<u8>> {
    let (_, act1) = Initiator::start(None).unwrap();
    vec![
        [&[0][..], &act1].concat(),
        vec![1],
        vec![1, 100, 0, 1],
        [&[2][..], SERVER.key.to_string().as_bytes()].concat(),
    ]
}
