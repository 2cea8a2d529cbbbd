//! From hash rate to target, from target to difficulty.

use bitcoin::{Target, Work};

/// The easiest possible target: every hash meets it.
pub fn easiest() -> Target {
    Target::from_le_bytes([0xff; 32])
}

/// Between which targets a channel may be.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The easiest target the miner takes.
    pub miner: Target,
    /// The easiest target the pool gives, so that a miner of unknown hash rate does not flood it.
    pub pool: Target,
    /// The network's target: a harder one would throw solved blocks away.
    pub network: Target,
}

/// The target at which `hashrate` (hashes a second) finds about `shares_per_minute` shares.
///
/// Never harder than the network's; otherwise never easier than the pool allows; and in any case never
/// easier than the miner allows.
pub fn for_hashrate(hashrate: f64, shares_per_minute: f64, bounds: Bounds) -> Target {
    let target = from_expected_hashes((hashrate * 60.0 / shares_per_minute).max(1.0));
    target.min(bounds.pool).max(bounds.network).min(bounds.miner)
}

/// The target of a difficulty; 0 is the easiest target.
pub fn from_difficulty(difficulty: f64) -> Target {
    from_expected_hashes(difficulty * DIFFICULTY_ONE)
}

/// Hashes that a share of this target costs on average.
pub fn expected_hashes(target: Target) -> f64 {
    hashes_of(difficulty(target))
}

/// Hashes that a share of this difficulty costs on average.
pub fn hashes_of(difficulty: f64) -> f64 {
    (difficulty * DIFFICULTY_ONE).max(1.0)
}

/// Hashes for a share of difficulty 1 on average: 2^256 / (0xffff * 2^208).
const DIFFICULTY_ONE: f64 = 4_295_032_833.0;

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

    fn bounds(network: Target) -> Bounds {
        Bounds { miner: easiest(), pool: easiest(), network }
    }

    #[test]
    fn one_hash_a_share_gives_the_easiest_target() {
        let regtest = Target::MAX_ATTAINABLE_REGTEST;
        assert_eq!(for_hashrate(0.0, 6.0, bounds(regtest)), easiest());
    }

    #[test]
    fn a_big_miner_is_never_given_more_than_the_network_asks() {
        let regtest = Target::MAX_ATTAINABLE_REGTEST;
        assert_eq!(for_hashrate(1e15, 6.0, bounds(regtest)), regtest);
    }

    #[test]
    fn ten_terahash_at_six_a_minute_is_difficulty_23283() {
        // 1e13 * 10 s = 1e14 hashes a share; difficulty 1 is 2^32 hashes.
        let mainnet = Target::from_compact(bitcoin::CompactTarget::from_consensus(0x1702_0000));
        let target = for_hashrate(1e13, 6.0, bounds(mainnet));
        assert!((difficulty(target) - 1e14 / 2f64.powi(32)).abs() < 2.0, "{}", difficulty(target));
    }

    #[test]
    fn the_miners_own_maximum_wins() {
        let hard = Target::from_le_bytes({
            let mut bytes = [0; 32];
            bytes[20] = 1;
            bytes
        });
        assert_eq!(for_hashrate(1.0, 6.0, Bounds { miner: hard, ..bounds(Target::ZERO) }), hard);
    }

    #[test]
    fn no_hash_rate_makes_a_target_easier_than_the_pool_allows_but_the_networks_is_always_allowed() {
        let pool = from_difficulty(0.001);
        for hashrate in [0.0, 1e-30, 1.0, 1e5] {
            assert_eq!(for_hashrate(hashrate, 6.0, Bounds { pool, ..bounds(Target::ZERO) }), pool);
        }
        let regtest = Target::MAX_ATTAINABLE_REGTEST;
        assert_eq!(for_hashrate(0.0, 6.0, Bounds { pool, ..bounds(regtest) }), regtest);
    }

    #[test]
    fn difficulty_target_and_hashes_agree() {
        assert_eq!(from_difficulty(0.0), easiest());
        assert_eq!(expected_hashes(easiest()), 1.0);
        for number in [1e-4, 0.5, 1.0, 1e3, 1e9, 1e14] {
            let target = from_difficulty(number);
            assert!((difficulty(target) / number - 1.0).abs() < 1e-3, "{number}: {}", difficulty(target));
            let hashes = expected_hashes(target);
            assert!((hashes / (number * DIFFICULTY_ONE) - 1.0).abs() < 1e-3, "{number}: {hashes}");
        }
    }
}
