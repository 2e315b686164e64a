//! A selection read piece by piece: few series decoded at a time, straight into their columns.
//!
//! Series come in the order of their ids, which is the order of a block's file. So a block is read
//! ahead in stretches of [`READ_AHEAD_BYTES`], not chunk by chunk.

use std::sync::Arc;

use bytes::Bytes;
use model::limits::READ_AHEAD_BYTES;
use model::source::{Selection, Take};
use model::{Labels, Samples, Series, Timestamp};

use crate::block::{ChunkRef, LastTimes, Page, Reader};
use crate::error::StorageError;
use crate::fields::Malformed;
use crate::part::{self, Part};
use crate::select::{samples_of, weight};

/// Samples of a piece, at least: they stay in a core's cache until they are computed on.
const PIECE_SAMPLES: usize = 16 << 10;

/// The chosen series that are not read yet.
pub(crate) struct Pieces {
    rest: std::vec::IntoIter<(Labels, Vec<Part>)>,
    take: Take,
    start: Timestamp,
    end: Timestamp,
    /// What was read ahead, one stretch a block.
    stretches: Vec<Stretch>,
    /// What was read of pages lately, one a block.
    pages: Vec<HeldPages>,
    /// Of all pieces so far, in floats.
    weight: usize,
    /// Where chunks are decoded to when of many samples few are wanted.
    scratch: Samples,
}

struct Stretch {
    block: Arc<Reader>,
    offset: u64,
    bytes: Bytes,
}

fn lies_in(part: (Timestamp, Timestamp), range: (Timestamp, Timestamp)) -> bool {
    range.0 <= part.0 && part.1 <= range.1
}

/// What was read of a block's pages and is still wanted.
struct HeldPages {
    block: Arc<Reader>,
    /// By where they begin.
    pages: Vec<(u64, Arc<Page>)>,
    /// Values of the chunks that are wanted after the one that was asked for: up to [`TOGETHER`] less one.
    ahead: Vec<(Place, Vec<u64>)>,
    times: LastTimes,
}

/// Where a chunk's page begins, and its slot there.
type Place = (u64, u16);

/// Columns that are decoded together.
const TOGETHER: usize = 4;
/// Chunks that are looked at to know what is wanted of the page that any of those stands in, up to
/// [`TOGETHER`] slots of it.
const COMING: usize = 2 * TOGETHER - 1;

fn place_of(chunk: &ChunkRef) -> Place {
    (chunk.offset, chunk.slot.unwrap_or(u16::MAX))
}

impl HeldPages {
    fn page(&self, offset: u64) -> Option<&Arc<Page>> {
        let found = self.pages.iter().find(|(at, _)| *at == offset);
        found.map(|(_, page)| page)
    }

    fn take_ahead(&mut self, place: Place) -> Option<Vec<u64>> {
        let known = self.ahead.iter().position(|(at, _)| *at == place)?;
        Some(self.ahead.swap_remove(known).1)
    }

    /// Chunks are asked for in the order in which they come: nobody will ask for others any more.
    fn forget_but(&mut self, coming: &[ChunkRef]) {
        self.ahead.clear();
        let is_coming = |offset: u64| coming.iter().any(|chunk| chunk.offset == offset);
        self.pages.retain(|(offset, _)| is_coming(*offset));
    }

    /// Makes sure of the page of a chunk, of as much of it as those that come want.
    async fn fetch(&mut self, chunk: &ChunkRef, coming: &[ChunkRef]) -> Result<(), StorageError> {
        let in_page = coming.iter().filter(|other| other.offset == chunk.offset);
        let wanted: Vec<u16> = in_page.filter_map(|other| other.slot).collect();
        let has_all = |page: &Arc<Page>| wanted.iter().all(|slot| page.has(*slot));
        if self.page(chunk.offset).is_some_and(has_all) {
            return Ok(());
        }
        // Fewer than that are all that is wanted of it.
        let page = match wanted.len() < TOGETHER {
            true => self.block.slots(chunk, &wanted).await?,
            false => self.block.page(chunk).await?,
        };
        self.pages.retain(|(offset, _)| *offset != chunk.offset);
        self.pages.push((chunk.offset, page));
        Ok(())
    }

