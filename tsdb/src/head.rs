//! Recent samples of every series, in memory.
//!
//! Every registered series has its place here, by its id, and says when it was written last; what it has in the head
//! ([`Live`]) stands apart, so that those that ended take next to nothing until they rest in blocks.

use std::ops::{Deref, Range};

use model::{Labels, SeriesId, Timestamp};

use crate::bits::Words;
use crate::by_id::ById;
use crate::chunk::{Appender, Chunk, ChunkError, HEAD_CHUNK_SAMPLES, Point, encode};
use crate::histogram::{self, HistogramPoint};
use crate::live::Live;
use crate::part::{Column, Part};

/// The head of all series, by id.
#[derive(Debug, Default)]
pub struct Head {
    series: ById<HeadSeries>,
    /// No sample is older. What was deleted may have been.
    begins: Option<Timestamp>,
}

/// One series' share of the head. One that is written no more, and whose samples are sealed, takes three
/// words.
///
/// Invariant: what is live is not empty.
#[derive(Debug, Default)]
pub struct HeadSeries {
    /// The newest instant ever stored, sealed and dropped ones included: later ones are nowhere.
    last: Option<Timestamp>,
    live: Option<Box<Live>>,
}

/// What a series has that has nothing in the head.
static NOTHING: Live = Live::nothing();

/// A series' share of the head as a copy: what a checkpoint keeps.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct HeadImage {
    pub last: Option<Timestamp>,
    pub chunks: Vec<Chunk>,
    pub late: Vec<Point>,
    pub histograms: Vec<HistogramPoint>,
}

/// What sealing took out of one series: chunks, late samples and histograms, each in time order.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Taken {
    pub chunks: Vec<Chunk>,
    pub late: Vec<Point>,
    pub histograms: Vec<HistogramPoint>,
}

impl Taken {
    pub fn of(column: Column) -> Self {
        Self {
            chunks: encode(&column.floats, HEAD_CHUNK_SAMPLES),
            late: Vec::new(),
            histograms: column.histograms,
        }
    }

    /// All floats in time order.
    pub fn points(&self) -> Vec<Point> {
        let mut points: Vec<Point> = self.chunks.iter().flat_map(Chunk::points).collect();
        if !self.late.is_empty() {
            points.extend_from_slice(&self.late);
            points.sort_unstable();
        }
        points
    }

    /// First and last instant.
    pub fn range(&self) -> Option<(Timestamp, Timestamp)> {
        let floats = range_of(&self.chunks, None, &self.late);
        join(floats, histogram::range_of(&self.histograms))
    }

    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.late.is_empty() && self.histograms.is_empty()
    }

    pub fn samples(&self) -> u64 {
        let in_chunks: u64 = self.chunks.iter().map(|c| u64::from(c.count)).sum();
        in_chunks + (self.late.len() + self.histograms.len()) as u64
    }
}

/// Sizes of the head.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct HeadStats {
    pub samples: u64,
    pub bytes: u64,
    pub range: Option<(Timestamp, Timestamp)>,
}

/// Where the newest sample of a series in a range of time is, as far as the head is concerned.
#[derive(Debug, Clone)]
pub enum Newest {
    /// Not in the head.
    Nowhere,
    /// It is this one.
    At(Part),
    /// Among samples that have to be decoded first.
    Within,
}

impl Head {
    /// Makes room for the series registered last.
    pub fn add_series(&mut self) {
        self.series.push(HeadSeries::default());
    }

    /// Makes room for series that rested, by id, with the newest instant that blocks hold of each.
    pub fn put_back(&mut self, back: impl Iterator<Item = (SeriesId, Timestamp)>) {
        let series = |(id, last)| {
            let last = Some(last);
            (id, HeadSeries { last, live: None })
        };
        self.series.put_back(back.map(series).collect());
    }

    /// `images` are of the series in `register`, by id.
    pub fn restore(images: Vec<HeadImage>, register: &ById<Labels>) -> Result<Self, ChunkError> {
        let mut series = ById::default();
        for ((id, _), image) in register.iter().zip(images) {
            series.put(id, HeadSeries::restore(image)?);
        }
        series.skip_to(register.next());
        let mut head = Self {
            series,
            begins: None,
        };
        head.begins = head.stats().range.map(|(oldest, _)| oldest);
        Ok(head)
    }

