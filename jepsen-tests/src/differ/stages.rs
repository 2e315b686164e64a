//! What is written behind a seed's data, so that most of its series rest, some come back, and those
//! rest again: time goes on by half a day, in four stages.
//!
//! A store takes a series out of its register once its newest sample is older than two hours before
//! the newest of all, cut to a multiple of two hours; what [`registered`] counts.

use std::collections::{BTreeMap, BTreeSet};

use model::Value;

use super::data::{BEGIN_MS, Data, END_MS, Point, SPAN_MS, Series};
use crate::splitmix::SplitMix64;

pub const HOUR_MS: i64 = 3_600_000;
const BLOCK_MS: i64 = 2 * HOUR_MS;
/// In order a sample may be so much older than the newest; what it may be otherwise is less here.
const WINDOW_MS: i64 = HOUR_MS;
/// The end of the first block of the data; a multiple of twelve hours.
pub const MIDDLE_MS: i64 = BEGIN_MS + SPAN_MS / 2;
/// The newest sample once the data has been left behind.
pub const LATER_MS: i64 = END_MS + 6 * HOUR_MS;
/// And once what came back has been left behind as well: twelve hours behind the middle are sealed.
pub const FAR_MS: i64 = MIDDLE_MS + 12 * HOUR_MS + WINDOW_MS;
/// Between two samples of what goes on. The last stage makes a block that is worth making one with the one
/// before: values there are noise.
const STEP_MS: i64 = 20 * 60_000;
const FAR_STEP_MS: i64 = STEP_MS / 4;

/// Time goes on in every shard: one without any of these would be one of a billion.
const CLOCKS: usize = 48;
/// Exemplars of these are stored in every store, which keeps them registered.
const KEPT: &str = "dur_bucket";

/// Requests in the order in which they are sent, a stage after another.
pub struct Stages {
    /// The data itself.
    pub old: Vec<Vec<Series>>,
    /// Some of its series and the clocks go on, the others end.
    pub later: Vec<Vec<Series>>,
    /// Some of those that ended come back, beside new ones and some that never left.
    pub back: Vec<Vec<Series>>,
    /// Those that never left and the clocks go on.
    pub far: Vec<Vec<Series>>,
}

/// What becomes of a series once the data ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    GoesOn,
    ComesBack,
    Ends,
}

fn fate(nth: usize) -> Fate {
    match nth % 5 {
        0 => Fate::GoesOn,
        1 => Fate::ComesBack,
        _ => Fate::Ends,
    }
}

impl Stages {
    pub fn of(data: &Data) -> Self {
        let of_fate = |wanted: Fate| {
            let all = data.series.iter().enumerate();
            let chosen = all.filter(move |(nth, _)| fate(*nth) == wanted);
            chosen.map(|(_, series)| series.labels.clone())
        };
        let clocks = (0..CLOCKS).map(|n| named("onward", &n.to_string()));
        let lasting: Vec<_> = clocks.chain(of_fate(Fate::GoesOn)).collect();
        let go_on = |from_ms: i64, upto_ms: i64, step_ms: i64| {
            let instants = (from_ms + step_ms..upto_ms).step_by(step_ms as usize);
            let instants: Vec<i64> = instants.chain([upto_ms]).collect();
            // One request: a store that seals between two of them has other blocks.
            vec![at(&lasting, &instants)]
        };
        let comers = (0..4).map(|n| named("newcomer", &n.to_string()));
        let returning = of_fate(Fate::ComesBack).chain(comers);
        let returning: Vec<_> = returning.chain(lasting[CLOCKS..].iter().cloned()).collect();
        let (first, second) = returning.split_at(returning.len() / 2);
        Self {
            old: data.slices(),
            later: go_on(END_MS, LATER_MS, STEP_MS),
            back: vec![
                at(first, &[LATER_MS + 60_000]),
                at(second, &[LATER_MS + 90_000]),
                at(&returning, &[LATER_MS + 240_000, LATER_MS + 270_000]),
            ],
            far: go_on(LATER_MS, FAR_MS, FAR_STEP_MS),
        }
    }

    /// A sample in the past of a series that has ended: it is refused.
    pub fn late(data: &Data) -> Vec<Series> {
        let mut all = data.series.iter().enumerate();
        let ended = all.find(|(nth, series)| fate(*nth) == Fate::Ends && !is_kept(series));
        let ended = ended.map(|(_, series)| at(std::slice::from_ref(&series.labels), &[END_MS]));
        ended.unwrap_or_default()
    }
}

