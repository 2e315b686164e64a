//! Series that wait to be read, in less memory than samples take.
//!
//! Promise: what was kept comes back to the last bit. Series that are sampled in step have the same gaps
//! between their samples: those are held once, and take half of what instants take where they are alone.

use std::sync::Arc;

use model::hash::Set;
use model::sample::Histograms;
use model::{Labels, Samples, Series, Timestamp};

/// Keeps series, and knows the gaps of those before.
#[derive(Debug, Default)]
pub struct Keeper {
    known: Set<Arc<[u32]>>,
    /// Of the series at hand.
    gaps: Vec<u32>,
    bytes: usize,
}

/// One series.
#[derive(Debug)]
pub struct Kept {
    labels: Labels,
    times: Times,
    values: Vec<f64>,
    histograms: Histograms,
}

#[derive(Debug)]
enum Times {
    Gaps(Timestamp, Arc<[u32]>),
    /// Some are further apart than a gap can tell.
    Plain(Vec<Timestamp>),
}

impl Keeper {
    pub fn keep(&mut self, series: Series) -> Kept {
        let Series { labels, samples } = series;
        let Samples {
            timestamps,
            mut values,
            histograms,
        } = samples;
        // Room for a chunk of which little was wanted.
        if values.capacity() - values.len() > values.len() / 4 {
            values.shrink_to_fit();
        }
        let held = histograms.iter().map(|(_, histogram)| histogram.size());
        self.bytes += size_of::<Kept>() + labels.as_canonical().len();
        self.bytes += values.len() * size_of::<f64>() + held.sum::<usize>();
        Kept {
            labels,
            times: self.keep_times(timestamps),
            values,
            histograms,
        }
    }

    fn keep_times(&mut self, times: Vec<Timestamp>) -> Times {
        let (Some(&first), true) = (times.first(), have_gaps(&times)) else {
            self.bytes += times.len() * size_of::<Timestamp>();
            return Times::Plain(times);
        };
        self.gaps.clear();
        let gaps = times.windows(2).map(|pair| gap(pair[0], pair[1]) as u32);
        self.gaps.extend(gaps);
        if let Some(known) = self.known.get(self.gaps.as_slice()) {
            return Times::Gaps(first, known.clone());
        }
        let gaps: Arc<[u32]> = self.gaps.as_slice().into();
        self.bytes += size_of::<Arc<[u32]>>() + size_of_val(&*gaps);
        self.known.insert(gaps.clone());
        Times::Gaps(first, gaps)
    }

    /// What everything that was kept takes, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Whether none is too wide.
fn have_gaps(times: &[Timestamp]) -> bool {
    let fits = |gap: u64| u32::try_from(gap).is_ok();
    match times {
        [first, .., last] if fits(gap(*first, *last)) => true,
        _ => times.windows(2).all(|pair| fits(gap(pair[0], pair[1]))),
    }
}

fn gap(before: Timestamp, after: Timestamp) -> u64 {
    after.0.abs_diff(before.0)
}

impl Kept {
    pub fn into_series(self) -> Series {
        let timestamps = match self.times {
            Times::Plain(times) => times,
            Times::Gaps(first, gaps) => {
                let mut times = Vec::with_capacity(1 + gaps.len());
                times.push(first);
                let later = gaps.iter().scan(first, |at, &gap| {
                    at.0 += i64::from(gap);
                    Some(*at)
                });
                times.extend(later);
                times
            }
        };
        Series {
            labels: self.labels,
            samples: Samples {
                timestamps,
                values: self.values,
                histograms: self.histograms,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use model::Histogram;
    use proptest::prelude::*;

    use super::*;

    fn series(times: impl IntoIterator<Item = i64>) -> Series {
        let mut samples = Samples::default();
        for (at, n) in times.into_iter().zip(0_u32..) {
            match n % 3 {
                2 => samples.push_histogram(Timestamp(at), Arc::<Histogram>::default()),
                _ => samples.push(Timestamp(at), f64::from(n)),
            }
        }
        Series {
            labels: Labels::from_pairs([("a", "b")]),
            samples,
        }
    }

    proptest! {
        #[test]
        fn what_was_kept_comes_back(
            many in prop::collection::vec(
                prop::collection::btree_set(prop_oneof![
                    20 => -5i64..5,
                    2 => any::<i64>(),
                    1 => prop_oneof![Just(i64::MIN), Just(i64::MAX), Just(i64::from(u32::MAX))],
                ], 0..6),
                0..8,
            )
        ) {
            let all: Vec<Series> = many.into_iter().map(series).collect();
            let mut keeper = Keeper::default();
            let kept: Vec<Kept> = all.iter().map(|one| keeper.keep(one.clone())).collect();
            let back: Vec<Series> = kept.into_iter().map(Kept::into_series).collect();
            prop_assert_eq!(back, all);
        }
    }

    #[test]
    fn gaps_that_are_alike_are_held_once() {
        let mut keeper = Keeper::default();
        let floats = |first: i64, gap: i64| {
            let mut series = series([]);
            (0..1_000).for_each(|n| series.samples.push(Timestamp(first + gap * n), 1.0));
            series
        };
        let _first = keeper.keep(floats(0, 15_000));
        let mut before = keeper.bytes();
        let mut more = |series| {
            let _kept = keeper.keep(series);
            let more = keeper.bytes() - before;
            before += more;
            more / 1_000
        };
        assert_eq!(more(floats(7, 15_000)), 8);
        assert_eq!(more(floats(7, 15_001)), 12);
        assert_eq!(more(floats(7, i64::from(u32::MAX) + 1)), 16);
    }
}
