//! Fields behind a message: what extensions add to messages of the base protocol.
//!
//! Each is extension (U16), field (U8), length (U16), value. The examples of the specification write
//! them big-endian, the reference implementation little-endian like everything else on the wire; miners
//! run the latter. The only field that means something here is the worker's name behind a share
//! (extension 0x0002, Worker-Specific Hashrate Tracking).

/// Extension: worker names behind shares.
pub const WORKER_NAMES: u16 = 0x0002;
/// Its field: the name.
const NAME: u8 = 0x01;
/// Longest name, bytes.
const MAX_NAME: usize = 32;
/// SubmitSharesExtended up to and with the length of its extranonce.
const FIXED: usize = 6 * 4 + 1;

/// The worker named behind a SubmitSharesExtended; `None` when there is none that is well-formed.
pub fn worker_name(payload: &[u8]) -> Option<&[u8]> {
    let extranonce = usize::from(*payload.get(FIXED - 1)?);
    let mut rest = payload.get(FIXED + extranonce..)?;
    while let [e0, e1, field, l0, l1, after @ ..] = rest {
        let (value, next) = after.split_at_checked(usize::from(u16::from_le_bytes([*l0, *l1])))?;
        if u16::from_le_bytes([*e0, *e1]) == WORKER_NAMES && *field == NAME {
            return (1..=MAX_NAME).contains(&value.len()).then_some(value);
        }
        rest = next;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn share(extranonce: usize, behind: &[u8]) -> Vec<u8> {
        [&[7; FIXED - 1][..], &[extranonce as u8], &vec![9; extranonce], behind].concat()
    }

    #[test]
    fn a_worker_is_found_behind_any_extranonce_and_other_fields() {
        let name = [&[2, 0, 1, 4, 0][..], b"rig1"].concat();
        let other = [&[9, 0, 1, 2, 0][..], b"xy"].concat();
        for extranonce in [0, 12, 32] {
            assert_eq!(worker_name(&share(extranonce, &name)), Some(&b"rig1"[..]));
            let both = [&other[..], &name].concat();
            assert_eq!(worker_name(&share(extranonce, &both)), Some(&b"rig1"[..]));
            assert_eq!(worker_name(&share(extranonce, &other)), None);
            assert_eq!(worker_name(&share(extranonce, &[])), None);
        }
    }

    #[test]
    fn a_name_that_is_empty_too_long_or_cut_is_none() {
        let of = |length: usize| [&[2, 0, 1, length as u8, 0][..], &vec![b'a'; length]].concat();
        assert_eq!(worker_name(&share(4, &of(32))).map(<[u8]>::len), Some(32));
        assert_eq!(worker_name(&share(4, &of(0))), None);
        assert_eq!(worker_name(&share(4, &of(33))), None);
        let cut = of(8);
        assert_eq!(worker_name(&share(4, &cut[..cut.len() - 1])), None);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(name) = worker_name(&bytes) {
                prop_assert!((1..=MAX_NAME).contains(&name.len()));
            }
        }
    }
}
