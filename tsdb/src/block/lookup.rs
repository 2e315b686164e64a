//! What a block says of its series by their labels.

use model::matcher::matches_all;
use model::{Labels, Matcher, SeriesId};

use super::{Reader, Walk};
use crate::error::StorageError;

impl Reader {
    /// Its series that any of the lists chooses, ascending; all when there is no list.
    pub async fn select_any(&self, any_of: &[Vec<Matcher>]) -> Result<Vec<SeriesId>, StorageError> {
        let chosen = |labels: &Labels| {
            any_of.is_empty() || any_of.iter().any(|list| matches_all(list, labels))
        };
        self.walk(chosen).await
    }

    /// Its series of exactly these labels.
    pub async fn find(&self, labels: &Labels) -> Result<Option<SeriesId>, StorageError> {
        let found = self.walk(|own| own == labels).await?;
        Ok(found.first().copied())
    }

    /// Whether it may have a series of these labels; never false when it has.
    pub fn may_have(&self, _: &Labels) -> bool {
        true
    }

    /// The labels of these of its series, which ascend.
    pub async fn labels_of(&self, ids: &[SeriesId]) -> Result<Vec<Labels>, StorageError> {
        let mut found = Vec::with_capacity(ids.len());
        let mut walk = Walk::new(self);
        for id in ids {
            let labels = walk.labels(*id).await?;
            found.push(
                labels
                    .ok_or_else(|| self.corrupt("no such series"))?
                    .clone(),
            );
        }
        Ok(found)
    }

    async fn walk(&self, chosen: impl Fn(&Labels) -> bool) -> Result<Vec<SeriesId>, StorageError> {
        let mut found = Vec::new();
        let (mut ids, mut label_sets) = (self.ids().iter(), self.label_sets());
        for _ in 0..self.tables() {
            let labels = label_sets.next().await?;
            let some = ids.by_ref().take(labels.len()).zip(&labels);
            found.extend(some.filter(|(_, labels)| chosen(labels)).map(|(id, _)| id));
        }
        Ok(found)
    }
}
