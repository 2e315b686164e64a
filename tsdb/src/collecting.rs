//! When to look for series to forget: a plain function from what is stored to the instant that a
//! `Collect` command should say.
//!
//! A series without samples is kept while its newest one is within the window in which a sample of a
//! series is judged by what the series had: so whether it was forgotten changes no answer. Instants
//! lie on multiples of the block length, so that a shard looks once for each block it seals.

use model::{SeriesId, Timestamp};

/// Look for series that are dead by this instant, from this id on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    pub before: Timestamp,
    pub from: SeriesId,
}

/// How far was looked.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Looked {
    /// The instant for which all series were looked at last.
    whole: Option<Timestamp>,
    /// Where to go on.
    rest: Option<Look>,
}

impl Looked {
    /// Notes what a look came to: all series, or as far as `next`.
    pub fn note(&mut self, look: Look, next: Option<SeriesId>) {
        self.rest = next.map(|from| Look { from, ..look });
        if self.rest.is_none() {
            self.whole = Some(look.before);
        }
    }
}

/// Which look is due: the rest of one that was begun, or a new one once a later instant is reached.
/// `newest` is the shard's newest sample.
pub fn choose(
    newest: Timestamp,
    looked: &Looked,
    block_ms: i64,
    in_order_window_ms: i64,
) -> Option<Look> {
    assert!(block_ms > 0, "a block has a length");
    let settled = newest.plus_ms(-in_order_window_ms.max(block_ms));
    let before = Timestamp(settled.0.saturating_sub(settled.0.rem_euclid(block_ms)));
    let from = SeriesId(0);
    let anew = looked.whole.is_none_or(|last| last < before);
    looked.rest.or(anew.then_some(Look { before, from }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(newest: i64, whole: Option<i64>, window_ms: i64) -> Option<i64> {
        let mut looked = Looked::default();
        if let Some(before) = whole.map(Timestamp) {
            let from = SeriesId(9);
            looked.note(Look { before, from }, None);
        }
        let look = choose(Timestamp(newest), &looked, 100, window_ms)?;
        assert_eq!(look.from, SeriesId(0));
        Some(look.before.0)
    }

    #[test]
    fn looks_once_a_block_behind_the_window() {
        let a_block = chosen(555, None, 0);
        assert_eq!(a_block, Some(400), "a block is left in any case");
        assert_eq!(chosen(555, None, 250), Some(300));
        assert_eq!(chosen(555, Some(300), 250), None);
        assert_eq!(chosen(649, Some(300), 250), None);
        assert_eq!(chosen(650, Some(300), 250), Some(400));
        assert_eq!(chosen(650, Some(500), 250), None, "the window has grown");
        assert_eq!(chosen(-150, None, -7), Some(-300));
        assert_eq!(chosen(i64::MIN, Some(i64::MIN), 0), None);
        assert_eq!(chosen(i64::MAX, None, i64::MAX), Some(0));
    }

    #[test]
    fn a_look_that_was_begun_goes_on_where_it_stood() {
        let mut looked = Looked::default();
        let at = |newest: i64, looked: &Looked| choose(Timestamp(newest), looked, 100, 0);
        let first = at(555, &looked).expect("the first");
        looked.note(first, Some(SeriesId(7)));
        let rest = Look {
            from: SeriesId(7),
            ..first
        };
        assert_eq!(at(999, &looked), Some(rest), "by the same instant");
        looked.note(rest, None);
        assert_eq!(at(599, &looked), None);
        assert_eq!(at(999, &looked).map(|look| look.before.0), Some(800));
    }
}
