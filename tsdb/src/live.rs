//! What the head holds of one series that is being written.
//!
//! Finished chunks, one that grows, and, in a box of their own because few series have any, samples that came
//! late and histograms. A sample stands in one of them only; the caller has made sure of that before it inserts.

use model::Timestamp;

use crate::bits::Words;
use crate::chunk::{Appender, Chunk, ChunkError, HEAD_CHUNK_SAMPLES, Point, encode};
use crate::head::{HeadImage, HeadStats, Newest, Taken, find_in, join, range_of};
use crate::histogram::{self, HistogramPoint, Run};
use crate::part::{Column, Part};
use crate::value::Value;

/// One series' samples in the head.
///
/// Invariants: chunks are in time order, `open` behind `closed`; without `open` there is no
/// `closed`; `late` strictly increases; what is rare is not empty.
#[derive(Debug, Default)]
pub struct Live {
    closed: Vec<Chunk>,
    open: Option<Appender>,
    rare: Option<Box<Rare>>,
}

/// Which jemalloc gives out in one piece.
const _: () = assert!(size_of::<Live>() <= 112);

#[derive(Debug, Default)]
struct Rare {
    late: Vec<Point>,
    histograms: Run,
}

impl Rare {
    fn is_empty(&self) -> bool {
        self.late.is_empty() && self.histograms.is_empty()
    }

    fn take_before(&mut self, before: Timestamp) -> (Vec<Point>, Vec<HistogramPoint>) {
        let cut = self.late.partition_point(|p| p.at < before);
        let kept = self.late.split_off(cut);
        let late = std::mem::replace(&mut self.late, kept);
        (late, self.histograms.take_before(before))
    }
}

impl Live {
    pub const fn nothing() -> Self {
        Self {
            closed: Vec::new(),
            open: None,
            rare: None,
        }
    }

    /// What a checkpoint kept, without looking at when the series was written last.
    pub fn restore(image: HeadImage) -> Result<Self, ChunkError> {
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
        let late = image.late;
        let rare = Rare { late, histograms };
        Ok(Self {
            closed,
            open,
            rare: (!rare.is_empty()).then(|| Box::new(rare)),
        })
    }

    /// What [`Head::touch`](crate::head::Head::touch) looks at.
    pub fn touch_end(&self) -> u8 {
        self.open.as_ref().map_or(0, Appender::touch_end)
    }

    /// Reads where [`Live::latest`] will.
    pub fn touch_newest(&self) -> u8 {
        self.open.as_ref().map_or(0, |open| open.last().bits as u8)
    }

    /// Reads a byte of each cache line of the chunk that grows.
    pub fn touch_open(&self) -> u8 {
        self.open.as_ref().map_or(0, Appender::touch)
    }