    /// The values of the first of these chunks, whose pages are there; the others will be wanted after it.
    fn decode(&mut self, chunks: &[ChunkRef]) -> Result<Vec<u64>, Malformed> {
        let places: Vec<Place> = chunks.iter().map(place_of).collect();
        let page = |offset| {
            self.page(offset)
                .ok_or(Malformed("a page that is not there"))
        };
        let column = |&(offset, slot): &Place| Ok((&**page(offset)?, slot));
        let columns = places.iter().map(column).collect::<Result<Vec<_>, _>>()?;
        let decoded: Vec<Vec<u64>> = match *columns {
            [a, b, c, d] => Page::values_together([a, b, c, d])?.into(),
            [a, b, c] => Page::values_together([a, b, c])?.into(),
            [a, b] => Page::values_together([a, b])?.into(),
            [a] => vec![a.0.values(a.1)?],
            _ => Vec::new(),
        };
        let mut decoded = places.into_iter().zip(decoded);
        let first = decoded.next().map(|(_, values)| values);
        self.ahead.extend(decoded);
        Ok(first.unwrap_or_default())
    }
}

impl Pieces {
    pub fn new(chosen: Vec<(Labels, Vec<Part>)>, selection: &Selection) -> Self {
        Self {
            rest: chosen.into_iter(),
            take: selection.take,
            start: selection.start,
            end: selection.end,
            stretches: Vec::new(),
            pages: Vec::new(),
            weight: 0,
            scratch: Samples::default(),
        }
    }

    /// How many floats would take as much room as all pieces so far.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// The next series, not all of them at once; none at the end.
    pub async fn next(&mut self) -> Result<Option<Vec<Series>>, StorageError> {
        let (mut piece, mut held) = (Vec::new(), 0);
        while held < PIECE_SAMPLES {
            let Some((labels, parts)) = self.rest.next() else {
                break;
            };
            let (samples, weight) = self.read(parts).await?;
            held += weight;
            if !samples.is_empty() {
                piece.push(Series { labels, samples });
            }
        }
        self.weight += held;
        Ok((!piece.is_empty()).then_some(piece))
    }

    /// One series, and what it weighs in floats.
    async fn read(&mut self, mut parts: Vec<Part>) -> Result<(Samples, usize), StorageError> {
        // Blocks stand by their ids: one made of others stands behind what is newer than it.
        let start = |part: &Part| part.range().0;
        if self.take == Take::All && !parts.is_sorted_by_key(start) {
            parts.sort_by_key(start);
        }
        if self.take == Take::All
            && let Some(samples) = self.read_floats(&parts).await?
        {
            let weight = samples.len();
            return Ok((samples, weight));
        }
        if let [Part::Points(points)] = parts.as_slice()
            && let [point] = points.as_slice()
        {
            let mut samples = Samples::default();
            samples.push(point.at, f64::from_bits(point.bits));
            return Ok((samples, 1));
        }
        let column = match self.take {
            Take::All => part::collect(&parts, self.start, self.end).await?,
            Take::Last => part::last(parts, self.start, self.end).await?,
        };
        Ok((samples_of(&column)?, weight(&column)))
    }

    /// Floats that lie in order, part behind part; `None` when there is anything else.
    async fn read_floats(&mut self, parts: &[Part]) -> Result<Option<Samples>, StorageError> {
        let plain = |part: &Part| match part {
            Part::Chunk(_) => true,
            Part::Stored(_, chunk) => chunk.histograms.is_none(),
            Part::Points(_) | Part::Histograms(_) | Part::Masked(..) => false,
        };
        let ordered = |pair: &[Part]| pair[0].range().1 < pair[1].range().0;
        if !parts.iter().all(plain) || !parts.windows(2).all(ordered) {
            return Ok(None);
        }
        let all: usize = parts.iter().map(Part::count).sum();
        let range = (self.start, self.end);
        let inside = parts.iter().filter(|part| lies_in(part.range(), range));
        if 2 * inside.map(Part::count).sum::<usize>() >= all {
            // Most of them are wanted: room for all wastes little, and nothing is copied.
            let mut samples = Samples {
                timestamps: Vec::with_capacity(all),
                values: Vec::with_capacity(all),
                ..Samples::default()
            };
            self.decode(parts, &mut samples).await?;
            return Ok(Some(samples));
        }
        let mut samples = std::mem::take(&mut self.scratch);
        samples.timestamps.clear();
        samples.values.clear();
        self.decode(parts, &mut samples).await?;
        let found = Samples {
            timestamps: samples.timestamps.as_slice().to_vec(),
            values: samples.values.as_slice().to_vec(),
            ..Samples::default()
        };
        self.scratch = samples;
        Ok(Some(found))
    }

