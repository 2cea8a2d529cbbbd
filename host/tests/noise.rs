//! The encrypted connection against the reference implementation, and against damage.
//!
//! `noise_sv2` and `codec_sv2` are the implementation that other Stratum V2 software uses. Each role of
//! ours completes a handshake with the other role of theirs, and frames of every awkward length go both
//! ways. The rest is about bytes that no honest peer sends: garbage, flipped bits, replays, certificates
//! that should not be accepted, keys that are not keys.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use bitcoin::base58;
use bitcoin::secp256k1::rand;
use codec_sv2::{
    Decrypted, Handshake, NoiseDecoder, NoiseEncoder, TransportDecryptState, TransportEncryptState,
};
use framing_sv2::framing::SerializedFrame;
use proptest::prelude::*;
use reservegrid::noise::{
    ACT2_LEN, AuthorityPublicKey, AuthoritySecretKey, CertificateError, HandshakeError, Identity, Initiator,
    KeyTextError, Opener, Sealer, Transport, TransportError, respond, sealed_chunk_lens, sealed_frame_len,
};
use std::time::Duration;

const NOW: u32 = 1_700_000_000;
const HOUR: Duration = Duration::from_secs(3600);
/// Around the chunk boundary, and the two ends of what a frame can carry.
const LENGTHS: [usize; 6] = [0, 1, 65_518, 65_519, 65_520, 16_777_215];

/// The other implementation after its handshake.
struct Theirs {
    encrypt: TransportEncryptState,
    decrypt: Option<TransportDecryptState>,
    encoder: NoiseEncoder,
    decoder: NoiseDecoder,
}

impl Theirs {
    fn new(transport: codec_sv2::Transport) -> Self {
        let (encrypt, decrypt) = transport.split();
        Self { encrypt, decrypt: Some(decrypt), encoder: NoiseEncoder::new(), decoder: NoiseDecoder::new() }
    }

    fn seal(&mut self, frame: &[u8]) -> Vec<u8> {
        let frame = SerializedFrame::from_bytes(frame.to_vec()).unwrap();
        self.encoder.encode_transport(frame, &mut self.encrypt).unwrap().to_vec()
    }

    /// Feeds `wire` as their reader asks for it; panics unless it is exactly one frame.
    fn open(&mut self, mut wire: &[u8]) -> Vec<u8> {
        loop {
            let wanted = self.decoder.writable();
            let (now, later) = wire.split_at(wanted.len());
            wanted.copy_from_slice(now);
            wire = later;
            match self.decoder.next_transport_frame(self.decrypt.take().unwrap()).unwrap() {
                Decrypted::Incomplete(_, state) => self.decrypt = Some(state),
                Decrypted::Frame(frame, state) => {
                    self.decrypt = Some(state);
                    assert!(wire.is_empty(), "{} bytes too many on the wire", wire.len());
                    return frame.as_bytes().to_vec();
                }
            }
        }
    }
}

fn secret_bytes(key: &AuthoritySecretKey) -> [u8; 32] {
    base58::decode_check(&key.expose_text()).unwrap().try_into().unwrap()
}

/// Our responder, their initiator.
fn we_respond() -> (Transport, Theirs) {
    let authority = AuthoritySecretKey::generate();
    let identity = Identity::issue(&authority, NOW, HOUR);
    let initiator = noise_sv2::Initiator::from_raw_k(authority.public().to_bytes()).unwrap();
    let (act1, initiator) = Handshake::initiator(initiator).step_0().unwrap();
    let (act2, ours) = respond(&identity, act1.payload().try_into().unwrap()).unwrap();
    (ours, Theirs::new(initiator.step_2_with_now(act2, NOW).unwrap()))
}

fn their_responder(authority: &AuthoritySecretKey) -> Handshake<noise_sv2::Responder> {
    Handshake::responder(
        noise_sv2::Responder::from_authority_kp(
            &authority.public().to_bytes(),
            &secret_bytes(authority),
            HOUR,
        )
        .unwrap(),
    )
}