    pub fn chunks(&self) -> impl Iterator<Item = Chunk> + '_ {
        let open = self.open.as_ref().map(Appender::chunk);
        self.closed.iter().cloned().chain(open)
    }

    /// The newest sample that stands in the head; nothing is decoded.
    pub fn latest(&self) -> Option<(Timestamp, Value)> {
        let open = self.open.as_ref().map(Appender::last);
        let late = self.late().last().copied();
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
        self.rare
            .as_ref()
            .map_or(&[], |rare| rare.histograms.points())
    }

    /// Samples that came behind a newer one.
    pub fn late(&self) -> &[Point] {
        self.rare.as_ref().map_or(&[], |rare| &rare.late)
    }

    /// The value stored at `at` in the head.
    pub fn find(&self, at: Timestamp) -> Option<Value> {
        match histogram::find_in(self.histograms(), at) {
            Some(bytes) => Some(Value::Histogram(bytes.clone())),
            None => self.find_float(at).map(Value::Float),
        }
    }

    fn find_float(&self, at: Timestamp) -> Option<u64> {
        if let Some(late) = find_in(self.late(), at) {
            return Some(late);
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

    /// Stores samples of which each is later than the one before and than all that the series ever had.
    pub fn insert_all(&mut self, points: &[Point], words: &mut Words) {
        const LEN_MAX: usize = HEAD_CHUNK_SAMPLES as usize;
        let mut rest = points;
        if let Some(open) = &mut self.open {
            let room = LEN_MAX - usize::from(open.count());
            if rest.len() <= room {
                return open.append_all(rest, words);
            }
            let (last, behind) = rest.split_at(room);
            self.closed
                .reserve_exact(1 + behind.len().saturating_sub(1) / LEN_MAX);
            self.closed.push(open.close(last, words));
            rest = behind;
        }
        while let Some((first, behind)) = rest.split_first() {
            let taken;
            (taken, rest) = behind.split_at(behind.len().min(LEN_MAX - 1));
            let mut next = Appender::of_all(*first, taken, words);
            match rest.is_empty() {
                true => self.open = Some(next),
                false => self.closed.push(next.close(&[], words)),
            }
        }
    }

    /// Stores a histogram at an instant that the series does not have.
    pub fn insert_histogram(&mut self, point: HistogramPoint) {
        self.rare.get_or_insert_default().histograms.insert(point);
    }

    fn insert_late(&mut self, point: Point) {
        let late = &mut self.rare.get_or_insert_default().late;
        match late.binary_search_by_key(&point.at, |p| p.at) {
            Ok(_) => unreachable!("a sample is inserted once"),
            Err(place) => late.insert(place, point),
        }
    }

    pub fn take_before(&mut self, before: Timestamp) -> Option<Taken> {
        let chunks = self.take_chunks_before(before);
        let rare = self.rare.as_mut().map(|rare| rare.take_before(before));
        let (late, histograms) = rare.unwrap_or_default();
        self.drop_empty();
        let taken = Taken {
            chunks,
            late,
            histograms,
        };
        (!taken.is_empty()).then_some(taken)
    }

    fn drop_empty(&mut self) {
        self.rare.take_if(|rare| rare.is_empty());
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
        if let Some(rare) = &mut self.rare {
            let inside = |p: &mut Point| p.at >= start && p.at <= end;
            removed.floats.extend(rare.late.extract_if(.., inside));
            removed.histograms = rare.histograms.remove(start, end);
        }
        self.drop_empty();
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

    pub fn samples_before(&self, before: Timestamp) -> u64 {
        let closed = self.closed.iter().filter(|chunk| chunk.max < before);
        let in_chunks: u64 = closed.map(|chunk| u64::from(chunk.count)).sum();
        let open = self.open.as_ref().filter(|open| open.last().at < before);
        let late = self.late().partition_point(|p| p.at < before);
        let histograms = self.histograms().partition_point(|p| p.at < before);
        in_chunks + open.map_or(0, |open| u64::from(open.count())) + (late + histograms) as u64
    }

    /// How many chunks there are.
    pub fn chunk_count(&self) -> u64 {
        self.closed.len() as u64 + u64::from(self.open.is_some())
    }

    pub fn is_empty(&self) -> bool {
        self.open.is_none() && self.rare.is_none()
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
        parts.extend(Part::points(self.late(), start, end));
        parts.extend(Part::histograms(self.histograms(), start, end));
    }

    /// Whether [`HeadSeries::parts`] adds any.
    pub fn may_have(&self, start: Timestamp, end: Timestamp) -> bool {
        let open = self.open.as_ref();
        let first = self.closed.partition_point(|chunk| chunk.max < start);
        let late = self.late().partition_point(|p| p.at < start);
        open.is_some_and(|open| open.min() <= end && open.last().at >= start)
            || self.closed.get(first).is_some_and(|c| c.min <= end)
            || self.late().get(late).is_some_and(|p| p.at <= end)
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
        let late = self.late().partition_point(|p| p.at <= end);
        let late = late.checked_sub(1).map(|at| self.late()[at]);
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
    pub fn range(&self) -> Option<(Timestamp, Timestamp)> {
        let floats = range_of(&self.closed, self.open.as_ref(), self.late());
        join(floats, histogram::range_of(self.histograms()))
    }

    pub fn add_stats(&self, stats: &mut HeadStats) {
        let closed = self.closed.iter().map(|c| u64::from(c.count));
        let open = self.open.iter().map(|open| u64::from(open.count()));
        stats.samples += closed.chain(open).sum::<u64>() + self.late().len() as u64;
        stats.samples += self.histograms().len() as u64;
        let closed = self.closed.iter().map(|c| c.data.len());
        let open = self.open.iter().map(Appender::bytes_len);
        let late = size_of_val(self.late());
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
