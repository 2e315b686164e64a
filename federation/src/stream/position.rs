//! How far a parent has read a child: of each shard an index of its log.
//!
//! A parent keeps the text and does not look into it. Indexes count on every replica alike, so a
//! position stays right when leaders change. It says which cluster it is of: in another one the
//! same indexes mean other samples.

use std::fmt;
use std::str::FromStr;

use model::limits::CURSOR_BYTES_MAX;
use model::{ClusterId, ShardId};

/// Of each shard the index up to which everything was read; none before its first time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    pub cluster: ClusterId,
    indexes: Vec<Option<u64>>,
}

/// A text that is no position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a position in a federation stream")]
pub struct NoPosition;

const VERSION: &str = "q1";

impl Position {
    /// Nothing was read yet.
    pub fn start(cluster: ClusterId, shards: usize) -> Self {
        Self {
            cluster,
            indexes: vec![None; shards],
        }
    }

    pub fn of(&self, shard: ShardId) -> Option<u64> {
        self.indexes.get(shard.0 as usize).copied().flatten()
    }

    pub fn advance(&mut self, shard: ShardId, index: u64) {
        if let Some(place) = self.indexes.get_mut(shard.0 as usize) {
            *place = Some(place.map_or(index, |known| known.max(index)));
        }
    }

    /// Whether it is one of this cluster.
    pub fn fits(&self, cluster: ClusterId, shards: usize) -> bool {
        self.cluster == cluster && self.indexes.len() == shards
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{VERSION}.{}.", self.cluster)?;
        for (n, index) in self.indexes.iter().enumerate() {
            let dash = if n == 0 { "" } else { "-" };
            match index {
                Some(index) => write!(f, "{dash}{index:x}")?,
                None => write!(f, "{dash}")?,
            }
        }
        Ok(())
    }
}

impl FromStr for Position {
    type Err = NoPosition;

    fn from_str(text: &str) -> Result<Self, NoPosition> {
        if text.len() > CURSOR_BYTES_MAX {
            return Err(NoPosition);
        }
        let mut parts = text.split('.');
        let (version, cluster, indexes) = (parts.next(), parts.next(), parts.next());
        let (Some(VERSION), Some(cluster), Some(indexes), None) =
            (version, cluster, indexes, parts.next())
        else {
            return Err(NoPosition);
        };
        let index = |text: &str| match text {
            "" => Ok(None),
            text => u64::from_str_radix(text, 16)
                .map(Some)
                .map_err(|_| NoPosition),
        };
        Ok(Self {
            cluster: cluster.parse().map_err(|_| NoPosition)?,
            indexes: indexes.split('-').map(index).collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_text_gives_it_back(
            cluster in any::<u128>(),
            indexes in prop::collection::vec(prop::option::of(any::<u64>()), 1..40),
        ) {
            let position = Position { cluster: ClusterId(cluster), indexes };
            prop_assert_eq!(position.to_string().parse(), Ok(position));
        }

        #[test]
        fn arbitrary_texts_never_panic(text in ".{0,60}") {
            text.parse::<Position>().ok();
        }
    }

    #[test]
    fn a_shard_never_goes_back() {
        let mut position = Position::start(ClusterId(7), 3);
        position.advance(ShardId(1), 26);
        position.advance(ShardId(1), 9);
        position.advance(ShardId(7), 9);
        assert_eq!(position.of(ShardId(1)), Some(26));
        assert_eq!(position.of(ShardId(0)), None);
        assert_eq!(
            position.to_string(),
            "q1.00000000000000000000000000000007.-1a-"
        );
        assert!(position.fits(ClusterId(7), 3) && !position.fits(ClusterId(8), 3));
        assert_eq!("q2.7.1".parse::<Position>(), Err(NoPosition));
    }
}