/// Our initiator, their responder.
fn we_initiate() -> (Transport, Theirs) {
    let authority = AuthoritySecretKey::generate();
    let (initiator, act1) = Initiator::start(Some(authority.public())).unwrap();
    let (act2, theirs) =
        their_responder(&authority).step_1_with_now_rng(act1, NOW, &mut rand::thread_rng()).unwrap();
    let ours = initiator.finish(act2.payload().try_into().unwrap(), NOW).unwrap();
    (ours, Theirs::new(theirs))
}

/// Both ends ours: initiator, responder.
fn ours_with_ours() -> (Transport, Transport) {
    let authority = AuthoritySecretKey::generate();
    let identity = Identity::issue(&authority, NOW, HOUR);
    let (initiator, act1) = Initiator::start(Some(authority.public())).unwrap();
    let (act2, responder) = respond(&identity, &act1).unwrap();
    (initiator.finish(&act2, NOW).unwrap(), responder)
}

/// A header that announces `len` bytes, with an extension type and message type that would show a mix-up.
fn header(len: usize) -> [u8; 6] {
    let len = u32::try_from(len).unwrap().to_le_bytes();
    [0x34, 0x92, 0x1f, len[0], len[1], len[2]]
}

/// Bytes in which a misplaced or repeated chunk would be noticed.
fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8 ^ (i / 65_519) as u8).collect()
}

fn frame(len: usize) -> Vec<u8> {
    [&header(len)[..], &payload(len)].concat()
}

fn seal(sealer: &mut Sealer, len: usize) -> Vec<u8> {
    let mut wire = Vec::new();
    sealer.seal_frame(&header(len), &payload(len), &mut wire).unwrap();
    wire
}

/// Reads one frame as a connection does: header, then chunk by chunk.
fn open(opener: &mut Opener, wire: &[u8]) -> Result<Vec<u8>, TransportError> {
    let (sealed, mut rest) = wire.split_first_chunk().unwrap();
    let header = opener.open_header(sealed)?;
    let len = u32::from_le_bytes([header[3], header[4], header[5], 0]) as usize;
    let mut payload = Vec::new();
    for sealed_len in sealed_chunk_lens(len) {
        let (chunk, after) = rest.split_at(sealed_len);
        opener.open_chunk(chunk, &mut payload)?;
        rest = after;
    }
    assert!(rest.is_empty(), "{} bytes too many on the wire", rest.len());
    Ok([&header[..], &payload].concat())
}

fn frames_of_every_length_go_both_ways((mut ours, mut theirs): (Transport, Theirs)) {
    for len in LENGTHS {
        let wire = seal(&mut ours.sealer, len);
        assert_eq!(wire.len(), sealed_frame_len(len));
        assert!(theirs.open(&wire) == frame(len), "{len} bytes from us");

        let wire = theirs.seal(&frame(len));
        assert_eq!(wire.len(), sealed_frame_len(len));
        assert!(open(&mut ours.opener, &wire).unwrap() == frame(len), "{len} bytes from them");
    }
}

#[test]
fn our_responder_serves_the_reference_initiator_and_frames_of_every_length_go_both_ways() {
    frames_of_every_length_go_both_ways(we_respond());
}

#[test]
fn our_initiator_reaches_the_reference_responder_and_frames_of_every_length_go_both_ways() {
    frames_of_every_length_go_both_ways(we_initiate());
}

#[test]
fn our_initiator_reaches_our_responder_and_the_halves_work_on_different_threads() {
    let (initiator, responder) = ours_with_ours();
    let (mut to_responder, mut from_responder) = initiator.split();
    let (mut to_initiator, mut from_initiator) = responder.split();
    let upwards = std::thread::spawn(move || {
        (0..200).all(|n| open(&mut from_initiator, &seal(&mut to_responder, n)).unwrap() == frame(n))
    });
    let downwards = std::thread::spawn(move || {
        (0..200).all(|n| open(&mut from_responder, &seal(&mut to_initiator, n)).unwrap() == frame(n))
    });
    assert!(upwards.join().unwrap() && downwards.join().unwrap());
}