/// Whether an exemplar of a series is stored in every store.
pub fn is_kept(series: &Series) -> bool {
    let mut labels = series.labels.iter();
    labels.any(|(name, value)| name == "__name__" && value == KEPT)
}

/// How many series have been written in these stages, and how many of them are registered once all
/// is settled.
pub fn registered(stages: &[&[Vec<Series>]]) -> (usize, usize) {
    let mut newest: BTreeMap<&[(String, String)], i64> = BTreeMap::new();
    let mut kept = BTreeSet::new();
    for series in stages.iter().copied().flatten().flatten() {
        let last = series.points.last().map_or(i64::MIN, |point| point.at_ms);
        let known = newest.entry(&series.labels).or_insert(last);
        *known = last.max(*known);
        if is_kept(series) {
            kept.insert(&series.labels[..]);
        }
    }
    let now = newest.values().copied().max().unwrap_or(i64::MIN);
    let before = cut(now.saturating_sub(BLOCK_MS));
    let stays =
        |(labels, last): &(&&[(String, String)], &i64)| **last >= before || kept.contains(**labels);
    (newest.len(), newest.iter().filter(stays).count())
}

/// The instant of the newest sample.
pub fn newest(slices: &[Vec<Series>]) -> i64 {
    let points = slices.iter().flatten().flat_map(|series| &series.points);
    points.map(|point| point.at_ms).max().unwrap_or(i64::MIN)
}

/// Up to where a store has sealed what it holds, once its newest sample is at `newest_ms`.
pub fn sealed_before(newest_ms: i64) -> i64 {
    cut(newest_ms.saturating_sub(WINDOW_MS))
}

fn cut(at_ms: i64) -> i64 {
    at_ms.saturating_sub(at_ms.rem_euclid(BLOCK_MS))
}

fn named(name: &str, n: &str) -> Vec<(String, String)> {
    let pairs = [("__name__", name), ("job", "clock"), ("n", n)];
    pairs.map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec()
}

/// A sample of each at each of these instants.
fn at(all: &[Vec<(String, String)>], instants_ms: &[i64]) -> Vec<Series> {
    let value = |nth: usize, at_ms: i64| match at_ms > LATER_MS + HOUR_MS / 2 {
        true => SplitMix64::new(at_ms as u64 ^ nth as u64).word() as f64,
        false => ((at_ms - BEGIN_MS) / 1000) as f64 + nth as f64,
    };
    let series = all.iter().enumerate().map(|(nth, labels)| {
        let points = instants_ms.iter().map(|&at_ms| Point {
            at_ms,
            value: Value::Float(value(nth, at_ms)),
        });
        Series {
            labels: labels.clone(),
            points: points.collect(),
        }
    });
    series.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_series_rest_some_come_back_and_rest_again() {
        let data = Data::generate(1, true);
        let stages = Stages::of(&data);
        let (old, later, back, far) = (&stages.old, &stages.later, &stages.back, &stages.far);
        let all = data.series.len();
        assert_eq!(registered(&[old]), (all, all));
        let (sent, rested) = registered(&[old, later]);
        assert_eq!(sent, all + CLOCKS);
        assert!(rested < sent / 2 + CLOCKS / 2, "{rested} of {sent}");
        let (sent, returned) = registered(&[old, later, back]);
        assert_eq!(sent, all + CLOCKS + 4);
        assert!(returned > rested + 20, "{returned} and {rested}");
        assert_eq!(registered(&[old, later, back, far]).1, rested);
    }

    #[test]
    fn stages_are_sent_in_the_order_of_time() {
        let stages = Stages::of(&Data::generate(2, true));
        let all = [&stages.old, &stages.later, &stages.back, &stages.far];
        let newest = all.map(|stage| newest(stage));
        assert!(newest[0] <= END_MS && newest[1] == LATER_MS && newest[3] == FAR_MS);
        assert!(newest.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(sealed_before(newest[1]), sealed_before(newest[2]));
        assert_eq!(MIDDLE_MS % (12 * HOUR_MS), 0);
        assert!(sealed_before(FAR_MS) >= MIDDLE_MS + 12 * HOUR_MS);
        let late = Stages::late(&Data::generate(2, true));
        assert_eq!(late.len(), 1);
    }
}
