//! What the fuzz targets do, one module a target. Each has `one`, which takes any bytes and panics when a
//! promise is broken, and `seeds`, which are honest inputs to start from.
//!
//! `make fuzz` lets libFuzzer look for bytes that break them. A test runs the seeds and simple damage of
//! them, so that a target that is broken itself is noticed without a fuzzer.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is how a target reports

pub mod frames;
pub mod handshake;
pub mod messages;
pub mod provider;
pub mod session;
pub mod transactions;

/// Writes seeds where `RESERVEGRID_FUZZ_SEEDS` says; `scripts/fuzz.sh` sets it.
pub fn write_seeds(seeds: &[Vec<u8>]) {
    if let Some(folder) = std::env::var_os("RESERVEGRID_FUZZ_SEEDS") {
        for (number, seed) in seeds.iter().enumerate() {
            let path = std::path::Path::new(&folder).join(format!("seed-{number:03}"));
            std::fs::write(path, seed).expect("seeds can be written");
        }
    }
}

/// Makes a program of a target: with libFuzzer, or one that replays the files it is given.
#[macro_export]
macro_rules! target {
    ($name:ident) => {
        #[cfg(feature = "libfuzzer")]
        libfuzzer_sys::fuzz_target!(
            init: $crate::write_seeds(&$crate::$name::seeds()),
            |data: &[u8]| $crate::$name::one(data)
        );

        #[cfg(not(feature = "libfuzzer"))]
        fn main() {
            for path in std::env::args_os().skip(1) {
                $crate::$name::one(&std::fs::read(path).expect("the file can be read"));
            }
        }
    };
}

/// Takes bytes apart, as the fuzzer's choices. What is not there is zero.
pub struct Choices<'a>(pub &'a [u8]);

impl<'a> Choices<'a> {
    /// Whether nothing is left to choose from.
    pub fn done(&self) -> bool {
        self.0.is_empty()
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    /// Two bytes, little-endian.
    pub fn short(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// As many bytes as there are, at most `length`.
    pub fn bytes(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every seed, and each of them cut short, with one bit turned, and with another spliced in.
    fn run(seeds: &[Vec<u8>], one: fn(&[u8]), damaged: usize) {
        assert!(!seeds.is_empty());
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state >> 33).unwrap()
        };
        for seed in seeds {
            one(seed);
        }
        for _ in 0..damaged {
            let mut bytes = seeds[random() % seeds.len()].clone();
            let at = random() % (bytes.len() + 1);
            match random() % 3 {
                0 => bytes.truncate(at),
                1 if at < bytes.len() => bytes[at] ^= 1 << (random() % 8),
                _ => bytes.splice(at.., seeds[random() % seeds.len()].iter().copied()).for_each(drop),
            }
            one(&bytes);
        }
    }

    #[test]
    fn seeds_and_damage_of_them_break_no_promise_of_a_handshake() {
        run(&handshake::seeds(), handshake::one, 200);
    }

    #[test]
    fn seeds_and_damage_of_them_break_no_promise_of_frames() {
        run(&frames::seeds(), frames::one, 200);
    }

    #[test]
    fn seeds_and_damage_of_them_break_no_promise_of_messages() {
        run(&messages::seeds(), messages::one, 20_000);
    }

    #[test]
    fn seeds_and_damage_of_them_break_no_promise_of_a_session() {
        run(&session::seeds(), session::one, 100);
    }

    #[test]
    fn seeds_and_damage_of_them_break_no_promise_of_a_template_provider() {
        run(&provider::seeds(), provider::one, 5_000);
    }

    #[test]
    fn seeds_and_damage_of_them_break_no_promise_of_transactions() {
        run(&transactions::seeds(), transactions::one, 5_000);
    }
}
