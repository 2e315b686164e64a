//! When to seal, and how far: a plain function from where the head begins to the cuts to propose.
//!
//! The last cut lies on a multiple of the block length, so that all shards and replicas cut alike, and so far
//! back that with the usual windows no sample is accepted behind it any more. Where a window is
//! longer than a block, the head does not wait for it: what comes behind the last cut goes into a
//! later block that overlaps others, one each time the cut moves on or once there is much of it. So
//! the number of blocks follows the time that passes and the samples that come, however old they
//! are.
//!
//! Retention drops whole blocks, and compaction makes one of those within a window of time. So each cut
//! takes a piece of the time there is: what is too old already, to be dropped at once; what came late,
//! which would else keep a whole block out of its window; and of what spans several windows one
//! after the other, as narrow as there are samples for.

use model::Timestamp;
use model::limits::{LATE_SAMPLES_MAX, SEALS_MAX};

use crate::compaction::WINDOWS_MS;

/// Fewer samples are not worth a block, where more than [`PIECES_FEW`] are to be made.
const PIECE_SAMPLES: u64 = 1_000;
/// So many are made of however little: compaction then makes them one with others of their windows.
const PIECES_FEW: u64 = 4;

/// What decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// Nothing that is not sealed yet is older.
    pub begins: Timestamp,
    /// The shard's newest sample.
    pub newest: Timestamp,
    /// The furthest cut so far.
    pub sealed_before: Option<Timestamp>,
}

/// What has been settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Positive.
    pub block_ms: i64,
    pub out_of_order_window_ms: i64,
    /// What is older is to be dropped.
    pub keep_from: Option<Timestamp>,
}

/// What is not sealed yet. Answers may walk all series: they are asked for when something is due.
pub trait Unsealed {
    fn oldest(&self) -> Option<Timestamp>;
    /// About.
    fn samples_before(&self, before: Timestamp) -> u64;
}

/// What `Seal` commands should say, one after the other, ascending. None while nothing lies behind the
/// next cut, or too little behind one that was made already.
pub fn choose(view: &View, rules: &Rules, unsealed: &impl Unsealed) -> Vec<Timestamp> {
    let block_ms = rules.block_ms;
    assert!(block_ms > 0, "a block has a length");
    let window_ms = rules.out_of_order_window_ms.clamp(0, block_ms);
    let cut = whole(view.newest.plus_ms(-window_ms), block_ms);
    if view.begins >= cut {
        return Vec::new();
    }
    let expired = rules.keep_from.map(|from| whole(from, block_ms).min(cut));
    let moved_on = view.sealed_before.is_none_or(|before| before < cut);
    if moved_on || unsealed.samples_before(cut) >= LATE_SAMPLES_MAX {
        return cuts(cut, expired, view.sealed_before, unsealed);
    }
    let is_due = |expired: &Timestamp| {
        view.begins < *expired && unsealed.oldest().is_some_and(|oldest| oldest < *expired)
    };
    expired.filter(is_due).into_iter().collect()
}

/// The end of the last whole block at an instant.
fn whole(at: Timestamp, block_ms: i64) -> Timestamp {
    Timestamp(at.0.saturating_sub(at.0.rem_euclid(block_ms)))
}

/// Where to cut what is older than `cut`, which is the last.
fn cuts(
    cut: Timestamp,
    expired: Option<Timestamp>,
    sealed_before: Option<Timestamp>,
    unsealed: &impl Unsealed,
) -> Vec<Timestamp> {
    let mut from = unsealed.oldest().unwrap_or(cut);
    let mut cuts = Vec::new();
    if let Some(expired) = expired.filter(|expired| from < *expired) {
        cuts.push(expired);
        from = expired;
    }
    let late = sealed_before.map(|before| before.min(cut));
    let mut passed = cuts.last().map_or(0, |end| unsealed.samples_before(*end));
    for upto in late.into_iter().chain([cut]) {
        if from < upto {
            let samples = unsealed.samples_before(upto);
            cuts.extend(pieces(from, upto, samples.saturating_sub(passed)));
            (from, passed) = (upto, samples);
        }
    }
    if cuts.last() != Some(&cut) {
        cuts.push(cut);
    }
    cuts
}

