//! Each message: its type and its payload, as a stranger might send it.
//!
//! Promises: decoding says yes or no; what was decoded, encoded again and decoded again is the same; the
//! judgement of a SetupConnection and the search for a worker's name end for all bytes.

use crate::Choices;
use binary_sv2::{Encodable, GetSize};
use common_messages_sv2::SetupConnection;
use parsers_sv2::{CommonMessages, Extensions, IsSv2Message, Mining};
use reservegrid::sv2::{setup, tlv};

/// First byte: the family; second: the message type; the rest: the payload.
pub fn one(data: &[u8]) {
    let mut choices = Choices(data);
    let (family, kind) = (choices.byte() % 4, choices.byte());
    let mut payload = choices.0.to_vec();
    match family {
        0 => {
            if let Ok(message) = Mining::try_from((kind, &mut payload[..])) {
                let mut again = bytes(message.clone());
                let second =
                    Mining::try_from((message.message_type(), &mut again[..])).expect("decodes again");
                assert_eq!(format!("{message:?}"), format!("{second:?}"));
            }
        }
        1 => {
            if let Ok(message) = CommonMessages::try_from((kind, &mut payload[..])) {
                let mut again = bytes(message.clone());
                let second = CommonMessages::try_from((message.message_type(), &mut again[..]))
                    .expect("decodes again");
                assert_eq!(format!("{message:?}"), format!("{second:?}"));
            }
        }
        2 => {
            let _ = Extensions::try_from((1, kind, &mut payload[..]));
            if let Some(name) = tlv::worker_name(choices.0) {
                assert!((1..=32).contains(&name.len()));
            }
        }
        _ => {
            if let Ok(message) = binary_sv2::from_bytes::<SetupConnection>(&mut payload) {
                let _ = setup::judge(&message);
            }
        }
    }
}

fn bytes(message: impl Encodable + GetSize) -> Vec<u8> {
    let mut bytes = vec![0; message.get_size()];
    message.to_bytes(&mut bytes).expect("a decoded message can be encoded");
    bytes
}

/// What clients send, with plausible fields.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<_> = crate::session::client_messages()
        .into_iter()
        .map(|(kind, p)| [&[0, kind][..], &p].concat())
        .collect();
    let setup = crate::session::setup_payload(0b100);
    seeds.push([&[1, 0][..], &setup].concat());
    seeds.push([&[3, 0][..], &setup].concat());
    seeds.push(vec![2, 0, 1, 0, 1, 0, 2, 0]);
    seeds
}
