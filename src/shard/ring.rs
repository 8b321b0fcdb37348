//! Consistent hashing: shards stand at many points of a ring, and a key belongs to the next point behind its hash. A shard that joins
//! takes its share from all others, and no key moves between those.

use super::hash::hash_bytes;

/// Points for each unit of a shard's weight, unless the settings say otherwise.
pub const VIRTUAL_NODES_DEFAULT: usize = 128;
/// The most points that a ring may have.
pub const RING_POINTS_MAX: usize = 1 << 20;

/// A ring. Where a shard's points are depends on its name only, so that the order of the shards does not matter.
#[derive(Clone, Debug, PartialEq)]
pub struct Ring {
    /// Points in ascending order, each with its shard.
    points: Vec<(u64, usize)>,
    /// The shards' names and weights.
    shards: Vec<(String, usize)>,
    virtual_nodes: usize,
}

impl Ring {
    /// A ring of shards with their names and weights. A shard of weight 0 gets no keys.
    pub fn new(shards: &[(&str, usize)], virtual_nodes: usize) -> Ring {
        let mut points: Vec<(u64, &str, usize)> = Vec::new();
        for (shard, (name, weight)) in shards.iter().enumerate() {
            let count = virtual_nodes.saturating_mul(*weight).min(RING_POINTS_MAX);
            points.extend((0..count).map(|node| (point(name, node), *name, shard)));
        }
        // Two shards at one point: the first by name has it, whatever the order of the shards.
        points.sort_unstable();
        points.dedup_by_key(|(at, ..)| *at);
        Ring {
            points: points.into_iter().map(|(at, _, shard)| (at, shard)).collect(),
            shards: shards.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect(),
            virtual_nodes,
        }
    }

    /// This ring with one more shard at its end.
    #[must_use]
    pub fn joined_by(&self, name: &str, weight: usize) -> Ring {
        let known = self.shards.iter().map(|(name, weight)| (name.as_str(), *weight));
        Ring::new(&known.chain([(name, weight)]).collect::<Vec<_>>(), self.virtual_nodes)
    }

    /// The shards' names and weights.
    pub fn shards(&self) -> &[(String, usize)] {
        &self.shards
    }

    /// Points for each unit of weight.
    pub fn virtual_nodes(&self) -> usize {
        self.virtual_nodes
    }

    /// The shard of a key with this hash; `None` only on an empty ring.
    pub fn shard_at(&self, hash: u64) -> Option<usize> {
        let next = self.points.partition_point(|(at, _)| *at < hash);
        self.points.get(next).or(self.points.first()).map(|(_, shard)| *shard)
    }

    /// Each shard's share of all keys, from 0 to 1, by its number.
    pub fn shares(&self, shards: usize) -> Vec<f64> {
        let mut shares = vec![0.0; shards];
        for_each_arc(&[self], |length, owners| {
            if let Some(share) = owners[0].and_then(|shard| shares.get_mut(shard)) {
                *share += length;
            }
        });
        shares
    }

    /// The share of all keys, from 0 to 1, that belong to another shard on the other ring. Shards are compared by number.
    pub fn moved(&self, other: &Ring) -> f64 {
        let mut moved = 0.0;
        for_each_arc(&[self, other], |length, owners| {
            if owners[0] != owners[1] {
                moved += length;
            }
        });
        moved
    }
}

/// Where a shard's point is. lookup3 alone leaves the points of similar names too alike, so its result goes through it once more.
fn point(name: &str, node: usize) -> u64 {
    let first = hash_bytes(name.as_bytes(), node as u64 + 1);
    hash_bytes(&first.to_le_bytes(), node as u64)
}

/// Calls with the length of each part of the circle between two points of any ring, and its owners on all rings.
fn for_each_arc(rings: &[&Ring], mut call: impl FnMut(f64, &[Option<usize>])) {
    let mut ends: Vec<u64> = rings.iter().flat_map(|ring| ring.points.iter().map(|(at, _)| *at)).collect();
    ends.sort_unstable();
    ends.dedup();
    let circle = 2.0_f64.powi(64);
    for (index, end) in ends.iter().enumerate() {
        // The part before the first point begins behind the last one.
        let begin = if index == 0 { ends[ends.len() - 1] } else { ends[index - 1] };
        let length = if ends.len() == 1 { circle } else { end.wrapping_sub(begin) as f64 };
        let owners: Vec<Option<usize>> = rings.iter().map(|ring| ring.shard_at(*end)).collect();
        call(length / circle, &owners);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn even(names: &[&str]) -> Ring {
        let shards: Vec<(&str, usize)> = names.iter().map(|name| (*name, 1)).collect();
        Ring::new(&shards, VIRTUAL_NODES_DEFAULT)
    }

    #[test]
    fn shares_follow_the_weights() {
        let ring = Ring::new(&[("a", 1), ("b", 2), ("c", 0), ("d", 1)], 512);
        let shares = ring.shares(4);
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{shares:?}");
        for (share, expect) in shares.iter().zip([0.25, 0.5, 0.0, 0.25]) {
            assert!((share - expect).abs() < 0.06, "{shares:?}");
        }
    }

    #[test]
    fn a_shard_that_joins_takes_its_share_and_no_more() {
        let before = even(&["s0", "s1", "s2"]);
        let after = before.joined_by("s3", 1);
        assert_eq!(after, even(&["s0", "s1", "s2", "s3"]));
        let (moved, share) = (before.moved(&after), after.shares(4)[3]);
        assert!((moved - share).abs() < 1e-9, "{moved} moved for a share of {share}");
        assert!((0.15..0.35).contains(&moved), "{moved}");
        assert_eq!(before.moved(&before), 0.0);
    }

    #[test]
    fn the_ends_of_the_ring() {
        assert_eq!(Ring::new(&[], 128).shard_at(5), None);
        assert_eq!(Ring::new(&[("a", 0)], 128).shard_at(5), None);
        let one = Ring::new(&[("a", 1)], 1);
        assert_eq!((one.shard_at(0), one.shard_at(u64::MAX)), (Some(0), Some(0)));
        assert_eq!(one.shares(1), [1.0]);
    }

    proptest! {
        #[test]
        fn keys_move_only_to_the_shard_that_joins(hashes: Vec<u64>, count in 1usize..6) {
            let names = ["n0", "n1", "n2", "n3", "n4", "n5", "n6"];
            let (before, after) = (even(&names[..count]), even(&names[..=count]));
            for hash in hashes {
                let (old, new) = (before.shard_at(hash), after.shard_at(hash));
                prop_assert!(new == old || new == Some(count));
            }
        }

        #[test]
        fn the_order_of_the_shards_does_not_matter(hashes: Vec<u64>) {
            let (one, two) = (Ring::new(&[("x", 1), ("y", 2)], 64), Ring::new(&[("y", 2), ("x", 1)], 64));
            for hash in hashes {
                prop_assert_eq!(one.shard_at(hash), two.shard_at(hash).map(|shard| 1 - shard));
            }
        }
    }
}
