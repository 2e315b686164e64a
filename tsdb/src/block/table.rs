//! Where the samples of a block's series stand: a table for each [`TABLE_SERIES`] of them, read when one of
//! those is asked for, and kept while there is room.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use model::hash::Map;
use model::limits::BLOCK_TABLES_KEPT_BYTES;

use super::ChunkRef;

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

/// A block as long as it is open, and which of its tables.
type Key = (u64, usize);

/// Tables that were read lately, of all blocks of a node. Bounded.
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
    young: Map<Key, Arc<Table>>,
    young_bytes: usize,
    old: Map<Key, Arc<Table>>,
}

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

    pub fn get(&self, block: u64, nth: usize) -> Option<Arc<Table>> {
        let mut kept = self.kept.lock().expect(UNPOISONED);
        let key = (block, nth);
        if let Some(table) = kept.young.get(&key) {
            return Some(table.clone());
        }
        let table = kept.old.remove(&key)?;
        kept.put(key, &table, self.bytes_max);
        Some(table)
    }

    pub fn put(&self, block: u64, nth: usize, table: &Arc<Table>) {
        let mut kept = self.kept.lock().expect(UNPOISONED);
        kept.put((block, nth), table, self.bytes_max);
    }

    /// Nobody will ask for the tables of this block any more.
    pub fn forget(&self, block: u64) {
        let mut kept = self.kept.lock().expect(UNPOISONED);
        kept.old.retain(|(of, _), _| *of != block);
        let gone = kept.young.extract_if(|(of, _), _| *of == block);
        let bytes: usize = gone.map(|(_, table)| table.bytes()).sum();
        kept.young_bytes -= bytes;
    }
}

const UNPOISONED: &str = "no panic under this lock";

impl Kept {
    fn put(&mut self, key: Key, table: &Arc<Table>, bytes_max: usize) {
        let bytes = table.bytes();
        if self.young_bytes + bytes > bytes_max / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        if bytes <= bytes_max / 2 {
            self.young_bytes += bytes;
            let before = self.young.insert(key, table.clone());
            self.young_bytes -= before.map_or(0, |before| before.bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(series: usize) -> Arc<Table> {
        let mut table = Table::default();
        (0..series).for_each(|_| table.push(&[]));
        Arc::new(table)
    }

    #[test]
    fn what_is_asked_for_stays() {
        let one = table(10);
        let tables = Tables::of_bytes(one.bytes() * 8);
        let (a, b) = (tables.number(), tables.number());
        assert_ne!(a, b);
        for nth in 0..100 {
            tables.put(a, nth, &one);
            if nth > 0 {
                assert!(tables.get(a, 0).is_some(), "asked for all the time");
            }
            assert!(tables.get(b, nth).is_none());
            let kept = tables.kept.lock().unwrap();
            assert_eq!(kept.young_bytes, kept.young.len() * one.bytes());
            assert!(kept.young.len() + kept.old.len() <= 8);
        }
        assert!(tables.get(a, 90).is_none() && tables.get(a, 99).is_some());
        tables.put(b, 0, &one);
        tables.forget(a);
        assert!(tables.get(a, 99).is_none() && tables.get(b, 0).is_some());
        let kept = tables.kept.lock().unwrap();
        assert_eq!(kept.young_bytes, kept.young.len() * one.bytes());
    }

    #[test]
    fn what_is_too_large_is_not_kept() {
        let tables = Tables::of_bytes(1000);
        tables.put(0, 0, &table(1));
        tables.put(0, 1, &table(1000));
        assert!(tables.get(0, 1).is_none());
    }
}
