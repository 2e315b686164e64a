//! Recent samples of every series, in memory.
//!
//! Per series: finished chunks, one that grows, a sorted run of samples that came late, and a run
//! of histograms where there are any. A sample of a series stands in one of them only; the caller has made sure of that before it
//! inserts.

use model::{Labels, SeriesId, Timestamp};

use crate::by_id::ById;
use crate::chunk::{Appender, Chunk, ChunkError, HEAD_CHUNK_SAMPLES, Point, encode};
use crate::histogram::{self, HistogramPoint, Run};
use crate::part::{Column, Part};
use crate::value::Value;

/// The head of all series, by id.
#[derive(Debug, Default)]
pub struct Head {
    series: ById<HeadSeries>,
}

/// One series' share of the head.
///
/// Invariants: chunks are in time order, `open` behind `closed`; without `open` there is no
/// `closed`; `late` strictly increases.
#[derive(Debug, Default)]
pub struct HeadSeries {
    /// The newest instant ever stored, sealed and dropped ones included: later ones are nowhere.
    last: Option<Timestamp>,
    closed: Vec<Chunk>,
    open: Option<Appender>,
    late: Vec<Point>,
    /// A pointer's room in the many series that have none.
    histograms: Option<Box<Run>>,
}

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

    fn is_empty(&self) -> bool {
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

    /// `images` are of the series in `register`, by id.
    pub fn restore(images: Vec<HeadImage>, register: &ById<Labels>) -> Result<Self, ChunkError> {
        let mut series = ById::default();
        for ((id, _), image) in register.iter().zip(images) {
            series.put(id, HeadSeries::restore(image)?);
        }
        series.skip_to(register.next());
        Ok(Self { series })
    }

    pub fn series(&self, id: SeriesId) -> Option<&HeadSeries> {
        self.series.get(id)
    }

    pub fn series_mut(&mut self, id: SeriesId) -> Option<&mut HeadSeries> {
        self.series.get_mut(id)
    }

    /// Looks at where samples of these series will be appended: nearly always it is in no cache, and a
    /// core waits for all of them as long as for one when nothing else depends on what it reads.
    pub fn touch(&self, ids: impl Iterator<Item = SeriesId>) {
        let open = ids.filter_map(|id| self.series.get(id)?.open.as_ref());
        std::hint::black_box(open.fold(0, |all, open| all ^ open.last_byte()));
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
        let series = self.series.entries().iter();
        series.map(|s| s.samples_before(before)).sum()
    }

    /// Whether the range from the first to the last sample meets `start ..= end`. Mostly the first
    /// series tells.
    pub fn meets(&self, start: Timestamp, end: Timestamp) -> bool {
        let (mut begins, mut ends) = (false, false);
        for (min, max) in self.series.entries().iter().filter_map(HeadSeries::range) {
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
        for series in self.series.entries() {
            series.add_stats(&mut stats);
        }
        stats
    }
}

impl HeadSeries {
    fn restore(image: HeadImage) -> Result<Self, ChunkError> {
        let mut closed = image.chunks;
        closed.iter().try_for_each(|c| c.decode().map(drop))?;
        let ordered = closed.windows(2).all(|w| w[0].max < w[1].min);
        let late_ordered = image.late.windows(2).all(|w| w[0].at < w[1].at);
        if !ordered || !late_ordered {
            return Err(ChunkError::OutOfOrder);
        }
        let histograms = Run::new(image.histograms).ok_or(ChunkError::OutOfOrder)?;
        let open = closed
            .pop()
            .map(|chunk| Appender::resume(&chunk))
            .transpose()?;
        Ok(Self {
            last: image.last,
            closed,
            open,
            late: image.late,
            histograms: (!histograms.is_empty()).then(|| Box::new(histograms)),
        })
    }

    fn image(&self) -> HeadImage {
        HeadImage {
            last: self.last,
            chunks: self.chunks().collect(),
            late: self.late.clone(),
            histograms: self.histograms().to_vec(),
        }
    }

    fn chunks(&self) -> impl Iterator<Item = Chunk> + '_ {
        let open = self.open.as_ref().map(Appender::chunk);
        self.closed.iter().cloned().chain(open)
    }

    pub fn last(&self) -> Option<Timestamp> {
        self.last
    }

    /// The newest sample that stands in the head; nothing is decoded.
    pub fn latest(&self) -> Option<(Timestamp, Value)> {
        let open = self.open.as_ref().map(Appender::last);
        let late = self.late.last().copied();
        let float = match (open, late) {
            (Some(open), Some(late)) if late.at > open.at => Some(late),
            (open, late) => open.or(late),
        };
        let histogram = self.histograms().last();
        match (float, histogram) {
            (Some(float), Some(histogram)) if float.at > histogram.at => {
                Some((float.at, Value::Float(float.bits)))
            }
            (_, Some(histogram)) => Some((histogram.at, Value::Histogram(histogram.bytes.clone()))),
            (float, None) => float.map(|float| (float.at, Value::Float(float.bits))),
        }
    }

    pub fn histograms(&self) -> &[HistogramPoint] {
        self.histograms.as_deref().map_or(&[], Run::points)
    }

    /// The value stored at `at` in the head.
    pub fn find(&self, at: Timestamp) -> Option<Value> {
        let histogram = self.histograms.as_ref().and_then(|run| run.find(at));
        match histogram {
            Some(bytes) => Some(Value::Histogram(bytes.clone())),
            None => self.find_float(at).map(Value::Float),
        }
    }

    fn find_float(&self, at: Timestamp) -> Option<u64> {
        if let Ok(found) = self.late.binary_search_by_key(&at, |p| p.at) {
            return Some(self.late[found].bits);
        }
        let open = self.open.as_ref()?;
        if at >= open.min() {
            return match at.cmp(&open.last().at) {
                std::cmp::Ordering::Equal => Some(open.last().bits),
                std::cmp::Ordering::Greater => None,
                std::cmp::Ordering::Less => find_in(&open.chunk().points(), at),
            };
        }
        let chunk = self.closed.partition_point(|chunk| chunk.max < at);
        let chunk = self.closed.get(chunk).filter(|chunk| chunk.min <= at)?;
        find_in(&chunk.points(), at)
    }

    /// Stores a sample that the series does not have.
    pub fn insert(&mut self, point: Point) {
        self.last = self.last.max(Some(point.at));
        match &mut self.open {
            None => self.open = Some(Appender::new(point)),
            Some(open) if point.at <= open.last().at => self.insert_late(point),
            Some(open) if open.count() < HEAD_CHUNK_SAMPLES => open.append(point),
            Some(open) => {
                self.closed.reserve_exact(1);
                self.closed.push(open.chunk());
                *open = Appender::new(point);
            }
        }
    }

    /// Stores a histogram at an instant that the series does not have.
    pub fn insert_histogram(&mut self, point: HistogramPoint) {
        self.last = self.last.max(Some(point.at));
        self.histograms.get_or_insert_default().insert(point);
    }

    fn insert_late(&mut self, point: Point) {
        match self.late.binary_search_by_key(&point.at, |p| p.at) {
            Ok(_) => unreachable!("a sample is inserted once"),
            Err(place) => self.late.insert(place, point),
        }
    }

    fn take_before(&mut self, before: Timestamp) -> Option<Taken> {
        let late_cut = self.late.partition_point(|p| p.at < before);
        let kept = self.late.split_off(late_cut);
        let late = std::mem::replace(&mut self.late, kept);
        let taken = Taken {
            chunks: self.take_chunks_before(before),
            late,
            histograms: self.take_histograms_before(before),
        };
        (!taken.is_empty()).then_some(taken)
    }

    fn take_histograms_before(&mut self, before: Timestamp) -> Vec<HistogramPoint> {
        let Some(run) = &mut self.histograms else {
            return Vec::new();
        };
        let taken = run.take_before(before);
        if run.is_empty() {
            self.histograms = None;
        }
        taken
    }

    fn take_chunks_before(&mut self, before: Timestamp) -> Vec<Chunk> {
        let whole = self.closed.partition_point(|chunk| chunk.max < before);
        let mut taken: Vec<Chunk> = self.closed.drain(..whole).collect();
        if let Some(first) = self.closed.first_mut().filter(|c| c.min < before) {
            let (old, new) = split(first, before);
            taken.extend(old);
            *first = new
                .into_iter()
                .next()
                .expect("the chunk reaches beyond the cut");
        } else if self.closed.is_empty() {
            taken.extend(self.take_open_before(before));
        }
        taken
    }

    fn take_open_before(&mut self, before: Timestamp) -> Vec<Chunk> {
        let Some(open) = self.open.as_ref().filter(|open| open.min() < before) else {
            return Vec::new();
        };
        let (old, new) = split(&open.chunk(), before);
        self.open = new
            .first()
            .map(|chunk| Appender::resume(chunk).expect("a chunk in memory decodes"));
        old
    }

    /// Takes out every sample of `start ..= end`.
    pub fn remove(&mut self, start: Timestamp, end: Timestamp) -> Column {
        let mut removed = Column::default();
        self.remove_from_chunks(start, end, &mut removed.floats);
        let inside = |at: Timestamp| at >= start && at <= end;
        removed
            .floats
            .extend(self.late.extract_if(.., |p| inside(p.at)));
        if let Some(run) = &mut self.histograms {
            removed.histograms = run.remove(start, end);
            if run.is_empty() {
                self.histograms = None;
            }
        }
        removed
    }

    /// Chunks that hold such a sample are encoded anew without it.
    fn remove_from_chunks(&mut self, start: Timestamp, end: Timestamp, removed: &mut Vec<Point>) {
        let chunks: Vec<Chunk> = self.chunks().collect();
        if !chunks.iter().any(|chunk| chunk.overlaps(start, end)) {
            return;
        }
        self.closed.clear();
        for chunk in chunks {
            if !chunk.overlaps(start, end) {
                self.closed.push(chunk);
                continue;
            }
            let inside = |p: &Point| p.at >= start && p.at <= end;
            let (gone, kept): (Vec<_>, Vec<_>) = chunk.points().into_iter().partition(inside);
            removed.extend(gone);
            self.closed.extend(encode(&kept, HEAD_CHUNK_SAMPLES));
        }
        let open = self.closed.pop();
        self.open = open.map(|chunk| Appender::resume(&chunk).expect("a chunk in memory decodes"));
    }

    fn samples_before(&self, before: Timestamp) -> u64 {
        let closed = self.closed.iter().filter(|chunk| chunk.max < before);
        let in_chunks: u64 = closed.map(|chunk| u64::from(chunk.count)).sum();
        let open = self.open.as_ref().filter(|open| open.last().at < before);
        let late = self.late.partition_point(|p| p.at < before);
        let histograms = self.histograms().partition_point(|p| p.at < before);
        in_chunks + open.map_or(0, |open| u64::from(open.count())) + (late + histograms) as u64
    }

    /// How many chunks there are.
    pub fn chunk_count(&self) -> u64 {
        self.closed.len() as u64 + u64::from(self.open.is_some())
    }

    pub fn is_empty(&self) -> bool {
        self.open.is_none() && self.late.is_empty() && self.histograms.is_none()
    }

    /// Adds handles on everything that may hold samples in `start ..= end`.
    pub fn parts(&self, start: Timestamp, end: Timestamp, parts: &mut Vec<Part>) {
        let closed = self.closed.iter().filter(|c| c.overlaps(start, end));
        parts.extend(closed.cloned().map(Part::Chunk));
        if let Some(open) = &self.open
            && open.min() <= end
            && open.last().at >= start
        {
            parts.push(Part::Chunk(open.chunk()));
        }
        parts.extend(Part::points(&self.late, start, end));
        parts.extend(Part::histograms(self.histograms(), start, end));
    }

    /// Whether [`HeadSeries::parts`] adds any.
    pub fn may_have(&self, start: Timestamp, end: Timestamp) -> bool {
        let open = self.open.as_ref();
        let first = self.closed.partition_point(|chunk| chunk.max < start);
        let late = self.late.partition_point(|p| p.at < start);
        open.is_some_and(|open| open.min() <= end && open.last().at >= start)
            || self.closed.get(first).is_some_and(|c| c.min <= end)
            || self.late.get(late).is_some_and(|p| p.at <= end)
            || !histogram::within(self.histograms(), start, end).is_empty()
    }

    /// The newest sample in `start ..= end`. Nothing is decoded: the last one of the chunks stands
    /// beside them.
    pub fn newest(&self, start: Timestamp, end: Timestamp) -> Newest {
        let in_chunks = match &self.open {
            Some(open) if open.last().at > end => {
                // Chunks lie in order, so the first one's beginning is that of all.
                let min = self.closed.first().map_or(open.min(), |chunk| chunk.min);
                match min <= end {
                    true => return Newest::Within,
                    false => None,
                }
            }
            open => open.as_ref().map(Appender::last),
        };
        let late = self.late.partition_point(|p| p.at <= end);
        let late = late.checked_sub(1).map(|at| self.late[at]);
        let float = in_chunks.max(late).filter(|p| p.at >= start);
        let histogram = histogram::within(self.histograms(), start, end).last();
        match (float, histogram) {
            (Some(float), histogram) if histogram.is_none_or(|h| h.at < float.at) => {
                Newest::At(Part::Points(vec![float]))
            }
            (_, Some(histogram)) => Newest::At(Part::Histograms(vec![histogram.clone()])),
            (_, None) => Newest::Nowhere,
        }
    }

    /// First and last instant.
    fn range(&self) -> Option<(Timestamp, Timestamp)> {
        let floats = range_of(&self.closed, self.open.as_ref(), &self.late);
        join(floats, histogram::range_of(self.histograms()))
    }

    fn add_stats(&self, stats: &mut HeadStats) {
        let closed = self.closed.iter().map(|c| u64::from(c.count));
        let open = self.open.iter().map(|open| u64::from(open.count()));
        stats.samples += closed.chain(open).sum::<u64>() + self.late.len() as u64;
        stats.samples += self.histograms().len() as u64;
        let closed = self.closed.iter().map(|c| c.data.len());
        let open = self.open.iter().map(Appender::bytes_len);
        let late = self.late.len() * size_of::<Point>();
        let histograms = self.histograms().iter().map(HistogramPoint::size);
        let histograms = histograms.sum::<usize>();
        stats.bytes += (closed.chain(open).sum::<usize>() + late + histograms) as u64;
        stats.range = join(stats.range, self.range());
    }
}

/// The samples of a chunk before `before`, and the others.
fn split(chunk: &Chunk, before: Timestamp) -> (Vec<Chunk>, Vec<Chunk>) {
    let points = chunk.points();
    let (old, new) = points.split_at(points.partition_point(|p| p.at < before));
    (
        encode(old, HEAD_CHUNK_SAMPLES),
        encode(new, HEAD_CHUNK_SAMPLES),
    )
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

fn range_of(
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
        }
    }

    #[test]
    fn long_runs_make_several_chunks() {
        let (series, twin) = filled(&(0..1000).collect::<Vec<_>>());
        assert_eq!(series.closed.len(), 1000 / usize::from(HEAD_CHUNK_SAMPLES));
        assert_eq!(all(&series), as_points(&twin));
    }
}
