//! Identifiers, as types that cannot be swapped.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

id! {
    /// One birth of one data directory: drawn when the directory is created, never used again.
    /// A node whose disk was wiped comes back under another id (Raft loses votes otherwise).
    NodeId(u64), "n"
}
id! {
    /// One shard of the series space, `0 .. shards`.
    ShardId(u32), "s"
}
id! {
    /// A series inside one shard, assigned in log order, so equal on all its replicas.
    SeriesId(u64), ""
}
id! {
    /// One Raft group: [`GroupId::META`] or a shard's.
    GroupId(u32), "g"
}

impl GroupId {
    /// The group that holds members, placement and leases.
    pub const META: Self = Self(0);

    /// The Raft group that replicates `shard`.
    pub fn of_shard(shard: ShardId) -> Self {
        Self(shard.0 + 1)
    }

    /// The shard this group replicates; `None` for the meta group.
    pub fn shard(self) -> Option<ShardId> {
        self.0.checked_sub(1).map(ShardId)
    }
}

/// `shards s1, s7`, for messages; no shard named means the cluster is not formed.
pub fn shard_list(shards: &[ShardId]) -> String {
    match shards {
        [] => "any shard: there is no cluster yet".to_owned(),
        [one] => format!("shard {one}"),
        many => {
            let names: Vec<String> = many.iter().map(ShardId::to_string).collect();
            format!("shards {}", names.join(", "))
        }
    }
}

/// A cluster's name for itself, drawn once when the cluster is formed; 128 bits, shown as hex.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u128);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl std::str::FromStr for ClusterId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_shards_map_both_ways() {
        assert_eq!(GroupId::META.shard(), None);
        assert_eq!(GroupId::of_shard(ShardId(7)).shard(), Some(ShardId(7)));
    }

    #[test]
    fn shards_are_listed_for_people() {
        assert_eq!(shard_list(&[ShardId(3)]), "shard s3");
        assert_eq!(shard_list(&[ShardId(1), ShardId(7)]), "shards s1, s7");
    }

    #[test]
    fn cluster_id_survives_its_text() {
        let id = ClusterId(0x0123_4567_89ab_cdef);
        assert_eq!(id.to_string().parse::<ClusterId>(), Ok(id));
    }
}
