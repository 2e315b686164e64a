//! What senders say of their metrics, on its way into the shard's log.
//!
//! Nodes tell again what they told long ago, each for itself, so most of what comes is known: only
//! the rest becomes an entry. One is under way at a time; who waited for it looks again, because
//! senders of one kind say the same at the same time.

use std::sync::Arc;

use model::port::{Clock, World};
use model::{FamilyMetadata, limits};
use tokio::sync::Semaphore;
use tsdb::{Command, DescribeCommand, Outcome, Shard};

use crate::raft::group;
use crate::raft::types::{Raft, Reply};
use crate::refusal::Refusal;

/// What was told more recently is not told again.
const FRESH_MS: i64 = 30 * 60_000;
/// Requests that may wait.
const WAITING_MAX: usize = 1024;

/// Accepts words about families for one shard.
pub struct Describing {
    raft: Raft,
    engine: Arc<Shard>,
    clock: Arc<dyn Clock>,
    turn: Semaphore,
    waiting: Semaphore,
}

impl Describing {
    pub fn new(world: &World, raft: Raft, engine: Arc<Shard>) -> Self {
        Self {
            raft,
            engine,
            clock: world.clock.clone(),
            turn: Semaphore::new(1),
            waiting: Semaphore::new(WAITING_MAX),
        }
    }

    /// Returns when all of it is committed and applied here.
    pub async fn describe(&self, families: &[FamilyMetadata]) -> Result<(), Refusal> {
        if self.untold(families).is_empty() {
            // Applied here is committed.
            return Ok(());
        }
        let full = |_| Refusal::Overloaded("too much metadata waits for this shard".to_owned());
        let _room = self.waiting.try_acquire().map_err(full)?;
        let _turn = self.turn.acquire().await.expect("never closed");
        for families in pieces(self.untold(families)) {
            let command = Command::Describe(DescribeCommand {
                proposed_at: self.clock.now(),
                families,
            });
            match group::propose(&self.raft, command.encode()).await? {
                Reply::Shard(Outcome::Described) => {}
                reply => unreachable!("metadata was answered with {reply:?}"),
            }
        }
        Ok(())
    }

    fn untold(&self, families: &[FamilyMetadata]) -> Vec<FamilyMetadata> {
        let since = self.clock.now().plus_ms(-FRESH_MS);
        self.engine.untold(families, since)
    }
}

/// Entries of a proposal's size.
fn pieces(families: Vec<FamilyMetadata>) -> Vec<Vec<FamilyMetadata>> {
    let mut pieces: Vec<Vec<FamilyMetadata>> = Vec::new();
    let mut bytes = 0;
    for family in families {
        let more = family.text_bytes() + 8;
        match pieces.last_mut() {
            Some(piece) if bytes + more <= limits::PROPOSAL_BYTES_MAX => piece.push(family),
            _ => {
                bytes = 0;
                pieces.push(vec![family]);
            }
        }
        bytes += more;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_of_a_proposals_size() {
        let family = |n: usize| FamilyMetadata {
            name: n.to_string(),
            help: "h".repeat(limits::METADATA_ENTRY_BYTES_MAX - 100),
            ..FamilyMetadata::default()
        };
        let all: Vec<_> = (0..300).map(family).collect();
        let pieces = pieces(all.clone());
        assert!(pieces.len() > 1 && pieces.len() < 4);
        for piece in &pieces {
            let bytes: usize = piece.iter().map(FamilyMetadata::text_bytes).sum();
            assert!(bytes <= limits::PROPOSAL_BYTES_MAX);
        }
        assert_eq!(pieces.concat(), all);
    }
}
