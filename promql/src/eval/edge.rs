//! An end of a window that moves over the samples of a series, from instant to instant.

use model::Timestamp;

/// How many samples are not behind an instant, which only moves on.
///
/// Series are sampled, and instants lie, at even distances mostly: where the last move ended tells
/// where this one will, so that the samples between need not be looked at.
#[derive(Debug, Default)]
pub(super) struct Edge {
    at: usize,
    /// By how many samples it moved last.
    stride: usize,
}

impl Edge {
    /// How many of `times`, ascending and no fewer than before, are not after `instant`, which is not
    /// before the last one.
    pub fn move_to(&mut self, times: &[Timestamp], instant: i64) -> usize {
        let mut next = (self.at + self.stride).min(times.len());
        while next > self.at && times[next - 1].0 > instant {
            next -= 1;
        }
        while times.get(next).is_some_and(|time| time.0 <= instant) {
            next += 1;
        }
        (self.stride, self.at) = (next - self.at, next);
        next
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_stops_where_a_search_would(
            gaps in prop::collection::vec(prop_oneof![8 => Just(15), 1 => 1i64..200], 0..200),
            moves in prop::collection::vec(prop_oneof![8 => Just(60), 1 => 0i64..500], 1..80),
        ) {
            let mut sum = 0;
            let times = gaps.iter().map(|gap| { sum += gap; Timestamp(sum) });
            let times: Vec<_> = times.collect();
            let (mut edge, mut instant) = (Edge::default(), 0);
            for by in moves {
                instant += by;
                let expected = times.partition_point(|time| time.0 <= instant);
                prop_assert_eq!(edge.move_to(&times, instant), expected);
            }
        }
    }
}
