//! When to drop what: plain functions from what is stored to the cut to propose.
//!
//! They know no clock and change nothing; the proposer logs the answer as a `Retain` command.

use model::Timestamp;

/// A sealed block as retention sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRange {
    pub min: Timestamp,
    pub max: Timestamp,
    pub bytes: u64,
}

/// What a shard takes of its node's disk.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Held {
    pub blocks: Vec<BlockRange>,
    /// What no drop gives back.
    pub other_bytes: u64,
}

/// Before when everything is to be dropped: for its age, and for what all shards take together.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    pub keep_from: Option<Timestamp>,
    /// One of the answers of [`fit`].
    pub fits_from: Option<Timestamp>,
}

/// What a `Retain` command should say; `None` when it would drop nothing. It drops blocks that are
/// wholly older.
pub fn choose(blocks: &[BlockRange], policy: &Policy) -> Option<Timestamp> {
    let cut = policy.keep_from.max(policy.fits_from)?;
    blocks.iter().any(|block| block.max < cut).then_some(cut)
}

/// For each shard of a node what to drop so that what is left of all fits: the oldest blocks wherever they are,
/// and no more of them than it takes.
pub fn fit(shards: &[Held], bytes_max: u64) -> Vec<Option<Timestamp>> {
    let bytes = shards.iter().flat_map(|held| {
        let blocks = held.blocks.iter().map(|block| block.bytes);
        blocks.chain([held.other_bytes])
    });
    let mut excess = bytes.fold(0, u64::saturating_add).saturating_sub(bytes_max);
    let blocks = shards.iter().enumerate().flat_map(|(shard, held)| {
        let blocks = held.blocks.iter();
        blocks.map(move |block| (block.max, block.min, shard, block.bytes))
    });
    let mut oldest_first: Vec<_> = blocks.collect();
    oldest_first.sort_unstable();
    let mut cuts = vec![None; shards.len()];
    for (max, _, shard, bytes) in oldest_first {
        if excess == 0 {
            break;
        }
        excess = excess.saturating_sub(bytes);
        cuts[shard] = Some(max.plus_ms(1));
    }
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(min: i64, max: i64, bytes: u64) -> BlockRange {
        BlockRange {
            min: Timestamp(min),
            max: Timestamp(max),
            bytes,
        }
    }

    const HOURS: [(i64, i64, u64); 3] = [(0, 99, 10), (100, 199, 10), (200, 299, 10)];

    fn cut(keep_from: Option<i64>, bytes_max: u64) -> Option<i64> {
        let blocks = HOURS.map(|(min, max, bytes)| block(min, max, bytes));
        let held = Held {
            blocks: blocks.to_vec(),
            other_bytes: 0,
        };
        let policy = Policy {
            keep_from: keep_from.map(Timestamp),
            fits_from: fit(&[held], bytes_max)[0],
        };
        choose(&blocks, &policy).map(|t| t.0)
    }

    #[test]
    fn drops_by_age_and_by_size_whichever_is_more() {
        const ALL: u64 = u64::MAX;
        assert_eq!(cut(None, ALL), None);
        assert_eq!(
            cut(Some(50), ALL),
            None,
            "the first block still reaches into the time"
        );
        assert_eq!(cut(Some(100), ALL), Some(100));
        assert_eq!(cut(None, 30), None);
        assert_eq!(cut(None, 29), Some(100));
        assert_eq!(cut(None, 10), Some(200));
        assert_eq!(cut(Some(100), 10), Some(200));
        assert_eq!(cut(Some(250), 29), Some(250));
    }

    fn cuts(shards: &[(&[BlockRange], u64)], bytes_max: u64) -> Vec<Option<i64>> {
        let held = shards.iter().map(|(blocks, other_bytes)| Held {
            blocks: blocks.to_vec(),
            other_bytes: *other_bytes,
        });
        let cuts = fit(&held.collect::<Vec<_>>(), bytes_max);
        cuts.iter().map(|cut| cut.map(|t| t.0)).collect()
    }

    #[test]
    fn a_node_drops_its_oldest_blocks_and_no_more_than_it_must() {
        let one = [block(0, 99, 10), block(100, 199, 10)];
        let other = [block(0, 99, 30), block(100, 200, 30), block(200, 299, 1)];
        let shards = [(&one[..], 0), (&other[..], 0)];
        assert_eq!(cuts(&shards, 81), [None, None]);
        assert_eq!(cuts(&shards, 80), [Some(100), None], "one of two alike");
        assert_eq!(cuts(&shards, 70), [Some(100), Some(100)]);
        assert_eq!(cuts(&shards, 40), [Some(200), Some(100)]);
        assert_eq!(cuts(&shards, 1), [Some(200), Some(201)]);
        assert_eq!(cuts(&shards, 0), [Some(200), Some(300)]);
        let heads = [(&one[..], 5), (&[][..], 6)];
        assert_eq!(cuts(&heads, 31), [None, None]);
        assert_eq!(
            cuts(&heads, 30),
            [Some(100), None],
            "what is no block counts"
        );
        assert_eq!(cuts(&heads, 2), [Some(200), None], "and stays");
    }
}
