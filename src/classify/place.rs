//! Which shard of a class takes new data.

/// One of `shards` for `key`, by weight, among those that are `usable`; else the fallback, if that
/// is usable; else `None`.
///
/// The same key gives the same shard as long as the class's list stays. A shard that is added takes
/// its share from the others and moves nothing between them; one that is not usable leaves its keys
/// to the others and moves nothing else (rendezvous hashing).
pub fn pick_shard<'a>(
    shards: &'a [(String, u32)],
    fallback: Option<&'a str>,
    key: u64,
    usable: impl Fn(&str) -> bool,
) -> Option<&'a str> {
    let best = shards
        .iter()
        .filter(|(name, _)| usable(name))
        .max_by(|a, b| score(key, a).total_cmp(&score(key, b)));
    match best {
        Some((name, _)) => Some(name),
        None => fallback.filter(|name| usable(name)),
    }
}

/// Weight over the negative logarithm of a number in (0, 1) drawn from key and name: the shard with
/// the highest score is each with a probability proportional to its weight.
fn score(key: u64, (name, weight): &(String, u32)) -> f64 {
    let drawn = mix(mix(key).wrapping_add(name_hash(name)));
    // The upper 53 bits are what a f64 holds exactly; the half keeps 0 and its logarithm away.
    #[allow(clippy::cast_precision_loss)]
    let unit = ((drawn >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    f64::from(*weight) / -unit.ln()
}

/// 64-bit FNV-1a.
fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The finalizer of SplitMix64: every bit of `x` reaches every bit of the result.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::pick_shard;

    fn list(shards: &[(&str, u32)]) -> Vec<(String, u32)> {
        shards.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect()
    }

    fn picks(shards: &[(&str, u32)]) -> Vec<String> {
        let shards = list(shards);
        let pick = |key| pick_shard(&shards, None, key, |_| true).unwrap().to_owned();
        (0..20_000).map(pick).collect()
    }

    #[test]
    fn shares_follow_weights() {
        let picked = picks(&[("ssd", 1), ("hdd1", 3), ("hdd2", 6)]);
        for (name, share) in [("ssd", 2_000), ("hdd1", 6_000), ("hdd2", 12_000)] {
            let count = picked.iter().filter(|picked| *picked == name).count();
            assert!(count.abs_diff(share) < 300, "{name}: {count} instead of {share}");
        }
    }

    #[test]
    fn an_added_shard_takes_from_all_and_moves_nothing_else() {
        let before = picks(&[("a", 1), ("b", 2)]);
        let after = picks(&[("b", 2), ("new", 1), ("a", 1)]);
        let moved: Vec<_> = before.iter().zip(&after).filter(|(old, new)| old != new).collect();
        assert!(moved.iter().all(|(_, new)| *new == "new"));
        assert!(moved.len().abs_diff(5_000) < 300, "{}", moved.len());
        assert!(["a", "b"].iter().all(|name| moved.iter().any(|(old, _)| old == name)));
    }

    #[test]
    fn an_unusable_shard_moves_only_its_own_keys() {
        let shards = [("a", 1), ("b", 1), ("c", 1)];
        let listed = list(&shards);
        for (key, all) in (0..).zip(picks(&shards)) {
            let without_b = pick_shard(&listed, Some("d"), key, |name| name != "b").unwrap();
            assert!(all == "b" || all == without_b);
            assert_ne!(without_b, "b");
        }
    }

    #[test]
    fn the_fallback_comes_last() {
        let shards = list(&[("a", 1)]);
        let with = |usable: fn(&str) -> bool| pick_shard(&shards, Some("spare"), 7, usable);
        assert_eq!(with(|_| true), Some("a"));
        assert_eq!(with(|name| name != "a"), Some("spare"));
        assert_eq!(with(|_| false), None);
        assert_eq!(pick_shard(&shards, None, 7, |name| name != "a"), None);
    }
}
