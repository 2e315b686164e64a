//! When to seal, and how far: a plain function from the head's range to the cut to propose.
//!
//! Cuts lie on multiples of the block length, so that all shards and replicas cut alike, and far
//! enough back that no sample is accepted behind them any more: blocks then do not overlap, but
//! for writes with a wider window.

use model::Timestamp;

/// What a `Seal` command should say; `None` while nothing lies behind the next cut.
///
/// `head` is the first and last instant not sealed yet, `newest` the shard's newest sample.
pub fn choose(
    head: Option<(Timestamp, Timestamp)>,
    newest: Timestamp,
    block_ms: i64,
    out_of_order_window_ms: i64,
) -> Option<Timestamp> {
    assert!(block_ms > 0, "a block has a length");
    let settled = newest.plus_ms(-out_of_order_window_ms.max(0));
    let cut = Timestamp(settled.0.saturating_sub(settled.0.rem_euclid(block_ms)));
    head.filter(|(oldest, _)| *oldest < cut).map(|_| cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(oldest: i64, newest: i64) -> Option<i64> {
        let head = Some((Timestamp(oldest), Timestamp(newest)));
        choose(head, Timestamp(newest), 100, 30).map(|t| t.0)
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
        assert_eq!(choose(None, Timestamp(1_000), 100, 0), None);
    }
}