#[test]
fn one_identity_serves_many_connections_with_different_keys() {
    let authority = AuthoritySecretKey::generate();
    let identity = Identity::issue(&authority, NOW, HOUR);
    let connect = || {
        let (initiator, act1) = Initiator::start(Some(authority.public())).unwrap();
        let (act2, responder) = respond(&identity, &act1).unwrap();
        (initiator.finish(&act2, NOW).unwrap(), responder)
    };
    let (mut first, mut first_responder) = connect();
    let (_, mut second_responder) = connect();
    let wire = seal(&mut first.sealer, 5);
    assert!(open(&mut second_responder.opener, &wire).is_err());
    assert_eq!(open(&mut first_responder.opener, &wire).unwrap(), frame(5));
}

#[test]
fn several_frames_are_appended_to_one_buffer() {
    let (mut ours, mut theirs) = we_respond();
    let mut wire = Vec::new();
    for len in [24, 0, 70_000] {
        ours.sealer.seal_frame(&header(len), &payload(len), &mut wire).unwrap();
    }
    let mut rest = wire.as_slice();
    for len in [24, 0, 70_000] {
        let (one, after) = rest.split_at(sealed_frame_len(len));
        assert!(theirs.open(one) == frame(len));
        rest = after;
    }
}

#[test]
fn announcing_sixteen_mebibytes_costs_the_reader_nothing_until_they_come() {
    let (mut ours, mut theirs) = ours_with_ours();
    let wire = seal(&mut ours.sealer, 16_777_215);
    theirs.opener.open_header(wire.first_chunk().unwrap()).unwrap();
    let mut received = Vec::new();
    theirs.opener.open_chunk(&wire[22..22 + 65_535], &mut received).unwrap();
    assert_eq!(received.len(), 65_519);
    assert!(received.capacity() < 4 * 65_519, "{} bytes reserved", received.capacity());
}

#[test]
fn a_first_message_of_garbage_is_answered_and_its_first_frame_refused() {
    let identity = Identity::issue(&AuthoritySecretKey::generate(), NOW, HOUR);
    for garbage in
        [[0u8; 64], [0xff; 64], *b"GET / HTTP/1.1\r\nHost: pool.example\r\nUser-Agent: web browsers\r\n\r\n"]
    {
        let (_, mut transport) = respond(&identity, &garbage).unwrap();
        let expected = TransportError::Forged { part: "frame header", counter: 0 };
        assert_eq!(transport.opener.open_header(&[0x42; 22]), Err(expected));
        assert_eq!(transport.opener.open_header(&[0x42; 22]), Err(TransportError::Poisoned));
    }
}

proptest! {
    #[test]
    fn no_first_message_and_no_first_frame_panics(act1: [[u8; 32]; 2], header: [u8; 22], chunk: Vec<u8>) {
        let identity = Identity::issue(&AuthoritySecretKey::generate(), NOW, HOUR);
        let act1: [u8; 64] = act1.concat().try_into().unwrap();
        let (_, mut transport) = respond(&identity, &act1).unwrap();
        prop_assert!(transport.opener.open_header(&header).is_err());
        let mut received = Vec::new();
        prop_assert!(transport.opener.open_chunk(&chunk, &mut received).is_err());
        prop_assert!(received.is_empty());
    }

    #[test]
    fn no_answer_panics_the_initiator(act2 in prop::collection::vec(any::<u8>(), ACT2_LEN)) {
        let (initiator, _) = Initiator::start(None).unwrap();
        let refused = initiator.finish(act2.as_slice().try_into().unwrap(), NOW);
        prop_assert_eq!(refused.unwrap_err(), HandshakeError::Forged);
    }
}

#[test]
fn a_flipped_bit_anywhere_in_act_2_ends_the_handshake() {
    let authority = AuthoritySecretKey::generate();
    let identity = Identity::issue(&authority, NOW, HOUR);
    for position in 0..ACT2_LEN {
        let (initiator, act1) = Initiator::start(Some(authority.public())).unwrap();
        let (mut act2, _) = respond(&identity, &act1).unwrap();
        act2[position] ^= 1 << (position % 8);
        let error = initiator.finish(&act2, NOW).unwrap_err();
        assert_eq!(error, HandshakeError::Forged, "byte {position}");
    }
}