    /// Adds the samples of chunks of floats.
    async fn decode(&mut self, parts: &[Part], samples: &mut Samples) -> Result<(), StorageError> {
        for (at, part) in parts.iter().enumerate() {
            match part {
                Part::Stored(block, stored) if stored.slot.is_some() => {
                    let (page, values) = self.column(block, stored, &parts[at + 1..]).await?;
                    let range = (self.start, self.end);
                    block.read_slot(stored, (&page, &values), range, samples)?;
                }
                Part::Stored(block, stored) => {
                    let bytes = self.bytes(block, stored).await?;
                    let chunk = block.floats(stored, bytes)?;
                    chunk
                        .decode_into(self.start, self.end, samples)
                        .map_err(|e| block.corrupt(e))?;
                }
                Part::Chunk(chunk) => chunk
                    .decode_into(self.start, self.end, samples)
                    .expect("a chunk in memory decodes"),
                _ => unreachable!("only chunks are plain"),
            }
        }
        Ok(())
    }

    /// A chunk that stands in a page, and those of the same block that will be asked for after it: of the same
    /// series, some of whose parts are `behind` it, and of the next ones.
    fn coming(&self, block: &Arc<Reader>, chunk: &ChunkRef, behind: &[Part]) -> Vec<ChunkRef> {
        let in_page = |part: &Part| match part {
            Part::Stored(other, next) if next.slot.is_some() && Arc::ptr_eq(other, block) => {
                Some(*next)
            }
            _ => None,
        };
        let next = self.rest.as_slice().iter().take(COMING);
        let next = next.flat_map(|(_, parts)| parts);
        let all = behind.iter().chain(next).filter_map(in_page);
        std::iter::once(*chunk).chain(all).take(COMING).collect()
    }

    /// The page a stored chunk stands in, or a few slots of it, and the chunk's values: known since the
    /// one before was asked for, or from what is kept of the block, or from the disk.
    async fn column(
        &mut self,
        block: &Arc<Reader>,
        chunk: &ChunkRef,
        behind: &[Part],
    ) -> Result<(Arc<Page>, Vec<u64>), StorageError> {
        let mine = |held: &HeldPages| Arc::ptr_eq(&held.block, block);
        let at = self.pages.iter().position(mine).unwrap_or_else(|| {
            self.pages.push(HeldPages {
                block: block.clone(),
                pages: Vec::new(),
                ahead: Vec::new(),
                times: LastTimes::default(),
            });
            self.pages.len() - 1
        });
        let known = self.pages[at].take_ahead(place_of(chunk));
        let values = match known {
            Some(values) => values,
            None => {
                let coming = self.coming(block, chunk, behind);
                let held = &mut self.pages[at];
                held.forget_but(&coming);
                let next = &coming[..coming.len().min(TOGETHER)];
                for chunk in next {
                    held.fetch(chunk, &coming).await?;
                }
                held.decode(next).map_err(|e| block.corrupt(e))?
            }
        };
        let held = &mut self.pages[at];
        let page = held.page(chunk.offset).cloned();
        let page = page.ok_or_else(|| block.corrupt("a page that is not there"))?;
        let (_, slot) = place_of(chunk);
        let shared = page.share_times(slot, &mut held.times);
        shared.map_err(|e| block.corrupt(e))?;
        Ok((page, values))
    }

    /// A stored chunk's bytes, from what was read ahead or from the disk.
    async fn bytes(
        &mut self,
        block: &Arc<Reader>,
        chunk: &ChunkRef,
    ) -> Result<Bytes, StorageError> {
        let known = self
            .stretches
            .iter()
            .position(|s| Arc::ptr_eq(&s.block, block));
        if let Some(bytes) = known.and_then(|at| self.stretches[at].get(chunk)) {
            return Ok(bytes);
        }
        let stretch = Stretch {
            block: block.clone(),
            offset: chunk.offset,
            bytes: block.read_ahead(chunk, READ_AHEAD_BYTES).await?,
        };
        let bytes = stretch.get(chunk);
        let bytes = bytes.ok_or_else(|| block.corrupt("file ends early"))?;
        match known {
            Some(at) => self.stretches[at] = stretch,
            None => self.stretches.push(stretch),
        }
        Ok(bytes)
    }
}

impl Stretch {
    fn get(&self, chunk: &ChunkRef) -> Option<Bytes> {
        let from = usize::try_from(chunk.offset.checked_sub(self.offset)?).ok()?;
        let to = from.checked_add(chunk.len as usize)?;
        (to <= self.bytes.len()).then(|| self.bytes.slice(from..to))
    }
}
