//! Sealed frames, in pieces of any size, with headers that may lie and bytes that may be altered on the way.
//!
//! Promises: what was sealed comes out as it was, in order; nothing comes out after the first altered byte;
//! a header that announces more than its type may have is refused before its payload is there.

use crate::Choices;
use reservegrid::{
    noise::{AuthoritySecretKey, Identity, Initiator, respond},
    sv2::{DecodeError, FrameDecoder, Side},
};
use std::{sync::LazyLock, time::Duration};

const NOW: u32 = 1_700_000_000;

static IDENTITY: LazyLock<Identity> =
    LazyLock::new(|| Identity::issue(&AuthoritySecretKey::generate(), NOW, Duration::from_secs(3600)));

/// Frames: extension, type, announced length, payload length; then what the wire does to them.
pub fn one(data: &[u8]) {
    let mut choices = Choices(data);
    let (initiator, act1) = Initiator::start(None).unwrap();
    let (act2, server) = respond(&IDENTITY, &act1).unwrap();
    let (mut sealer, _) = initiator.finish(&act2, NOW).unwrap().split();
    let mut decoder = FrameDecoder::new(server.split().1, Side::Client);
    if choices.byte() & 1 == 1 {
        decoder.set_up();
    }
    let damage = usize::from(choices.short());
    let piece = usize::from(choices.short()).max(1);

    let (mut wire, mut sent) = (Vec::new(), Vec::new());
    let mut honest = true;
    for _ in 0..choices.byte() % 8 {
        let (extension, kind) = (choices.short(), choices.byte());
        let (announced, length) = (choices.short(), usize::from(choices.short()));
        let payload = choices.bytes(length);
        // One in a few headers lies, by what the fuzzer chose; everything behind a lie is out of step.
        let announced = if announced % 4 == 3 { usize::from(announced) << 3 } else { payload.len() };
        let [e0, e1] = extension.to_le_bytes();
        let [l0, l1, l2, _] = u32::try_from(announced).unwrap().to_le_bytes();
        sealer.seal_frame(&[e0, e1, kind, l0, l1, l2], payload, &mut wire).unwrap();
        honest &= announced == payload.len();
        if honest {
            sent.push((extension & 0x7fff, kind, payload));
        }
    }
    let damaged = damage > 0 && damage <= wire.len();
    if damaged {
        wire[damage - 1] ^= 0x80;
    }

    let mut sent = sent.into_iter();
    'wire: for bytes in wire.chunks(piece) {
        decoder.push(bytes);
        loop {
            match decoder.next_frame() {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    let (extension, kind, payload) = sent.next().expect("only what was sent comes out");
                    assert_eq!((frame.header.extension, frame.header.msg_type), (extension, kind));
                    assert_eq!(frame.payload, payload);
                }
                Err(DecodeError::Forged(_)) => {
                    assert!(damaged || !honest, "honest bytes are not called forged");
                    break 'wire;
                }
                Err(DecodeError::TooLarge { length, limit, .. }) => {
                    assert!(length > limit);
                    break 'wire;
                }
            }
        }
    }
}

/// Two frames as they should be; damaged; one that lies.
pub fn seeds() -> Vec<Vec<u8>> {
    let frames =
        [&[2][..], &[0, 0, 0x1a, 0, 0, 24, 0], &[7; 24], &[0, 0x80, 0x1b, 0, 0, 40, 0], &[9; 40]].concat();
    let header = |set_up: u8, damage: u16, piece: u16| {
        let ([d0, d1], [p0, p1]) = (damage.to_le_bytes(), piece.to_le_bytes());
        [&[set_up, d0, d1, p0, p1][..], &frames].concat()
    };
    let mut lie = header(1, 0, 30);
    lie[9] = 3;
    vec![header(1, 0, 1), header(0, 0, 1000), header(1, 70, 16), lie]
}
