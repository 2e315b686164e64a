//! The small files that are the node's own and no shard's, read again once in a while: who it is, the
//! meta state's checkpoint, and what replicas that moved away had saved.
//!
//! A file that rotted is an error line and is counted. What it should hold is in memory, for as long as
//! the node runs, and is written anew; of a replica that moved away nothing is.

use std::io;
use std::path::Path;

use bytes::Bytes;
use model::port::{Disk, read_all, replace};

use crate::cluster::Shared;
use crate::raft::before;

/// Makes sure that a file, which nobody writes meanwhile, holds these bytes; whether it did.
pub async fn hold(disk: &dyn Disk, path: &Path, bytes: &Bytes) -> io::Result<bool> {
    match read_all(disk, path).await {
        Ok(found) if found == *bytes => return Ok(true),
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    tracing::error!(file = %path.display(), "a file is damaged; it is written anew");
    replace(disk, path, bytes.clone()).await?;
    Ok(false)
}

/// Reads all of them.
pub async fn pass(shared: &Shared) {
    if let Err(error) = keep_identity(shared).await {
        tracing::warn!(%error, "the node's identity cannot be read again or written");
    }
    if let Err(error) = shared.meta_machine.keep().await {
        tracing::warn!(%error, "the meta state's checkpoint cannot be read again or written");
    }
    match before::damaged(&*shared.world.disk).await {
        Ok(damaged) => {
            for file in damaged {
                shared.engine_metrics.corruptions.inc();
                tracing::error!(file = %file.display(), "a file is damaged");
            }
        }
        Err(error) => tracing::warn!(%error, "what replicas left cannot be read again"),
    }
}

async fn keep_identity(shared: &Shared) -> io::Result<()> {
    let identity = shared.local.identity.lock().await;
    if !identity.keep(&shared.world).await? {
        shared.engine_metrics.corruptions.inc();
    }
    Ok(())
}
