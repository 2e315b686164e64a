//! What was written to a shard after an index of its log, for a reader who has the rest.
//!
//! Promise: every stored sample of the chosen series that an entry after the index wrote is in it.
//! Samples from before may be in it too: all from the oldest instant that was written on. Samples
//! are written once, so whoever has them already loses nothing. What was deleted since is not told.

use std::sync::Arc;

use model::source::{Consistency, Selection, Take};
use model::{Matcher, Series, Timestamp};

use crate::error::StorageError;
use crate::pieces::Pieces;
use crate::shard::Shard;

/// The series that are not read yet, and how far they go.
pub struct Changes {
    shard: Arc<Shard>,
    /// Everything up to this index of the log is in them.
    pub index: u64,
    pieces: Option<Pieces>,
}

impl Shard {
    /// Of series that any of the lists chooses. Without an index, all samples from `oldest` on.
    pub async fn changes(
        self: &Arc<Self>,
        any_of: &[Vec<Matcher>],
        since: Option<u64>,
        oldest: Timestamp,
    ) -> Result<Changes, StorageError> {
        let (index, gathered) = self.read(|state| {
            let from = match since {
                // From another log than ours: nothing it says can be relied on.
                Some(index) if index > state.applied_index() => Some(Timestamp::MIN),
                Some(index) => state.touched().since(index),
                None => Some(oldest),
            };
            let from = from.filter(|_| !any_of.is_empty());
            let gathered = from.map(|start| state.gather_any(any_of, start, Timestamp::MAX));
            (state.applied_index(), gathered)
        });
        let pieces = match gathered {
            None => None,
            Some(gathered) => {
                let selection = Selection {
                    matchers: Vec::new(),
                    start: gathered.start,
                    end: gathered.end,
                    take: Take::All,
                    consistency: Consistency::Local,
                };
                let chosen = gathered.parts().await.map_err(|e| self.note(e))?;
                Some(Pieces::new(chosen, &selection))
            }
        };
        Ok(Changes {
            shard: self.clone(),
            index,
            pieces,
        })
    }
}

impl Changes {
    /// The next series, not all of them at once; none at the end.
    pub async fn next(&mut self) -> Result<Option<Vec<Series>>, StorageError> {
        match &mut self.pieces {
            None => Ok(None),
            Some(pieces) => pieces.next().await.map_err(|e| self.shard.note(e)),
        }
    }
}