    /// An instant before which it holds nothing, without looking at any series.
    pub fn begins(&self) -> Option<Timestamp> {
        self.begins
    }

    /// Samples were stored, of which this is the instant of the oldest.
    pub fn note_oldest(&mut self, at: Timestamp) {
        self.begins = Some(self.begins.map_or(at, |begins| begins.min(at)));
    }

    pub fn series(&self, id: SeriesId) -> Option<&HeadSeries> {
        self.series.get(id)
    }

    pub fn series_mut(&mut self, id: SeriesId) -> Option<&mut HeadSeries> {
        self.series.get_mut(id)
    }

    /// Where a series stands among those there are; neighbours lie side by side.
    pub fn place(&self, id: SeriesId) -> Option<usize> {
        self.series.place(id)
    }

    /// The series at a place, as [`Head::place`] tells it.
    pub fn at_mut(&mut self, place: usize) -> &mut HeadSeries {
        self.series.entry_mut(place)
    }

    /// Looks at where samples of these series will be appended: nearly always it is in no cache, and a
    /// core waits for all of them as long as for one when nothing else depends on what it reads.
    pub fn touch(&self, ids: impl Iterator<Item = SeriesId>) {
        touch(ids.filter_map(|id| self.series.get(id)));
    }

    /// As [`Head::touch`], for the series at these places.
    pub fn touch_places(&self, places: Range<usize>) {
        touch(self.series.entries().get(places).unwrap_or_default().iter());
    }

    /// The ids from `from` on, ascending.
    pub fn ids_from(&self, from: SeriesId) -> impl Iterator<Item = SeriesId> + '_ {
        self.series.ids_from(from)
    }

    /// Forgets series, by id: what they hold is gone.
    pub fn remove_series(&mut self, gone: &[SeriesId]) {
        self.series.remove(gone);
    }

    /// By id.
    pub fn images(&self) -> Vec<HeadImage> {
        self.series
            .entries()
            .iter()
            .map(HeadSeries::image)
            .collect()
    }

    /// Takes out every sample before `before`, by series.
    pub fn take_before(&mut self, before: Timestamp) -> Vec<(SeriesId, Taken)> {
        self.begins = self.begins.map(|begins| begins.max(before));
        let mut taken = Vec::new();
        for (id, series) in self.series.iter_mut() {
            if let Some(part) = series.take_before(before) {
                taken.push((id, part));
            }
        }
        taken
    }

    /// Samples before `before`, but for those in a chunk that reaches beyond it.
    pub fn samples_before(&self, before: Timestamp) -> u64 {
        self.live().map(|s| s.samples_before(before)).sum()
    }

    /// Whether the range from the first to the last sample meets `start ..= end`. Mostly the first
    /// series tells.
    pub fn meets(&self, start: Timestamp, end: Timestamp) -> bool {
        let (mut begins, mut ends) = (false, false);
        for (min, max) in self.live().filter_map(Live::range) {
            begins |= min <= end;
            ends |= max >= start;
            if begins && ends {
                return true;
            }
        }
        false
    }

    pub fn stats(&self) -> HeadStats {
        let mut stats = HeadStats::default();
        self.live().for_each(|live| live.add_stats(&mut stats));
        stats
    }

    fn live(&self) -> impl Iterator<Item = &Live> {
        let series = self.series.entries().iter();
        series.filter_map(|series| series.live.as_deref())
    }
}

/// Reads what is in the head.
impl Deref for HeadSeries {
    type Target = Live;

    fn deref(&self) -> &Live {
        self.live.as_deref().unwrap_or(&NOTHING)
    }
}

fn touch<'a>(series: impl Iterator<Item = &'a HeadSeries>) {
    let live = series.filter_map(|series| series.live.as_deref());
    std::hint::black_box(live.fold(0, |all, live| all ^ live.touch_end()));
}

impl HeadSeries {
    fn restore(image: HeadImage) -> Result<Self, ChunkError> {
        let last = image.last;
        let live = Live::restore(image)?;
        Ok(Self {
            last,
            live: (!live.is_empty()).then(|| Box::new(live)),
        })
    }

