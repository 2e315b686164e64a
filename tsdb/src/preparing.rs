//! What applying a command needs to know from sealed blocks, read before the state is touched.
//!
//! Sealed content changes by commands alone, and they are applied one at a time: what is read here is the same on every
//! replica, and still so when the command is applied.

use model::{Labels, SeriesId, Timestamp};

use crate::block::Walk;
use crate::command::{AddCommand, Command, DeleteCommand, WriteCommand};
use crate::error::StorageError;
use crate::gathered::Handles;
use crate::select::Turn;
use crate::shard::Shard;
use crate::state::{Lookup, Prepared, Recalled, Returning, Unregistered, Whereabouts};

/// Looking a label set up takes about as long as decoding so many samples.
const SAMPLES_OF_A_LOOK: usize = 1 << 10;

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

    /// Those of the label sets whose series rest, by id.
    async fn returning(&self, labels: &[Labels]) -> Result<Vec<Returning>, StorageError> {
        let (mut returning, mut turn) = (Vec::new(), Turn::default());
        for Unregistered { labels, id, files } in self.read(|state| state.unregistered(labels)) {
            let mut found = id;
            for reader in files {
                if found.is_none() {
                    found = reader.find(&labels).await.map_err(|e| self.note(e))?;
                    turn.spend(SAMPLES_OF_A_LOOK).await;
                }
            }
            if let Some(id) = found {
                let newest = self.newest_sealed(id).await.map_err(|e| self.note(e))?;
                let newest = newest.expect("a series rests in a block");
                returning.push(Returning { id, labels, newest });
            }
        }
        returning.sort_unstable_by_key(|back| back.id);
        Ok(returning)
    }

    /// The newest instant that blocks hold of a series.
    async fn newest_sealed(&self, id: SeriesId) -> Result<Option<Timestamp>, StorageError> {
        let Whereabouts { mut newest, files } = self.read(|state| state.whereabouts(id));
        for reader in files {
            if newest < Some(reader.meta().max) {
                let mut walk = Walk::new(&reader);
                let chunks = walk.chunks(id).await?.iter();
                newest = chunks.map(|chunk| Some(chunk.max)).fold(newest, Ord::max);
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
