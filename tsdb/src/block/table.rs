//! Where the samples of a block's series stand: a table for each [`TABLE_SERIES`] of them, read when one of
//! those is asked for, and kept while there is room; and what else of blocks is kept as tables are.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use model::Labels;
use model::hash::Map;
use model::limits::BLOCK_TABLES_KEPT_BYTES;

use super::ChunkRef;
use super::index::IndexPage;

/// Series whose places stand together.
pub const TABLE_SERIES: usize = 1024;

/// The chunks of series that follow one another in a block.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Table {
    /// Of each series where its chunks end.
    ends: Vec<u32>,
    chunks: Vec<ChunkRef>,
}

impl Table {
    /// Adds a series behind the others.
    pub fn push(&mut self, chunks: &[ChunkRef]) {
        self.chunks.extend_from_slice(chunks);
        let end = u32::try_from(self.chunks.len());
        self.ends.push(end.expect("a table is bounded"));
    }

    /// How many series it tells of.
    pub fn count(&self) -> usize {
        self.ends.len()
    }

    /// Of the series at a place: those of floats in time order, then those of histograms; none where there is
    /// no such series.
    pub fn chunks(&self, place: usize) -> &[ChunkRef] {
        let Some(&end) = self.ends.get(place) else {
            return &[];
        };
        let start = place.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.chunks[start as usize..end as usize]
    }

    pub fn all(&self) -> &[ChunkRef] {
        &self.chunks
    }

    /// What it takes in memory.
    fn bytes(&self) -> usize {
        TABLE_BYTES + size_of_val(&self.ends[..]) + size_of_val(&self.chunks[..])
    }
}

/// What a table takes beside its content.
const TABLE_BYTES: usize = 160;

/// What is read of a block at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Piece {
    Table(usize),
    /// Of the series that a table tells of.
    Labels(usize),
    /// Of a segment.
    IndexPage(usize, usize),
}

/// One that was read.
#[derive(Debug, Clone)]
pub enum Decoded {
    Table(Arc<Table>),
    Labels(Arc<[Labels]>),
    IndexPage(Arc<IndexPage>),
}

/// What a label set takes beside its canonical form.
const LABELS_BYTES: usize = 48;

impl Decoded {
    /// What it takes in memory.
    fn bytes(&self) -> usize {
        match self {
            Self::Table(table) => table.bytes(),
            Self::Labels(all) => {
                let sets = all.iter().map(|l| LABELS_BYTES + l.as_canonical().len());
                TABLE_BYTES + sets.sum::<usize>()
            }
            Self::IndexPage(page) => page.bytes(),
        }
    }
}

/// A block as long as it is open, and which of its pieces.
type Key = (u64, Piece);

/// Tables that were read lately, and other such pieces, of all blocks of a node. Bounded.
#[derive(Debug)]
pub struct Tables {
    blocks: AtomicU64,
    bytes_max: usize,
    kept: Mutex<Kept>,
}

/// Half of the room is for what was asked for since it was full the last time, half for what was before: what
/// nobody asks for meanwhile goes.
#[derive(Debug, Default)]
struct Kept {
    young: Map<Key, Held>,
    young_bytes: usize,
    old: Map<Key, Held>,
}

/// With what it takes in memory.
type Held = (Decoded, usize);

impl Default for Tables {
    fn default() -> Self {
        Self::of_bytes(BLOCK_TABLES_KEPT_BYTES)
    }
}

impl Tables {
    fn of_bytes(bytes_max: usize) -> Self {
        Self {
            blocks: AtomicU64::default(),
            bytes_max,
            kept: Mutex::default(),
        }
    }

    /// A number that no other block has.
    pub fn number(&self) -> u64 {
        self.blocks.fetch_add(1, Ordering::Relaxed)
    }

    /// Of the kind that it was put as.
    pub fn get(&self, block: u64, piece: Piece) -> Option<Decoded> {
        let mut kept = self.kept.lock().expect(UNPOISONED);
        let key = (block, piece);
        if let Some((decoded, _)) = kept.young.get(&key) {
            return Some(decoded.clone());
        }
        let held = kept.old.remove(&key)?;
        let decoded = held.0.clone();
        kept.put(key, held, self.bytes_max);
        Some(decoded)
    }

    pub fn put(&self, block: u64, piece: Piece, decoded: Decoded) {
        let bytes = decoded.bytes();
        let mut kept = self.kept.lock().expect(UNPOISONED);
        kept.put((block, piece), (decoded, bytes), self.bytes_max);
    }

    /// Nobody will ask for anything of this block any more.
    pub fn forget(&self, block: u64) {
        let mut kept = self.kept.lock().expect(UNPOISONED);
        kept.old.retain(|(of, _), _| *of != block);
        let gone = kept.young.extract_if(|(of, _), _| *of == block);
        let bytes: usize = gone.map(|(_, (_, bytes))| bytes).sum();
        kept.young_bytes -= bytes;
    }
}

const UNPOISONED: &str = "no panic under this lock";

impl Kept {
    fn put(&mut self, key: Key, held: Held, bytes_max: usize) {
        let bytes = held.1;
        if self.young_bytes + bytes > bytes_max / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        if bytes <= bytes_max / 2 {
            self.young_bytes += bytes;
            let before = self.young.insert(key, held);
            self.young_bytes -= before.map_or(0, |(_, bytes)| bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(series: usize) -> Decoded {
        let mut table = Table::default();
        (0..series).for_each(|_| table.push(&[]));
        Decoded::Table(Arc::new(table))
    }

    #[test]
    fn what_is_asked_for_stays() {
        let one = table(10);
        let tables = Tables::of_bytes(one.bytes() * 8);
        let (a, b) = (tables.number(), tables.number());
        assert_ne!(a, b);
        for nth in 0..100 {
            tables.put(a, Piece::Table(nth), one.clone());
            if nth > 0 {
                let first = tables.get(a, Piece::Table(0));
                assert!(first.is_some(), "asked for all the time");
            }
            assert!(tables.get(b, Piece::Table(nth)).is_none());
            assert!(tables.get(a, Piece::Labels(nth)).is_none());
            let kept = tables.kept.lock().unwrap();
            assert_eq!(kept.young_bytes, kept.young.len() * one.bytes());
            assert!(kept.young.len() + kept.old.len() <= 8);
        }
        let has = |block, nth| tables.get(block, Piece::Table(nth)).is_some();
        assert!(!has(a, 90) && has(a, 99));
        tables.put(b, Piece::Table(0), one.clone());
        tables.forget(a);
        assert!(!has(a, 99) && has(b, 0));
        let kept = tables.kept.lock().unwrap();
        assert_eq!(kept.young_bytes, kept.young.len() * one.bytes());
    }

    #[test]
    fn what_is_too_large_is_not_kept() {
        let tables = Tables::of_bytes(1000);
        tables.put(0, Piece::Table(0), table(1));
        tables.put(0, Piece::Table(1), table(1000));
        let labels = Labels::from_pairs([("a", "b".repeat(1000))]);
        tables.put(0, Piece::Labels(0), Decoded::Labels([labels].into()));
        assert!(tables.get(0, Piece::Table(1)).is_none());
        assert!(tables.get(0, Piece::Labels(0)).is_none());
    }
}
