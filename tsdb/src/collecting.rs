//! When to look for series to forget: a plain function from what is stored to the instant that a
//! `Collect` command should say.
//!
//! A series without samples is kept while its newest one is within the window in which a sample of a
//! series is judged by what the series had: so whether it was forgotten changes no answer. Instants
//! lie on multiples of the block length, so that a shard looks once for each block it seals.

use model::Timestamp;

/// `newest` is the shard's newest sample, `looked_before` the instant for which all of its series were
/// looked at last; `None` until a later one is reached.
pub fn choose(
    newest: Timestamp,
    looked_before: Option<Timestamp>,
    block_ms: i64,
    in_order_window_ms: i64,
) -> Option<Timestamp> {
    assert!(block_ms > 0, "a block has a length");
    let settled = newest.plus_ms(-in_order_window_ms.max(block_ms));
    let before = Timestamp(settled.0.saturating_sub(settled.0.rem_euclid(block_ms)));
    looked_before
        .is_none_or(|last| last < before)
        .then_some(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(newest: i64, looked_before: Option<i64>, window_ms: i64) -> Option<i64> {
        let looked_before = looked_before.map(Timestamp);
        choose(Timestamp(newest), looked_before, 100, window_ms).map(|at| at.0)
    }

    #[test]
    fn looks_once_a_block_behind_the_window() {
        assert_eq!(
            chosen(555, None, 0),
            Some(400),
            "a block is left in any case"
        );
        assert_eq!(chosen(555, None, 250), Some(300));
        assert_eq!(chosen(555, Some(300), 250), None);
        assert_eq!(chosen(649, Some(300), 250), None);
        assert_eq!(chosen(650, Some(300), 250), Some(400));
        assert_eq!(chosen(650, Some(500), 250), None, "the window has grown");
        assert_eq!(chosen(-150, None, -7), Some(-300));
        assert_eq!(chosen(i64::MIN, Some(i64::MIN), 0), None);
        assert_eq!(chosen(i64::MAX, None, i64::MAX), Some(0));
    }
}
