//! A selection read piece by piece: few series decoded at a time, straight into their columns.
//!
//! Series come in the order of their ids, which is the order of a block's file. So a block is read
//! ahead in stretches of [`READ_AHEAD_BYTES`], not chunk by chunk.

use std::sync::Arc;

use bytes::Bytes;
use model::limits::READ_AHEAD_BYTES;
use model::source::{Selection, Take};
use model::{Labels, Samples, Series, Timestamp};

use crate::block::{ChunkRef, Page, Reader};
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
    /// The page that was read last, one a block.
    pages: Vec<HeldPage>,
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

struct HeldPage {
    block: Arc<Reader>,
    offset: u64,
    page: Arc<Page>,
    /// Values of the slots behind the one that was asked for, which the next series want: up to
    /// [`TOGETHER`] less one.
    ahead: Vec<(u16, Vec<u64>)>,
}

/// Columns of a page that are decoded together.
const TOGETHER: usize = 4;

impl HeldPage {
    fn holds(&self, offset: u64, wanted: &[u16]) -> bool {
        self.offset == offset && wanted.iter().all(|slot| self.page.has(*slot))
    }

    /// The values of the first of these slots; the others will be wanted after it.
    fn values(&mut self, wanted: &[u16]) -> Result<Vec<u64>, Malformed> {
        let Some((&slot, next)) = wanted.split_first() else {
            return Ok(Vec::new());
        };
        let known = self.ahead.iter().position(|(at, _)| *at == slot);
        if let Some(known) = known {
            return Ok(self.ahead.swap_remove(known).1);
        }
        // Slots are in the order of series: nobody will ask for those before this one any more.
        self.ahead.retain(|(at, _)| *at > slot);
        match *next {
            _ if !self.ahead.is_empty() => self.page.values(slot),
            [a, b, c] => self.several([slot, a, b, c]),
            [a, b] => self.several([slot, a, b]),
            [a] => self.several([slot, a]),
            _ => self.page.values(slot),
        }
    }

    fn several<const N: usize>(&mut self, slots: [u16; N]) -> Result<Vec<u64>, Malformed> {
        let mut decoded = slots.into_iter().zip(self.page.values_together(slots)?);
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
        for part in parts {
            match part {
                Part::Stored(block, stored) if stored.slot.is_some() => {
                    let wanted = self.wanted_of_page(block, stored);
                    let held = self.page(block, stored, &wanted).await?;
                    let values = held.values(&wanted).map_err(|e| block.corrupt(e))?;
                    let page = held.page.clone();
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

    /// The slot of `chunk`, and those of its page that the next series will want, as far as they all do.
    fn wanted_of_page(&self, block: &Arc<Reader>, chunk: &ChunkRef) -> Vec<u16> {
        let in_page = |part: &Part| match part {
            Part::Stored(other, next) if next.offset == chunk.offset => {
                next.slot.filter(|_| Arc::ptr_eq(other, block))
            }
            _ => None,
        };
        let next = self.rest.as_slice().iter().take(TOGETHER - 1);
        let next = next.map_while(|(_, parts)| parts.iter().find_map(in_page));
        chunk.slot.into_iter().chain(next).collect()
    }

    /// The page a stored chunk stands in, or the `wanted` slots of it: the one of the series before, or
    /// from what is kept of the block, or from the disk.
    async fn page(
        &mut self,
        block: &Arc<Reader>,
        chunk: &ChunkRef,
        wanted: &[u16],
    ) -> Result<&mut HeldPage, StorageError> {
        let mine = |held: &HeldPage| Arc::ptr_eq(&held.block, block);
        let known = self.pages.iter().position(mine);
        let at = match known {
            Some(at) if self.pages[at].holds(chunk.offset, wanted) => at,
            known => {
                // Fewer than that are all that is wanted of it.
                let page = match wanted.len() < TOGETHER {
                    true => block.slots(chunk, wanted).await?,
                    false => block.page(chunk).await?,
                };
                let held = HeldPage {
                    block: block.clone(),
                    offset: chunk.offset,
                    page,
                    ahead: Vec::new(),
                };
                match known {
                    Some(at) => self.pages[at] = held,
                    None => self.pages.push(held),
                }
                known.unwrap_or(self.pages.len() - 1)
            }
        };
        Ok(&mut self.pages[at])
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