    fn image(&self) -> HeadImage {
        HeadImage {
            last: self.last,
            chunks: self.chunks().collect(),
            late: self.late().to_vec(),
            histograms: self.histograms().to_vec(),
        }
    }

    pub fn last(&self) -> Option<Timestamp> {
        self.last
    }

    /// Whether nothing of it is in the head. Its box, which is in no cache, is not looked at.
    pub fn is_empty(&self) -> bool {
        self.live.is_none()
    }

    /// Stores a sample that the series does not have.
    pub fn insert(&mut self, point: Point) {
        self.last = self.last.max(Some(point.at));
        self.live.get_or_insert_default().insert(point);
    }

    /// Stores samples of which each is later than the one before and than all that the series ever had.
    pub fn insert_all(&mut self, points: &[Point], words: &mut Words) {
        let newest = points.last().map(|point| point.at);
        debug_assert!(
            points
                .first()
                .is_none_or(|first| Some(first.at) > self.last)
        );
        if newest.is_some() {
            self.last = newest;
            self.live.get_or_insert_default().insert_all(points, words);
        }
    }

    /// Stores a histogram at an instant that the series does not have.
    pub fn insert_histogram(&mut self, point: HistogramPoint) {
        self.last = self.last.max(Some(point.at));
        self.live.get_or_insert_default().insert_histogram(point);
    }

    fn take_before(&mut self, before: Timestamp) -> Option<Taken> {
        let taken = self.live.as_mut()?.take_before(before);
        self.drop_empty();
        taken
    }

    /// Takes out every sample of `start ..= end`.
    pub fn remove(&mut self, start: Timestamp, end: Timestamp) -> Column {
        let live = self.live.as_mut();
        let removed = live.map(|live| live.remove(start, end));
        self.drop_empty();
        removed.unwrap_or_default()
    }

    fn drop_empty(&mut self) {
        self.live.take_if(|live| live.is_empty());
    }
}

/// The value at `at` among sorted points.
pub fn find_in(points: &[Point], at: Timestamp) -> Option<u64> {
    let found = points.binary_search_by_key(&at, |p| p.at).ok()?;
    points.get(found).map(|p| p.bits)
}