/// Ends of the windows of `from .. upto`, of the narrowest kind that makes no more of them than so many
/// samples are worth.
fn pieces(from: Timestamp, upto: Timestamp, samples: u64) -> Vec<Timestamp> {
    let worth = (samples / PIECE_SAMPLES).clamp(PIECES_FEW, SEALS_MAX) as i64;
    let wider = std::iter::successors(WINDOWS_MS.last().copied(), |length| length.checked_mul(2));
    let mut lengths = WINDOWS_MS.into_iter().chain(wider.skip(1));
    let inner = lengths.find_map(|length| {
        let (first, last) = (from.0.div_euclid(length), (upto.0 - 1).div_euclid(length));
        let ends = first + 1..=last;
        (last - first < worth).then(|| ends.map(move |end| Timestamp(end * length)))
    });
    inner.into_iter().flatten().chain([upto]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const H: i64 = 3_600_000;

    /// Instants of samples, ascending; each stands for so many.
    struct Head(Vec<i64>, u64);

    impl Unsealed for Head {
        fn oldest(&self) -> Option<Timestamp> {
            self.0.first().copied().map(Timestamp)
        }

        fn samples_before(&self, before: Timestamp) -> u64 {
            self.0.partition_point(|at| *at < before.0) as u64 * self.1
        }
    }

    fn view(begins: i64, newest: i64, sealed_before: Option<i64>) -> View {
        View {
            begins: Timestamp(begins),
            newest: Timestamp(newest),
            sealed_before: sealed_before.map(Timestamp),
        }
    }

    fn choose_of(
        oldest: i64,
        newest: i64,
        sealed_before: Option<i64>,
        window_ms: i64,
        late: u64,
    ) -> Option<i64> {
        let rules = Rules {
            block_ms: 100,
            out_of_order_window_ms: window_ms,
            keep_from: None,
        };
        let view = view(oldest, newest, sealed_before);
        let cuts = choose(&view, &rules, &Head(vec![oldest], late));
        cuts.last().map(|t| t.0)
    }

    fn cut(oldest: i64, newest: i64) -> Option<i64> {
        choose_of(oldest, newest, None, 30, 0)
    }

    #[test]
    fn cuts_at_whole_blocks_behind_the_window() {
        assert_eq!(cut(0, 99), None);
        assert_eq!(cut(0, 129), None, "samples before 100 are still accepted");
        assert_eq!(cut(0, 130), Some(100));
        assert_eq!(cut(0, 555), Some(500));
        assert_eq!(cut(100, 199), None, "already cut there");
        assert_eq!(cut(-150, -60), Some(-100));
        assert_eq!(cut(i64::MIN, i64::MIN), None);
        assert_eq!(cut(i64::MIN, i64::MAX).map(|t| t % 100), Some(0));
    }

    #[test]
    fn a_window_of_a_century_neither_fills_the_head_nor_makes_many_blocks() {
        let century = 100 * 366 * 86_400_000;
        assert_eq!(choose_of(0, 555, None, century, 0), Some(400));
        assert_eq!(
            choose_of(7, 560, Some(400), century, 9),
            None,
            "waits for the cut to move"
        );
        assert_eq!(choose_of(7, 600, Some(400), century, 9), Some(500));
        assert_eq!(
            choose_of(7, 560, Some(400), century, LATE_SAMPLES_MAX),
            Some(400)
        );
        assert_eq!(
            choose_of(7, 560, Some(500), i64::MAX, 0),
            None,
            "an earlier cut than before"
        );
    }

    /// In hours. The head holds a sample of weight `each` in each of `hours`.
    fn pieces_of(
        hours: impl IntoIterator<Item = i64>,
        each: u64,
        sealed_before: Option<i64>,
        keep_from: Option<i64>,
    ) -> Vec<i64> {
        let head = Head(hours.into_iter().map(|hour| hour * H).collect(), each);
        let newest = head.0.last().expect("some");
        let rules = Rules {
            block_ms: 2 * H,
            out_of_order_window_ms: 0,
            keep_from: keep_from.map(|hour| Timestamp(hour * H)),
        };
        let view = view(head.0[0], *newest, sealed_before.map(|hour| hour * H));
        let cuts = choose(&view, &rules, &head);
        assert!(cuts.is_sorted_by(|a, b| a < b), "{cuts:?}");
        cuts.iter().map(|cut| cut.0 / H).collect()
    }

    #[test]
    fn what_spans_windows_is_cut_at_their_ends() {
        assert_eq!(pieces_of(3..=51, 1_000, None, None), [12, 24, 36, 48, 50]);
        assert_eq!(pieces_of(24..=27, 1_000, Some(24), None), [26]);
        assert_eq!(pieces_of(22..=27, 1, Some(22), None), [24, 26]);
        let year = pieces_of(0..=8_760, 1_000, None, None);
        assert_eq!((year.len(), year[0]), (21, 432), "{year:?}");
        let century = pieces_of((0..=876_000).step_by(50), 1_000, None, None);
        assert_eq!((century.len(), century[0]), (64, 32 * 432), "{century:?}");
        let ages = pieces_of([-2_000_000_000_000, 0, 2_000_000_000_000], 1, None, None);
        assert!(ages.len() <= 4, "{ages:?}");
    }

    #[test]
    fn little_that_spans_much_makes_few_pieces() {
        assert_eq!(pieces_of(0..=48, 1, None, None), [12, 24, 36, 48]);
        assert_eq!(pieces_of(0..=96, 1, None, None), [72, 96]);
        assert_eq!(
            pieces_of(0..=96, 84, None, None),
            [12, 24, 36, 48, 60, 72, 84, 96]
        );
    }

    #[test]
    fn what_came_late_is_cut_off_first() {
        assert_eq!(
            pieces_of([1, 100, 101, 102], 1, Some(100), None),
            [72, 100, 102]
        );
        assert_eq!(
            pieces_of([99, 100, 101, 102], 1, Some(100), None),
            [100, 102]
        );
        let late = LATE_SAMPLES_MAX / 40;
        let more = pieces_of(0..=60, late, Some(60), None);
        assert_eq!(
            more,
            [12, 24, 36, 48, 60],
            "of one time that there is too much"
        );
    }

    #[test]
    fn what_is_to_be_dropped_is_cut_off_at_once() {
        assert_eq!(
            pieces_of(0..=60, 1, Some(60), Some(37)),
            [36],
            "and the rest waits"
        );
        assert_eq!(pieces_of(37..=60, 1, Some(60), Some(37)), [0; 0]);
        assert_eq!(
            pieces_of(0..=62, 1_000, Some(60), Some(37)),
            [36, 48, 60, 62]
        );
        assert_eq!(pieces_of(0..=60, 1, None, Some(100)), [60], "all of it");
        let beyond = pieces_of(0..=60, 1, Some(40), Some(51));
        assert_eq!(beyond, [50, 60], "also what did not come late");
    }
}