#[test]
fn an_answer_to_another_first_message_ends_the_handshake() {
    let authority = AuthoritySecretKey::generate();
    let identity = Identity::issue(&authority, NOW, HOUR);
    let (initiator, _) = Initiator::start(Some(authority.public())).unwrap();
    let (_, act1) = Initiator::start(Some(authority.public())).unwrap();
    let (act2, _) = respond(&identity, &act1).unwrap();
    assert_eq!(initiator.finish(&act2, NOW).unwrap_err(), HandshakeError::Forged);
}

#[test]
fn a_flipped_bit_anywhere_in_a_frame_is_refused_and_nothing_opens_after_it() {
    for position in 0..sealed_frame_len(9) {
        let (mut ours, mut theirs) = ours_with_ours();
        let good = seal(&mut ours.sealer, 9);
        let mut bad = good.clone();
        bad[position] ^= 1 << (position % 8);
        let (part, counter) = if position < 22 { ("frame header", 0) } else { ("payload chunk", 1) };
        let error = open(&mut theirs.opener, &bad).unwrap_err();
        assert_eq!(error, TransportError::Forged { part, counter }, "byte {position}");

        let next = seal(&mut ours.sealer, 9);
        for wire in [&good, &next] {
            assert_eq!(open(&mut theirs.opener, wire), Err(TransportError::Poisoned));
        }
        let mut received = vec![1, 2, 3];
        assert_eq!(theirs.opener.open_chunk(&good[22..], &mut received), Err(TransportError::Poisoned));
        assert_eq!(received, [1, 2, 3]);
        // The other direction is not concerned.
        assert_eq!(open(&mut ours.opener, &seal(&mut theirs.sealer, 3)).unwrap(), frame(3));
    }
}

#[test]
fn a_refused_chunk_leaves_no_bytes_behind() {
    let (mut ours, mut theirs) = ours_with_ours();
    let mut wire = seal(&mut ours.sealer, 65_520);
    *wire.last_mut().unwrap() ^= 1;
    theirs.opener.open_header(wire.first_chunk().unwrap()).unwrap();
    let mut received = Vec::new();
    theirs.opener.open_chunk(&wire[22..22 + 65_535], &mut received).unwrap();
    assert!(theirs.opener.open_chunk(&wire[22 + 65_535..], &mut received).is_err());
    assert_eq!(received.len(), 65_519);
}

#[test]
fn a_repeated_or_skipped_frame_is_refused() {
    let (mut ours, mut theirs) = ours_with_ours();
    let first = seal(&mut ours.sealer, 4);
    assert!(open(&mut theirs.opener, &first).is_ok());
    let repeated = open(&mut theirs.opener, &first);
    assert_eq!(repeated, Err(TransportError::Forged { part: "frame header", counter: 2 }));

    let (mut ours, mut theirs) = ours_with_ours();
    seal(&mut ours.sealer, 4);
    let second = seal(&mut ours.sealer, 4);
    assert!(open(&mut theirs.opener, &second).is_err());
}

#[test]
fn a_frame_reflected_to_its_sender_is_refused() {
    let (mut ours, _) = ours_with_ours();
    let wire = seal(&mut ours.sealer, 4);
    assert!(open(&mut ours.opener, &wire).is_err());
}

/// Judges an identity issued at `NOW` for an hour at another time.
fn judge_at(
    now: u32,
    expected: impl Fn(AuthorityPublicKey) -> Option<AuthorityPublicKey>,
) -> Result<(), HandshakeError> {
    let authority = AuthoritySecretKey::generate();
    let identity = Identity::issue(&authority, NOW, HOUR);
    let (initiator, act1) = Initiator::start(expected(authority.public())).unwrap();
    let (act2, _) = respond(&identity, &act1).unwrap();
    initiator.finish(&act2, now).map(|_| ())
}