/// The smallest range that holds both.
pub fn join(
    a: Option<(Timestamp, Timestamp)>,
    b: Option<(Timestamp, Timestamp)>,
) -> Option<(Timestamp, Timestamp)> {
    match (a, b) {
        (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
        (one, other) => one.or(other),
    }
}

/// First and last instant of all these.
pub fn range_of(
    chunks: &[Chunk],
    open: Option<&Appender>,
    late: &[Point],
) -> Option<(Timestamp, Timestamp)> {
    let closed = chunks.first().zip(chunks.last());
    let closed = closed.map(|(first, last)| (first.min, last.max));
    let open = open.map(|open| (open.min(), open.last().at));
    let late = late.first().zip(late.last());
    let late = late.map(|(first, last)| (first.at, last.at));
    join(join(closed, open), late)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::value::Value;

    fn all(series: &HeadSeries) -> Vec<Point> {
        let image = series.image();
        let taken = Taken {
            chunks: image.chunks,
            late: image.late,
            histograms: image.histograms,
        };
        taken.points()
    }

    fn filled(times: &[i64]) -> (HeadSeries, BTreeMap<i64, u64>) {
        let mut series = HeadSeries::default();
        let mut twin = BTreeMap::new();
        for (n, &at) in times.iter().enumerate() {
            if twin.contains_key(&at) {
                continue;
            }
            twin.insert(at, n as u64);
            series.insert(Point {
                at: Timestamp(at),
                bits: n as u64,
            });
        }
        (series, twin)
    }

    fn as_points(twin: &BTreeMap<i64, u64>) -> Vec<Point> {
        twin.iter()
            .map(|(&at, &bits)| Point {
                at: Timestamp(at),
                bits,
            })
            .collect()
    }

    proptest! {
        #[test]
        fn keeps_every_sample_in_any_order_and_splits_where_told(
            times in prop::collection::vec(prop_oneof![0i64..600, any::<i64>()], 1..700),
            before in prop_oneof![0i64..600, any::<i64>()],
        ) {
            let (mut series, mut twin) = filled(&times);
            prop_assert_eq!(all(&series), as_points(&twin));
            let newest = twin.last_key_value();
            let newest = newest.map(|(&at, &bits)| (Timestamp(at), Value::Float(bits)));
            prop_assert_eq!(series.latest(), newest);
            for (&at, &bits) in &twin {
                prop_assert_eq!(series.find(Timestamp(at)), Some(Value::Float(bits)));
                let next = at.wrapping_add(1);
                prop_assert_eq!(series.find(Timestamp(next)), twin.get(&next).copied().map(Value::Float));
            }
            for (from, to) in [(before, i64::MAX), (i64::MIN, before), (before, before.saturating_add(50))] {
                let mut parts = Vec::new();
                let range = (Timestamp(from), Timestamp(to));
                series.parts(range.0, range.1, &mut parts);
                prop_assert_eq!(series.may_have(range.0, range.1), !parts.is_empty());
                let newest = twin.range(from..=to).next_back();
                match series.newest(range.0, range.1) {
                    Newest::Nowhere => prop_assert_eq!(newest, None),
                    Newest::At(Part::Points(points)) => {
                        let points = points.iter().map(|p| (&p.at.0, &p.bits)).collect::<Vec<_>>();
                        prop_assert_eq!(points, newest.into_iter().collect::<Vec<_>>());
                    }
                    Newest::At(part) => panic!("{part:?}"),
                    Newest::Within => prop_assert!(series.last() > Some(range.1)),
                }
            }
            let restored = HeadSeries::restore(series.image()).unwrap();
            prop_assert_eq!(restored.image(), series.image());

            let mut cut = HeadSeries::restore(series.image()).unwrap();
            let (from, to) = (before.saturating_sub(40), before.saturating_add(40));
            let removed = cut.remove(Timestamp(from), Timestamp(to));
            let gone: BTreeMap<_, _> = twin.range(from..=to).map(|(a, b)| (*a, *b)).collect();
            let left: BTreeMap<_, _> = twin.iter().filter(|(at, _)| !gone.contains_key(at)).map(|(a, b)| (*a, *b)).collect();
            let mut floats = removed.floats;
            floats.sort_unstable();
            prop_assert_eq!(floats, as_points(&gone));
            prop_assert_eq!(all(&cut), as_points(&left));
            for point in as_points(&gone).into_iter().rev() {
                prop_assert_eq!(cut.find(point.at), None);
                cut.insert(point);
            }
            prop_assert_eq!(all(&cut), as_points(&twin));
            prop_assert_eq!(HeadSeries::restore(cut.image()).unwrap().image(), cut.image());

            let last = series.last();
            let newer = twin.split_off(&before);
            let taken = series.take_before(Timestamp(before)).unwrap_or_default();
            prop_assert_eq!(taken.points(), as_points(&twin));
            prop_assert_eq!(taken.samples(), twin.len() as u64);
            prop_assert_eq!(all(&series), as_points(&newer));
            prop_assert_eq!(series.last(), last);
            prop_assert_eq!(series.live.is_none(), newer.is_empty());
        }
    }

    proptest! {
        #[test]
        fn a_run_at_once_is_its_samples_one_by_one(
            steps in prop::collection::vec(1i64..4, 0..700),
            cuts in prop::collection::vec(0usize..300, 0..8),
        ) {
            let (mut at, mut words) = (0, Words::default());
            let times = steps.iter().map(|step| { at += step; at }).collect::<Vec<_>>();
            let (series, twin) = filled(&times);
            let mut other = HeadSeries::default();
            let (points, mut rest) = (as_points(&twin), &as_points(&twin)[..]);
            for cut in cuts {
                let (some, behind) = rest.split_at(cut.min(rest.len()));
                other.insert_all(some, &mut words);
                rest = behind;
            }
            other.insert_all(rest, &mut words);
            prop_assert_eq!(other.image(), series.image());
            prop_assert_eq!(all(&other), points);
        }
    }

    #[test]
    fn long_runs_make_several_chunks() {
        let (series, twin) = filled(&(0..1000).collect::<Vec<_>>());
        let chunks = 1000u64.div_ceil(u64::from(HEAD_CHUNK_SAMPLES));
        assert_eq!(series.chunk_count(), chunks);
        assert_eq!(all(&series), as_points(&twin));
    }
}
