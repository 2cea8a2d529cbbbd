//! From hash rate to target, from target to difficulty.

use bitcoin::{Target, Work};

/// The easiest possible target: every hash meets it.
pub fn easiest() -> Target {
    Target::from_le_bytes([0xff; 32])
}

/// The target at which `hashrate` (hashes a second) finds about `shares_per_minute` shares.
///
/// Never easier than `max_target`, which the miner set, and never harder than `network_target`: a
/// harder one would throw solved blocks away.
pub fn for_hashrate(
    hashrate: f32,
    shares_per_minute: f64,
    max_target: Target,
    network_target: Target,
) -> Target {
    let hashes_per_share = (f64::from(hashrate) * 60.0 / shares_per_minute).max(1.0);
    from_expected_hashes(hashes_per_share).max(network_target).min(max_target)
}

/// The target as Bitcoin's difficulty: 1.0 is 2^32 hashes on average.
pub fn difficulty(target: Target) -> f64 {
    target.difficulty_float()
}

fn from_expected_hashes(hashes: f64) -> Target {
    // 2^256 / hashes; `Work` is exactly that quotient, and holds more than any f64 needs here.
    let hashes = hashes.min(2f64.powi(120)) as u128;
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(&hashes.to_le_bytes());
    if hashes <= 1 { easiest() } else { Work::from_le_bytes(bytes).to_target() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_hash_a_share_gives_the_easiest_target() {
        let regtest = Target::MAX_ATTAINABLE_REGTEST;
        assert_eq!(for_hashrate(0.0, 6.0, easiest(), regtest), easiest());
    }

    #[test]
    fn a_big_miner_is_never_given_more_than_the_network_asks() {
        let regtest = Target::MAX_ATTAINABLE_REGTEST;
        assert_eq!(for_hashrate(1e15, 6.0, easiest(), regtest), regtest);
    }

    #[test]
    fn ten_terahash_at_six_a_minute_is_difficulty_23283() {
        // 1e13 * 10 s = 1e14 hashes a share; difficulty 1 is 2^32 hashes.
        let mainnet = Target::from_compact(bitcoin::CompactTarget::from_consensus(0x1702_0000));
        let target = for_hashrate(1e13, 6.0, easiest(), mainnet);
        assert!((difficulty(target) - 1e14 / 2f64.powi(32)).abs() < 2.0, "{}", difficulty(target));
    }

    #[test]
    fn the_miners_own_maximum_wins() {
        let hard = Target::from_le_bytes({
            let mut bytes = [0; 32];
            bytes[20] = 1;
            bytes
        });
        assert_eq!(for_hashrate(1.0, 6.0, hard, Target::ZERO), hard);
    }
}
