//! Snapshots as files in a stream.
//!
//! The sender names its files, the receiver answers with those it lacks, the sender streams them
//! in order and the receiver installs. Files are checked against their sums when installed; a
//! transfer that breaks leaves only a staging directory, which the next one clears.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use model::port::Disk;
use openraft::type_config::alias::SnapshotOf;
use proto::node as wire;
use proto::node::raft_client::RaftClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::machine::{FileSet, Machine, SnapshotFile};
use super::types::{Mark, Raft, TypeConfig, Vote, malformed, vote_from_wire, vote_to_wire};

/// One message of file content.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces read from disk and not yet on their way.
const PIECES_AHEAD: usize = 8;

/// Why a snapshot did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error("reading the snapshot")]
    Disk(#[from] io::Error),
    #[error("sending the snapshot: {0}")]
    Peer(String),
}

impl From<Status> for SendError {
    fn from(status: Status) -> Self {
        Self::Peer(status.to_string())
    }
}

/// Sends `files` to the replica `open` names; gives the vote it answered with.
pub async fn send(
    mut client: RaftClient<Channel>,
    disk: Arc<dyn Disk>,
    mut open: wire::SnapshotOpen,
    files: FileSet,
) -> Result<Vote, SendError> {
    open.index = files.index;
    open.opaque = files.opaque.clone();
    open.files = files
        .files
        .iter()
        .map(|f| wire::SnapshotFile {
            name: f.name.clone(),
            bytes: f.bytes,
            crc32c: f.crc32c,
        })
        .collect();
    let (sender, frames) = mpsc::channel(PIECES_AHEAD);
    push(&sender, wire::snapshot_frame::Frame::Open(open)).await?;
    let mut replies = client
        .snapshot(ReceiverStream::new(frames))
        .await?
        .into_inner();
    let wanted = match next_reply(&mut replies).await? {
        wire::snapshot_reply::Reply::Wanted(wanted) => wanted.files,
        wire::snapshot_reply::Reply::Installed(vote) => return Ok(vote_from_wire(Some(vote))?),
        wire::snapshot_reply::Reply::Failed(why) => return Err(SendError::Peer(why)),
    };
    for at in wanted {
        let file = files
            .files
            .get(at as usize)
            .ok_or_else(|| malformed("reply: no such file"))?;
        send_file(&*disk, &files.dir.join(&file.name), file.bytes, &sender).await?;
    }
    drop(sender);
    match next_reply(&mut replies).await? {
        wire::snapshot_reply::Reply::Installed(vote) => Ok(vote_from_wire(Some(vote))?),
        wire::snapshot_reply::Reply::Failed(why) => Err(SendError::Peer(why)),
        wire::snapshot_reply::Reply::Wanted(_) => Err(SendError::Peer("asked twice".to_owned())),
    }
}

async fn send_file(
    disk: &dyn Disk,
    path: &Path,
    bytes: u64,
    sender: &mpsc::Sender<wire::SnapshotFrame>,
) -> Result<(), SendError> {
    let mut offset = 0;
    while offset < bytes {
        let len = PIECE_BYTES.min((bytes - offset) as usize);
        let piece = disk.read(path, offset, len).await?;
        if piece.is_empty() {
            return Err(SendError::Disk(io::ErrorKind::UnexpectedEof.into()));
        }
        offset += piece.len() as u64;
        push(sender, wire::snapshot_frame::Frame::Data(piece)).await?;
    }
    Ok(())
}

async fn push(
    sender: &mpsc::Sender<wire::SnapshotFrame>,
    frame: wire::snapshot_frame::Frame,
) -> Result<(), SendError> {
    let frame = wire::SnapshotFrame { frame: Some(frame) };
    sender
        .send(frame)
        .await
        .map_err(|_| SendError::Peer("the stream ended".to_owned()))
}

async fn next_reply(
    replies: &mut Streaming<wire::SnapshotReply>,
) -> Result<wire::snapshot_reply::Reply, SendError> {
    let reply = replies.message().await?.and_then(|m| m.reply);
    reply.ok_or_else(|| SendError::Peer("the stream ended".to_owned()))
}

/// What comes after the opening frame, and what the receiver says meanwhile.
pub struct Incoming<S> {
    pub open: wire::SnapshotOpen,
    pub frames: S,
    pub replies: mpsc::Sender<Result<wire::SnapshotReply, Status>>,
}