#[test]
fn an_expired_certificate_is_refused_with_its_end_and_the_clock() {
    let now = NOW + 3600 + 11;
    let error = judge_at(now, Some).unwrap_err();
    assert_eq!(error, CertificateError::Expired { not_valid_after: NOW + 3600, now }.into());
    let text = error.to_string();
    assert!(text.contains("expired at 1700003600") && text.contains("1700003611"), "{text}");
}

#[test]
fn a_certificate_of_the_future_is_refused_with_its_start_and_the_clock() {
    let now = NOW - 60 - 11;
    let error = judge_at(now, Some).unwrap_err();
    assert_eq!(error, CertificateError::NotYetValid { valid_from: NOW - 60, now }.into());
    let text = error.to_string();
    assert!(text.contains("not valid before 1699999940") && text.contains("1699999929"), "{text}");
}

#[test]
fn a_certificate_of_another_authority_is_refused_with_the_key_that_was_expected() {
    let expected = AuthoritySecretKey::generate().public();
    let error = judge_at(NOW, |_| Some(expected)).unwrap_err();
    assert_eq!(error, CertificateError::WrongAuthority { expected }.into());
    let text = error.to_string();
    assert!(text.contains(&expected.to_string()), "{text}");
}

#[test]
fn without_an_expected_authority_anybody_may_answer_at_any_time() {
    assert_eq!(judge_at(NOW, |_| None), Ok(()));
    assert_eq!(judge_at(NOW + 1_000_000, |_| None), Ok(()));
}

#[test]
fn both_implementations_refuse_each_others_server_under_another_authority() {
    let (authority, other) = (AuthoritySecretKey::generate(), AuthoritySecretKey::generate());

    let initiator = noise_sv2::Initiator::from_raw_k(other.public().to_bytes()).unwrap();
    let (act1, initiator) = Handshake::initiator(initiator).step_0().unwrap();
    let identity = Identity::issue(&authority, NOW, HOUR);
    let (act2, _) = respond(&identity, act1.payload().try_into().unwrap()).unwrap();
    assert!(initiator.step_2_with_now(act2, NOW).is_err());

    let (initiator, act1) = Initiator::start(Some(other.public())).unwrap();
    let (act2, _) =
        their_responder(&authority).step_1_with_now_rng(act1, NOW, &mut rand::thread_rng()).unwrap();
    let error = initiator.finish(act2.payload().try_into().unwrap(), NOW).unwrap_err();
    assert_eq!(error, CertificateError::WrongAuthority { expected: other.public() }.into());
}

/// The pair that the reference implementation uses in its example configurations.
const KNOWN_PUBLIC: &str = "9auqWEzQDVyd2oe1JVGFLMLHZtCo2FFqZwtKA5gd9xbuEu7PH72";
const KNOWN_SECRET: &str = "mkDLTBBRxdBv998612qipDYoTK3YUrqLe8uWw7gu3iXbSrn2n";

#[test]
fn the_text_of_a_known_key_pair_is_read_and_written_as_elsewhere() {
    let public: AuthorityPublicKey = KNOWN_PUBLIC.parse().unwrap();
    let secret: AuthoritySecretKey = KNOWN_SECRET.parse().unwrap();
    assert_eq!(secret.public(), public);
    assert_eq!(public.to_string(), KNOWN_PUBLIC);
    assert_eq!(secret.expose_text(), KNOWN_SECRET);
    assert_eq!(AuthorityPublicKey::from_bytes(public.to_bytes()), Ok(public));
}

/// Stratum V2 specification, section 4.7.1.
#[test]
fn the_public_key_of_the_specification_is_read_and_written_as_there() {
    let raw = [
        118, 99, 112, 0, 151, 156, 28, 17, 175, 12, 48, 11, 205, 140, 127, 228, 134, 16, 252, 233, 185, 193,
        30, 61, 174, 227, 90, 224, 176, 138, 116, 85,
    ];
    let text = "9bXiEd8boQVhq7WddEcERUL5tyyJVFYdU8th3HfbNXK3Yw6GRXh";
    assert_eq!(AuthorityPublicKey::from_bytes(raw).unwrap().to_string(), text);
    assert_eq!(text.parse::<AuthorityPublicKey>().unwrap().to_bytes(), raw);
}

