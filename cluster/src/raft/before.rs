//! What a replica had saved that is no longer here, kept for the next one of its group on this node.
//!
//! Claims rest on this: what a voter says of its votes and of the end of its log only rises
//! ([`standing`](super::standing)). A replica that moved away is forgotten with its log, and may come back as
//! an empty one, while who asks it still takes it for the voter it was. So the new one tells no less than the
//! old one would have, votes for nobody whom the old one would have refused, and for nobody at all before it has
//! what the old one may have had. A file of one line for each group that ever left.
//!
//! What a replica had saved is not known if its log was damaged. All that ever counted of it is known to the
//! leader of a membership without it, as nothing has counted since ([`leaving`](crate::shard::leaving)).

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use model::port::{Disk, read_all, replace};
use model::{GroupId, NodeId};

use super::standing::{Leadership, Seen};

const DIR: &str = "left";

/// Notes what covers all that replicas here had saved, the one that leaves and those of before. Durable on return.
pub async fn keep(disk: &dyn Disk, group: GroupId, seen: Seen) -> io::Result<()> {
    let before = match of(disk, group).await {
        // What rotted is covered too.
        Err(e) if e.kind() == io::ErrorKind::InvalidData => Seen::default(),
        before => before?,
    };
    let seen = seen.or_higher(before);
    disk.create_dir_all(Path::new(DIR)).await?;
    disk.flush_dir(Path::new("")).await?;
    replace(disk, &path_of(group), Bytes::from(line(seen))).await
}

/// Makes the vote of a replica that comes back no lower than what replicas of before had saved. Durable on return.
pub async fn promise(log: &dyn wal::Log, group: GroupId, seen: Seen) -> io::Result<()> {
    let vote = log.state(group).vote.map(Leadership::from);
    if vote.unwrap_or_default() >= seen.vote {
        return Ok(());
    }
    let vote = wal::Vote {
        term: seen.vote.term,
        node: NodeId(seen.vote.node),
        committed: false,
    };
    log.save_vote(group, vote).await
}

/// What replicas of before had saved; nothing where there was none.
pub async fn of(disk: &dyn Disk, group: GroupId) -> io::Result<Seen> {
    let path = path_of(group);
    match read_all(disk, &path).await {
        Ok(bytes) => {
            // Who was killed right behind renaming it did not.
            disk.flush_dir(Path::new(DIR)).await?;
            parse(&bytes).ok_or_else(|| {
                let what = format!("{}: not what was written", path.display());
                io::Error::new(io::ErrorKind::InvalidData, what)
            })
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Seen::default()),
        Err(e) => Err(e),
    }
}

/// Files that are not what was written.
pub async fn damaged(disk: &dyn Disk) -> io::Result<Vec<PathBuf>> {
    let mut damaged = Vec::new();
    for name in disk.list(Path::new(DIR)).await? {
        let path = Path::new(DIR).join(name);
        let is_whole = async || Ok::<_, io::Error>(parse(&read_all(disk, &path).await?).is_some());
        let is_written = path.extension().is_none();
        // Twice, as it may be replaced by a longer one while it is read.
        if is_written && !is_whole().await? && !is_whole().await? {
            damaged.push(path);
        }
    }
    Ok(damaged)
}

fn path_of(group: GroupId) -> PathBuf {
    Path::new(DIR).join(group.to_string())
}

/// Term and node of the vote, the log's end or `-`, and their checksum.
pub(crate) fn line(seen: Seen) -> String {
    let Leadership { term, node } = seen.vote;
    let reached = seen.reached.map_or("-".to_owned(), |at| at.to_string());
    let said = format!("{term} {node} {reached}");
    let sum = crc32c::crc32c(said.as_bytes());
    format!("{said} {sum:08x}\n")
}

pub(crate) fn parse(bytes: &[u8]) -> Option<Seen> {
    let text = std::str::from_utf8(bytes).ok()?;
    let words: Vec<&str> = text.split(' ').collect();
    let [term, node, reached, _] = words[..] else {
        return None;
    };
    let reached = match reached {
        "-" => None,
        at => Some(at.parse().ok()?),
    };
    let vote = Leadership {
        term: term.parse().ok()?,
        node: node.parse().ok()?,
    };
    let seen = Seen { vote, reached };
    (line(seen) == text).then_some(seen)
}

#[cfg(test)]
mod tests {
    use sim_world::{SimClock, SimDisk};

    use super::*;

    #[tokio::test]
    async fn what_was_seen_only_rises() {
        let disk = SimDisk::new(5);
        let world = sim_world::world(1, &SimClock::new(), &disk);
        let group = GroupId(7);
        let seen = |term, reached| Seen {
            vote: Leadership { term, node: 3 },
            reached,
        };
        assert_eq!(of(&*world.disk, group).await.unwrap(), Seen::default());
        keep(&*world.disk, group, seen(4, Some(90))).await.unwrap();
        // The next replica had hardly begun.
        keep(&*world.disk, group, seen(5, None)).await.unwrap();
        disk.crash();
        let world = sim_world::world(2, &SimClock::new(), &disk);
        assert_eq!(of(&*world.disk, group).await.unwrap(), seen(5, Some(90)));
        assert_eq!(of(&*world.disk, GroupId(8)).await.unwrap(), Seen::default());
    }

    #[tokio::test]
    async fn those_that_rotted_are_found() {
        let disk = SimDisk::new(5).mount();
        assert!(damaged(&disk).await.unwrap().is_empty());
        for group in [7, 8] {
            keep(&disk, GroupId(group), Seen::default()).await.unwrap();
        }
        assert!(damaged(&disk).await.unwrap().is_empty());
        let path = path_of(GroupId(8));
        let mut bytes = read_all(&disk, &path).await.unwrap().to_vec();
        bytes[0] ^= 1;
        replace(&disk, &path, bytes.into()).await.unwrap();
        assert_eq!(damaged(&disk).await.unwrap(), [path]);
        // Until the next replica leaves.
        keep(&disk, GroupId(8), Seen::default()).await.unwrap();
        assert!(damaged(&disk).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn who_comes_back_promises_no_less() {
        let world = sim_world::world(1, &SimClock::new(), &SimDisk::new(5));
        let registry = prometheus::Registry::new();
        let log = wal::SegmentedLog::open(
            &world,
            Path::new("log"),
            wal::Options::default(),
            wal::Metrics::new(&registry).unwrap(),
        );
        let (log, _) = log.await.unwrap();
        let log: &dyn wal::Log = &*log;
        let group = GroupId(7);
        let seen = |term| Seen {
            vote: Leadership { term, node: 3 },
            reached: Some(90),
        };
        promise(log, group, Seen::default()).await.unwrap();
        assert_eq!(log.state(group).vote, None);
        promise(log, group, seen(4)).await.unwrap();
        let vote = |term, committed| wal::Vote {
            term,
            node: NodeId(3),
            committed,
        };
        assert_eq!(log.state(group).vote, Some(vote(4, false)));
        // Of the same leader, whom a majority has confirmed, and of a later one.
        for vote in [vote(4, true), vote(5, false)] {
            log.save_vote(group, vote).await.unwrap();
            promise(log, group, seen(4)).await.unwrap();
            assert_eq!(log.state(group).vote, Some(vote));
        }
    }

    #[test]
    fn a_flipped_bit_is_told() {
        let seen = Seen {
            vote: Leadership { term: 12, node: 3 },
            reached: None,
        };
        let whole = line(seen);
        assert_eq!(parse(whole.as_bytes()), Some(seen));
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse(&bytes), None, "bit {bit}");
        }
    }
}