/// Takes one snapshot into `machine` and hands it to Raft.
pub async fn receive<S>(
    incoming: Incoming<S>,
    raft: &Raft,
    machine: &dyn Machine,
    disk: &dyn Disk,
) -> Result<Vote, String>
where
    S: Stream<Item = Result<wire::SnapshotFrame, Status>> + Unpin + Send,
{
    let Incoming {
        open,
        mut frames,
        replies,
    } = incoming;
    let text = |e: io::Error| e.to_string();
    let vote = vote_from_wire(open.vote).map_err(text)?;
    let mark = Mark::decode(&open.opaque).map_err(text)?;
    let files: Vec<SnapshotFile> = open
        .files
        .iter()
        .map(|f| SnapshotFile {
            name: f.name.clone(),
            bytes: f.bytes,
            crc32c: f.crc32c,
        })
        .collect();
    if let Some(bad) = files.iter().find(|f| !is_plain_name(&f.name)) {
        return Err(format!("file name {:?} is not one", bad.name));
    }
    let dir = machine.stage(open.index).await.map_err(text)?;
    let wanted = lacking(&files, &machine.held().await);
    let reply = wire::snapshot_reply::Reply::Wanted(wire::SnapshotWanted {
        files: wanted.clone(),
    });
    let reply = wire::SnapshotReply { reply: Some(reply) };
    replies
        .send(Ok(reply))
        .await
        .map_err(|_| "the sender went away".to_owned())?;
    let mut rest = Bytes::new();
    for at in wanted {
        let file = &files[at as usize];
        take_file(disk, &dir, file, &mut rest, &mut frames)
            .await
            .map_err(text)?;
    }
    disk.flush_dir(&dir).await.map_err(text)?;
    let set = FileSet {
        index: open.index,
        opaque: open.opaque,
        dir,
        files,
        pin: None,
    };
    let meta = openraft::SnapshotMeta {
        last_log_id: mark.log_id,
        last_membership: mark.members,
    };
    let snapshot: SnapshotOf<TypeConfig, FileSet> = openraft::storage::Snapshot {
        meta,
        snapshot: set,
    };
    let answer = raft
        .install_full_snapshot(vote, snapshot)
        .await
        .map_err(|e| e.to_string())?;
    Ok(answer.vote)
}

/// Files of the snapshot that are not held with the same name, length and sum.
fn lacking(files: &[SnapshotFile], held: &[SnapshotFile]) -> Vec<u32> {
    let lacks = |(at, file)| (!held.contains(file)).then_some(at as u32);
    files.iter().enumerate().filter_map(lacks).collect()
}

/// A name that stays inside the staging directory.
fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0'])
}

/// What is not as it was told never comes before Raft, which would stop at it: the sender's file may have been replaced
/// while it was read, and the next attempt is of another.
async fn take_file<S>(
    disk: &dyn Disk,
    dir: &Path,
    told: &SnapshotFile,
    rest: &mut Bytes,
    frames: &mut S,
) -> io::Result<()>
where
    S: Stream<Item = Result<wire::SnapshotFrame, Status>> + Unpin,
{
    let mut file = disk.create(&dir.join(&told.name)).await?;
    let (mut missing, mut sum) = (told.bytes, 0);
    while missing > 0 {
        if rest.is_empty() {
            *rest = next_piece(frames).await?;
        }
        let take = rest
            .len()
            .min(usize::try_from(missing).unwrap_or(usize::MAX));
        let piece = rest.split_to(take);
        sum = crc32c::crc32c_append(sum, &piece);
        file.append(vec![piece]).await?;
        missing -= take as u64;
    }
    if sum != told.crc32c {
        return Err(malformed(&format!(
            "snapshot: {} is not what was told of it",
            told.name
        )));
    }
    file.flush().await
}

async fn next_piece<S>(frames: &mut S) -> io::Result<Bytes>
where
    S: Stream<Item = Result<wire::SnapshotFrame, Status>> + Unpin,
{
    match frames.next().await {
        Some(Ok(wire::SnapshotFrame {
            frame: Some(wire::snapshot_frame::Frame::Data(data)),
        })) if !data.is_empty() => Ok(data),
        Some(Ok(_)) => Err(malformed("snapshot frame")),
        Some(Err(status)) => Err(io::Error::other(status)),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// The reply that ends a transfer.
pub fn closing_reply(result: Result<Vote, String>) -> wire::SnapshotReply {
    let reply = match result {
        Ok(vote) => wire::snapshot_reply::Reply::Installed(vote_to_wire(&vote)),
        Err(why) => wire::snapshot_reply::Reply::Failed(why),
    };
    wire::SnapshotReply { reply: Some(reply) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, crc32c: u32) -> SnapshotFile {
        SnapshotFile {
            name: name.to_owned(),
            bytes: 3,
            crc32c,
        }
    }

    #[test]
    fn only_what_is_missing_or_different_travels() {
        let files = [file("a", 1), file("b", 2), file("c", 3)];
        assert_eq!(lacking(&files, &[file("b", 2), file("c", 9)]), vec![0, 2]);
    }

    #[tokio::test]
    async fn a_file_that_was_replaced_while_it_was_sent_is_not_taken() {
        let disk = sim_world::SimDisk::new(1);
        let told = file("a", crc32c::crc32c(b"old"));
        for (sent, is_taken) in [("old", true), ("oew", false)] {
            let data = wire::snapshot_frame::Frame::Data(Bytes::from(sent));
            let frame = wire::SnapshotFrame { frame: Some(data) };
            let mut frames = futures::stream::iter([Ok(frame)]);
            let mut rest = Bytes::new();
            let taken = take_file(&disk, Path::new(""), &told, &mut rest, &mut frames).await;
            assert_eq!(taken.is_ok(), is_taken, "{taken:?}");
            disk.remove(Path::new("a")).await.unwrap();
        }
    }

    #[test]
    fn names_cannot_leave_the_staging_directory() {
        for name in ["", "..", "../x", "a/b", "/etc", ".x", "a\0"] {
            assert!(!is_plain_name(name), "{name:?}");
        }
        assert!(is_plain_name("block-0001"));
    }
}