#[test]
fn generated_keys_survive_their_text_and_differ() {
    let (first, second) = (AuthoritySecretKey::generate(), AuthoritySecretKey::generate());
    assert_ne!(first.public(), second.public());
    let again: AuthoritySecretKey = first.expose_text().parse().unwrap();
    assert_eq!(again.public(), first.public());
    assert_eq!(first.public().to_string().parse(), Ok(first.public()));
}

#[test]
fn a_secret_key_is_not_shown_by_debug_formatting() {
    let secret = AuthoritySecretKey::generate();
    let identity = Identity::issue(&secret, NOW, HOUR);
    let hex: String = secret_bytes(&secret).iter().map(|byte| format!("{byte:02x}")).collect();
    for shown in [format!("{secret:?}"), format!("{secret:#?}"), format!("{identity:?}")] {
        assert!(!shown.contains(&secret.expose_text()) && !shown.contains(&hex), "{shown}");
    }
}

#[test]
fn a_text_that_is_no_public_key_is_refused_with_the_reason() {
    let error = |text: &str| text.parse::<AuthorityPublicKey>().unwrap_err();
    let check = |bytes: &[u8]| base58::encode_check(bytes);
    assert_eq!(error(""), KeyTextError::Empty);
    assert_eq!(error(&"9".repeat(81)), KeyTextError::TooLong { length: 81 });
    assert_eq!(error("9auq0WEz"), KeyTextError::Character { position: 5, found: '0' });
    assert_eq!(error("9auqWEzQé"), KeyTextError::Character { position: 9, found: 'é' });
    assert_eq!(error(&format!("{KNOWN_PUBLIC}\n")), KeyTextError::Character { position: 52, found: '\n' });
    assert_eq!(error(&KNOWN_PUBLIC.replace("zQ", "zR")), KeyTextError::Checksum);
    assert_eq!(error(&KNOWN_PUBLIC[..51 - 1]), KeyTextError::Checksum);
    assert_eq!(error("9"), KeyTextError::Checksum);
    assert_eq!(error(KNOWN_SECRET), KeyTextError::SecretForPublic);
    assert_eq!(error(&check(&[1, 0, 7])), KeyTextError::Length { expected: 34, found: 3 });
    let mut bytes = [&[2, 0][..], &[0x11; 32]].concat();
    assert_eq!(error(&check(&bytes)), KeyTextError::Prefix { found: [2, 0] });
    bytes[0] = 1;
    bytes[2..].fill(0xff);
    assert_eq!(error(&check(&bytes)), KeyTextError::NotOnCurve);
    assert_eq!(AuthorityPublicKey::from_bytes([0xff; 32]), Err(KeyTextError::NotOnCurve));
}

#[test]
fn a_text_that_is_no_secret_key_is_refused_with_the_reason_and_without_the_text() {
    let error = |text: &str| text.parse::<AuthoritySecretKey>().unwrap_err();
    let check = |bytes: &[u8]| base58::encode_check(bytes);
    assert_eq!(error(KNOWN_PUBLIC), KeyTextError::PublicForSecret);
    assert_eq!(error(&check(&[7; 31])), KeyTextError::Length { expected: 32, found: 31 });
    assert_eq!(error(&check(&[0; 32])), KeyTextError::SecretOutOfRange);
    assert_eq!(error(&check(&[0xff; 32])), KeyTextError::SecretOutOfRange);
    let damaged = KNOWN_SECRET.replace("mkDL", "mkDM");
    for text in [damaged.as_str(), &KNOWN_SECRET[..40], &format!("{KNOWN_SECRET} ")] {
        let shown = format!("{} {:?}", error(text), error(text));
        assert!(!shown.contains(&text[4..20]), "{shown}");
    }
}
