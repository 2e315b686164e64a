//! What applying a command needs to know from sealed blocks, read before the state is touched.
//!
//! Sealed content changes by commands alone, and they are applied one at a time: what is read here is the same on every
//! replica, and still so when the command is applied.

use std::cmp::Reverse;

use model::hash::Set;
use model::{Labels, SeriesId, Timestamp};

use crate::block::{Sealed, Walk};
use crate::command::{AddCommand, Command, DeleteCommand, WriteCommand};
use crate::error::StorageError;
use crate::gathered::Handles;
use crate::select::Turn;
use crate::shard::Shard;
use crate::state::{Lookup, Prepared, Recalled, Returning, State, Unregistered};

/// Looking at where the chunks of a series end takes about as long as decoding so many samples.
const SAMPLES_OF_CHUNKS: usize = 16;

impl Shard {
    /// For any command but a clean. Nothing for most, without a wait.
    pub(crate) async fn prepare(&self, command: &Command) -> Result<Prepared, StorageError> {
        let mut prepared = Prepared::default();
        match command {
            Command::Write(write) | Command::Add(AddCommand { write, .. }) => {
                prepared.returning = self.returning(&write.labels).await?;
                prepared.recalled = self.recall(write, &prepared.returning).await?;
            }
            Command::Delete(delete) => prepared.resting = self.resting(delete).await?,
            _ => {}
        }
        Ok(prepared)
    }

    /// Those of the label sets whose series rest, by id, each once.
    async fn returning(&self, labels: &[Labels]) -> Result<Vec<Returning>, StorageError> {
        let Unregistered {
            known: mut found,
            mut others,
            mut files,
        } = self.read(|state| state.unregistered(labels));
        // Who comes back was seen lately.
        files.sort_by_key(|reader| Reverse(reader.meta().max));
        for reader in files {
            let some = reader.find_all(&others).await.map_err(|e| self.note(e))?;
            let is_found: Set<&Labels> = some.iter().map(|(_, labels)| *labels).collect();
            others.retain(|labels| !is_found.contains(labels));
            found.extend(some);
        }
        found.sort_unstable_by_key(|(id, _)| *id);
        found.dedup_by_key(|(id, _)| *id);
        let ids: Vec<SeriesId> = found.iter().map(|(id, _)| *id).collect();
        let newest = self.newest_sealed(&ids).await.map_err(|e| self.note(e))?;
        let returning = found.into_iter().zip(newest);
        let returning = returning.map(|((id, labels), newest)| Returning {
            id,
            labels: labels.clone(),
            newest: newest.expect("a series rests in a block"),
        });
        Ok(returning.collect())
    }

    /// The newest instants that blocks hold of series, which ascend.
    async fn newest_sealed(
        &self,
        ids: &[SeriesId],
    ) -> Result<Vec<Option<Timestamp>>, StorageError> {
        let mut newest: Vec<Option<Timestamp>> = vec![None; ids.len()];
        if ids.is_empty() {
            return Ok(newest);
        }
        let (mut files, mut turn) = (Vec::new(), Turn::default());
        for leaf in self.read(State::leaves) {
            match leaf {
                Sealed::Frozen(frozen) => {
                    let ranges = ids.iter().map(|id| frozen.range_of(*id));
                    let raise = |(newest, range): (&mut Option<Timestamp>, Option<(_, _)>)| {
                        *newest = range.map(|(_, max)| max).max(*newest);
                    };
                    newest.iter_mut().zip(ranges).for_each(raise);
                    turn.spend(ids.len()).await;
                }
                leaf => files.extend(leaf.readers().cloned()),
            }
        }
        files.sort_by_key(|reader| Reverse(reader.meta().max));
        for reader in files {
            let max = Some(reader.meta().max);
            let mut walk = Walk::new(&reader);
            for (id, newest) in ids.iter().zip(&mut newest).filter(|(_, at)| **at < max) {
                let chunks = walk.chunks(*id).await?;
                let ends = chunks.iter().map(|chunk| Some(chunk.max));
                *newest = ends.fold(*newest, Ord::max);
                turn.spend(SAMPLES_OF_CHUNKS).await;
            }
        }
        Ok(newest)
    }

    /// Series that rest and that a deletion concerns.
    async fn resting(&self, delete: &DeleteCommand) -> Result<Vec<SeriesId>, StorageError> {
        let (start, end) = (delete.start, delete.end);
        let rest = match delete.any_of.is_empty() {
            true => return Ok(Vec::new()),
            false => self.read(|state| {
                let rest = state.rest(&delete.any_of, start, end);
                rest.without(|| state.select_registered(&delete.any_of))
            }),
        };
        rest.ids().await.map_err(|e| self.note(e))
    }

    /// What sealed blocks hold for the rows of `write`.
    async fn recall(
        &self,
        write: &WriteCommand,
        returning: &[Returning],
    ) -> Result<Recalled, StorageError> {
        let mut recalled = Recalled::default();
        for Lookup { at, places } in self.read(|state| state.lookups(write, returning)) {
            for Handles { id, parts, .. } in places.found().await.map_err(|e| self.note(e))? {
                for part in &parts {
                    let column = part.decode().await.map_err(|e| self.note(e))?;
                    self.metrics().late_lookups.inc();
                    if let Some(value) = column.find(at) {
                        recalled.insert(id, at, value);
                    }
                }
            }
        }
        Ok(recalled)
    }
}
