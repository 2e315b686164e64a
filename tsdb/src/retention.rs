//! When to drop what: a plain function from what is stored to the cut to propose.
//!
//! It knows no clock and changes nothing; the proposer logs its answer as a `Retain` command.

use model::Timestamp;

/// A sealed block as retention sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRange {
    pub min: Timestamp,
    pub max: Timestamp,
    pub bytes: u64,
}

/// How much may be kept; zero or below means no limit.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    pub retention_ms: i64,
    pub bytes_max: u64,
}

/// What a `Retain` command should say; `None` when it would drop nothing. By time: blocks wholly
/// older than `now - retention_ms`. By size: the oldest blocks until the rest fits.
pub fn choose(blocks: &[BlockRange], now: Timestamp, policy: &Policy) -> Option<Timestamp> {
    let by_time = (policy.retention_ms > 0).then(|| now.plus_ms(-policy.retention_ms));
    let cut = by_time.max(size_cut(blocks, policy.bytes_max))?;
    blocks.iter().any(|block| block.max < cut).then_some(cut)
}

fn size_cut(blocks: &[BlockRange], bytes_max: u64) -> Option<Timestamp> {
    if bytes_max == 0 {
        return None;
    }
    let mut newest_first = blocks.to_vec();
    newest_first.sort_by_key(|block| std::cmp::Reverse((block.max, block.min)));
    let mut kept = 0u64;
    newest_first
        .iter()
        .find(|block| {
            kept = kept.saturating_add(block.bytes);
            kept > bytes_max
        })
        .map(|block| block.max.plus_ms(1))
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

    fn cut(retention_ms: i64, bytes_max: u64) -> Option<i64> {
        let blocks = HOURS.map(|(min, max, bytes)| block(min, max, bytes));
        let policy = Policy {
            retention_ms,
            bytes_max,
        };
        choose(&blocks, Timestamp(300), &policy).map(|t| t.0)
    }

    #[test]
    fn drops_by_age_and_by_size_whichever_is_more() {
        assert_eq!(cut(0, 0), None);
        assert_eq!(
            cut(250, 0),
            None,
            "the first block still reaches into the time"
        );
        assert_eq!(cut(200, 0), Some(100));
        assert_eq!(cut(0, 30), None);
        assert_eq!(cut(0, 29), Some(100));
        assert_eq!(cut(0, 10), Some(200));
        assert_eq!(cut(200, 10), Some(200));
        assert_eq!(cut(50, 29), Some(250));
    }
}
