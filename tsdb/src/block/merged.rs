//! Blocks that the log made one, until the file that takes their place is written.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::{SeriesId, Timestamp};

use super::{Reader, Sealed};
use crate::head::join;

/// Several blocks that count as one of another id. Cheap to clone.
///
/// Invariants: two blocks or more, by id, none of them merged itself.
#[derive(Debug, Clone)]
pub struct Merged {
    id: u64,
    range: (Timestamp, Timestamp),
    blocks: Arc<[Sealed]>,
}

impl Merged {
    /// `None` for fewer than two blocks. Those that are merged themselves are taken apart.
    pub fn new(id: u64, blocks: Vec<Sealed>) -> Option<Self> {
        let range = blocks.iter().map(|b| Some(b.range())).fold(None, join)?;
        let mut apart = Vec::new();
        for block in blocks {
            match block {
                Sealed::Merged(merged) => apart.extend(merged.blocks.iter().cloned()),
                block => apart.push(block),
            }
        }
        apart.sort_unstable_by_key(Sealed::id);
        (apart.len() > 1).then(|| Self {
            id,
            range,
            blocks: apart.into(),
        })
    }

    pub fn id(&self) -> u64 {
        self.id
    }

    pub fn range(&self) -> (Timestamp, Timestamp) {
        self.range
    }

    /// By id.
    pub fn blocks(&self) -> &[Sealed] {
        &self.blocks
    }

    /// The series that any of them holds samples of, ascending.
    pub fn series(&self) -> Vec<SeriesId> {
        let ids: BTreeSet<SeriesId> = self.blocks.iter().flat_map(Sealed::series).collect();
        ids.into_iter().collect()
    }

    /// The file of one of them is written.
    pub fn stored(&mut self, reader: &Arc<Reader>) -> bool {
        let id = reader.meta().id;
        let Some(place) = self.blocks.iter().position(|block| block.id() == id) else {
            return false;
        };
        let mut blocks = self.blocks.to_vec();
        blocks[place] = Sealed::Stored(reader.clone());
        self.blocks = blocks.into();
        true
    }
}
