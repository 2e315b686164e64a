//! Which blocks to make one: a plain function from what is sealed to the blocks to propose.
//!
//! Time is cut into windows of 12 hours, of 3 days and of 18 days, the wider ones only while a
//! tenth of the retention is as long, so that dropping a block never drops much at once. Once all
//! of a window is sealed, the blocks within it become one, the narrowest and oldest window first.
//! What comes late to a window makes further blocks there; they wait until they are worth writing
//! the large one again. Where retention goes by size, no block may be large for it either.

use model::Timestamp;

const HOUR_MS: i64 = 3_600_000;

/// Lengths of the windows, ascending, each a multiple of the one before.
pub const WINDOWS_MS: [i64; 3] = [12 * HOUR_MS, 72 * HOUR_MS, 432 * HOUR_MS];

/// So many blocks of a window are made one whatever they weigh.
const BLOCKS_MANY: usize = 8;
/// And fewer, if the small ones together have this share of the largest's bytes.
const SHARE: u64 = 4;

/// A sealed block as compaction sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    pub id: u64,
    pub min: Timestamp,
    pub max: Timestamp,
    /// Of its file; 0 before it is written.
    pub bytes: u64,
    /// Whether something of it is deleted: it must be cleaned first.
    pub unclean: bool,
}

/// What to propose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// A block of a window that is due holds what was deleted.
    Clean(u64),
    /// Ids, ascending.
    Compact(Vec<u64>),
}

/// How large a block may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Zero or below is none.
    pub retention_ms: i64,
    pub bytes_max: u64,
}

/// `None` while nothing is due. `sealed_before` is the furthest cut of any seal.
pub fn choose(blocks: &[Candidate], sealed_before: Timestamp, bounds: Bounds) -> Option<Choice> {
    let widest = match bounds.retention_ms {
        ..=0 => i64::MAX,
        retention => retention / 10,
    };
    let lengths = WINDOWS_MS.into_iter();
    lengths
        .filter(|length| *length <= widest.max(WINDOWS_MS[0]))
        .find_map(|length| choose_of(blocks, sealed_before, length, bounds.bytes_max))
}

fn choose_of(
    blocks: &[Candidate],
    sealed_before: Timestamp,
    length: i64,
    bytes_max: u64,
) -> Option<Choice> {
    let window = |at: Timestamp| at.0.div_euclid(length);
    let mut inside: Vec<&Candidate> = blocks
        .iter()
        .filter(|block| window(block.min) == window(block.max))
        .filter(|block| window(block.min) < window(sealed_before))
        .collect();
    inside.sort_unstable_by_key(|block| (window(block.min), block.id));
    inside
        .chunk_by(|a, b| window(a.min) == window(b.min))
        .find_map(|blocks| due(blocks, bytes_max))
}

/// The blocks of one window, by id.
fn due(blocks: &[&Candidate], bytes_max: u64) -> Option<Choice> {
    let total: u64 = blocks.iter().map(|block| block.bytes).sum();
    let largest = blocks.iter().map(|block| block.bytes).max()?;
    let worth = (total - largest).saturating_mul(SHARE) >= largest || blocks.len() >= BLOCKS_MANY;
    let known = blocks.iter().all(|block| block.bytes > 0);
    if blocks.len() < 2 || !worth || !known || total > bytes_max {
        return None;
    }
    let unclean = blocks.iter().find(|block| block.unclean);
    Some(match unclean {
        Some(block) => Choice::Clean(block.id),
        None => Choice::Compact(blocks.iter().map(|block| block.id).collect()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES_MAX: u64 = 10_000;

    fn block(id: u64, from_h: i64, to_h: i64, bytes: u64) -> Candidate {
        Candidate {
            id,
            min: Timestamp(from_h * HOUR_MS),
            max: Timestamp(to_h * HOUR_MS - 1),
            bytes,
            unclean: false,
        }
    }

    fn chosen(blocks: &[Candidate], sealed_h: i64, retention_h: i64) -> Option<Choice> {
        let sealed = Timestamp(sealed_h * HOUR_MS);
        let bounds = Bounds {
            retention_ms: retention_h * HOUR_MS,
            bytes_max: BYTES_MAX,
        };
        choose(blocks, sealed, bounds)
    }

    fn two_hours(count: u64) -> Vec<Candidate> {
        let blocks = (0..count).map(|n| block(n, n as i64 * 2, n as i64 * 2 + 2, 100));
        blocks.collect()
    }

    #[test]
    fn a_window_becomes_one_block_once_all_of_it_is_sealed() {
        let blocks = two_hours(7);
        assert_eq!(chosen(&blocks, 11, 0), None);
        assert_eq!(
            chosen(&blocks, 12, 0),
            Some(Choice::Compact((0..6).collect()))
        );
        let mut unclean = blocks.clone();
        unclean[3].unclean = true;
        assert_eq!(chosen(&unclean, 12, 0), Some(Choice::Clean(3)));
        assert_eq!(chosen(&blocks[..1], 24, 0), None, "nothing to make one");
    }

    #[test]
    fn wider_windows_wait_for_the_retention() {
        let halves: Vec<_> = (0..6)
            .map(|n| block(n, n as i64 * 12, n as i64 * 12 + 12, 100))
            .collect();
        assert_eq!(
            chosen(&halves, 72, 0),
            Some(Choice::Compact((0..6).collect()))
        );
        assert_eq!(
            chosen(&halves, 72, 720),
            Some(Choice::Compact((0..6).collect()))
        );
        assert_eq!(chosen(&halves, 72, 719), None);
        assert_eq!(
            chosen(&two_hours(6), 12, 1),
            Some(Choice::Compact((0..6).collect()))
        );
    }

    #[test]
    fn blocks_whose_whole_would_be_too_large_stay() {
        let half = BYTES_MAX / 2;
        let mut blocks = [block(1, 0, 2, half), block(2, 2, 4, half)];
        let both = Some(Choice::Compact(vec![1, 2]));
        assert_eq!(chosen(&blocks, 12, 0), both);
        blocks[1].bytes += 1;
        assert_eq!(chosen(&blocks, 12, 0), None);
        blocks[1].bytes = 0;
        assert_eq!(chosen(&blocks, 12, 0), None, "one is not written yet");
    }

    #[test]
    fn late_blocks_wait_until_they_are_worth_it() {
        let large = block(9, 0, 12, 1_000);
        assert_eq!(chosen(&[large, block(10, 3, 4, 10)], 14, 0), None);
        let both = Some(Choice::Compact(vec![9, 10]));
        assert_eq!(chosen(&[large, block(10, 3, 4, 250)], 14, 0), both);
        let many: Vec<_> = (10..17)
            .map(|id| block(id, 3, 4, 1))
            .chain([large])
            .collect();
        assert_eq!(
            chosen(&many, 14, 0),
            Some(Choice::Compact((9..17).collect()))
        );
        assert_eq!(
            chosen(&[large, block(10, 3, 30, 900)], 36, 0),
            None,
            "fits no window"
        );
    }
}
