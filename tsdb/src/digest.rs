//! One word for everything a shard holds, equal on every replica at the same log index.
//!
//! Series and samples are summed (wrapping) over hashes of each, so that the sum does not care
//! how they are laid out, can follow every change at once, and can be taken again from the files
//! to see whether they still hold what was applied ([`Shard::verify`](crate::Shard::verify)).

use std::collections::VecDeque;
use std::sync::Mutex;

use model::hash::{xxh3, xxh3_of_three};
use model::{Labels, SeriesId, Timestamp};

use crate::chunk::Point;
use crate::histogram::HistogramPoint;
use crate::part::Column;

const SERIES: u64 = 1;
const SAMPLE: u64 = 2;
const WHOLE: u64 = 3;
const HISTOGRAM: u64 = 4;

/// At every so many entries of the log a shard takes its digest, so that replicas that apply at
/// different speeds know those at the same indexes. Taking one costs nothing of the samples, but all of
/// groups, exemplars and descriptions.
const STEP: u64 = 1024;
/// How many are kept: of a replica that is further behind nothing is known.
const KEPT_MAX: usize = 32;

/// The digests that a shard had at some indexes of the log, the oldest first.
#[derive(Debug, Default)]
pub struct Kept(Mutex<VecDeque<(u64, u64)>>);

impl Kept {
    /// The state as of `index` has what `digest` gives, which is asked only where it is kept.
    pub fn note_step(&self, index: u64, digest: impl FnOnce() -> u64) {
        if index.is_multiple_of(STEP) {
            self.note(index, digest());
        }
    }

    pub fn note(&self, index: u64, digest: u64) {
        let mut kept = self.0.lock().expect("no panic under this lock");
        if kept.back() == Some(&(index, digest)) {
            return;
        }
        kept.push_back((index, digest));
        if kept.len() > KEPT_MAX {
            kept.pop_front();
        }
    }

    pub fn all(&self) -> Vec<(u64, u64)> {
        let kept = self.0.lock().expect("no panic under this lock");
        kept.iter().copied().collect()
    }
}

/// Sums over what is stored.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Sums {
    pub series: u64,
    pub samples: u64,
}

impl Sums {
    pub fn add_series(&mut self, id: SeriesId, labels: &Labels) {
        self.series = self.series.wrapping_add(series(id, labels));
    }

    pub fn remove_series(&mut self, id: SeriesId, labels: &Labels) {
        self.series = self.series.wrapping_sub(series(id, labels));
    }

    #[inline]
    pub fn add_sample(&mut self, id: SeriesId, point: Point) {
        self.samples = self.samples.wrapping_add(sample(id, point));
    }

    pub fn add_histogram(&mut self, id: SeriesId, point: &HistogramPoint) {
        self.samples = self.samples.wrapping_add(histogram(id, point));
    }

    /// Adds samples whose sum is known.
    pub fn add_samples(&mut self, sum: u64) {
        self.samples = self.samples.wrapping_add(sum);
    }

    /// Takes away samples of one series.
    pub fn remove_column(&mut self, id: SeriesId, column: &Column) {
        self.remove_samples(samples(id, &column.floats));
        self.remove_samples(histograms(id, &column.histograms));
    }

    /// Takes away samples whose sum is known, as a dropped block's is.
    pub fn remove_samples(&mut self, sum: u64) {
        self.samples = self.samples.wrapping_sub(sum);
    }
}

/// The sum over samples of one series.
pub fn samples(id: SeriesId, points: &[Point]) -> u64 {
    points
        .iter()
        .fold(0, |sum, &point| sum.wrapping_add(sample(id, point)))
}

/// The sum over histograms of one series.
pub fn histograms(id: SeriesId, points: &[HistogramPoint]) -> u64 {
    let sums = points.iter().map(|point| histogram(id, point));
    sums.fold(0, u64::wrapping_add)
}

/// Folds the words of the whole state, in a fixed order, into one.
#[derive(Debug)]
pub struct Digest(Vec<u8>);

impl Default for Digest {
    fn default() -> Self {
        Self(Vec::with_capacity(128))
    }
}

impl Digest {
    pub fn word(&mut self, word: u64) -> &mut Self {
        self.bytes(&word.to_le_bytes())
    }

    pub fn time(&mut self, at: Option<Timestamp>) -> &mut Self {
        self.word(u64::from(at.is_some()));
        self.word(at.unwrap_or_default().0 as u64)
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn finish(&self) -> u64 {
        xxh3(WHOLE, &self.0)
    }
}

fn series(id: SeriesId, labels: &Labels) -> u64 {
    xxh3(SERIES ^ id.0.rotate_left(8), labels.as_canonical())
}

#[inline]
fn sample(id: SeriesId, point: Point) -> u64 {
    xxh3_of_three(SAMPLE, [id.0, point.at.0 as u64, point.bits])
}

fn histogram(id: SeriesId, point: &HistogramPoint) -> u64 {
    let mut place = [0; 16];
    place[..8].copy_from_slice(&id.0.to_le_bytes());
    place[8..].copy_from_slice(&point.at.0.to_le_bytes());
    xxh3(xxh3(HISTOGRAM, &place), &point.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_kept_at_steps_and_when_asked() {
        let kept = Kept::default();
        for index in 1..=STEP * 2 {
            kept.note_step(index, || index + 1);
        }
        kept.note(STEP * 2 + 5, 9);
        kept.note(STEP * 2 + 5, 9);
        let expected = [
            (STEP, STEP + 1),
            (STEP * 2, STEP * 2 + 1),
            (STEP * 2 + 5, 9),
        ];
        assert_eq!(kept.all(), expected);
        (0..100).for_each(|index| kept.note(index, 0));
        assert_eq!(kept.all().len(), KEPT_MAX);
        assert_eq!(kept.all().last(), Some(&(99, 0)));
    }

    #[test]
    fn order_does_not_matter_and_every_part_does() {
        let (a, b) = (Point::new(Timestamp(1), 1.0), Point::new(Timestamp(2), 1.0));
        let sum = |points: &[Point]| samples(SeriesId(1), points);
        assert_eq!(sum(&[a, b]), sum(&[b, a]));
        assert_ne!(sum(&[a]), sum(&[b]));
        assert_ne!(sum(&[a]), samples(SeriesId(2), &[a]));
        assert_ne!(
            sum(&[Point::new(Timestamp(1), 0.0)]),
            sum(&[Point::new(Timestamp(1), -0.0)])
        );
    }
}
