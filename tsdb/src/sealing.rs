//! When to seal, and how far: a plain function from where the head begins to the cut to propose.
//!
//! Cuts lie on multiples of the block length, so that all shards and replicas cut alike, and so far
//! back that with the usual windows no sample is accepted behind them any more. Where a window is
//! longer than a block, the head does not wait for it: what comes behind the last cut goes into a
//! later block that overlaps others, one each time the cut moves on or once there is much of it. So
//! the number of blocks follows the time that passes and the samples that come, however old they
//! are.

use model::Timestamp;
use model::limits::LATE_SAMPLES_MAX;

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

/// What a `Seal` command should say; `None` while nothing lies behind the next cut, or too little
/// behind one that was made already. `samples_before` counts the head's samples before an instant.
pub fn choose(
    view: &View,
    block_ms: i64,
    out_of_order_window_ms: i64,
    samples_before: impl FnOnce(Timestamp) -> u64,
) -> Option<Timestamp> {
    assert!(block_ms > 0, "a block has a length");
    let settled = view
        .newest
        .plus_ms(-out_of_order_window_ms.clamp(0, block_ms));
    let cut = Timestamp(settled.0.saturating_sub(settled.0.rem_euclid(block_ms)));
    if view.begins >= cut {
        return None;
    }
    let moved_on = view.sealed_before.is_none_or(|before| before < cut);
    (moved_on || samples_before(cut) >= LATE_SAMPLES_MAX).then_some(cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose_of(
        oldest: i64,
        newest: i64,
        sealed_before: Option<i64>,
        window_ms: i64,
        late: u64,
    ) -> Option<i64> {
        let view = View {
            begins: Timestamp(oldest),
            newest: Timestamp(newest),
            sealed_before: sealed_before.map(Timestamp),
        };
        choose(&view, 100, window_ms, |_| late).map(|t| t.0)
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
}
