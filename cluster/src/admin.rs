//! What an administrator asks of the whole cluster, from any node: deleting, cleaning, a snapshot,
//! the numbers of the head.

use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::join_all;
use model::admin::{Admin, HeadStatistics};
use model::sink::WriteError;
use model::source::{Consistency, SourceError};
use model::{Matcher, ShardId, Timestamp};
use proto::node as wire;
use tsdb::DeleteCommand;
use tsdb::cardinality::Cardinality;

use crate::convert;
use crate::export::{self, Wanted};
use crate::peer::Peer;
use crate::refusal::Refusal;
use crate::router::{Answer, Router, Whom, call, is_passing, refused, to_source_error};
use crate::statistics::Statistics;

/// A node's part of a snapshot.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(120);
/// One message of a long answer.
const PIECE_TIMEOUT: Duration = Duration::from_secs(10);

impl Router {
    async fn delete_in(&self, shard: ShardId, command: &DeleteCommand) -> Result<(), Refusal> {
        // A repeated deletion deletes nothing more.
        let question = |whom| -> Answer<'_, ()> {
            Box::pin(async move {
                match whom {
                    Whom::Here(replica) => replica.delete(command.clone()).await,
                    Whom::There(peer) => {
                        let request = wire::DeleteRequest {
                            cluster_id: self.cluster_id(),
                            shard: shard.0,
                            ..convert::delete_to_wire(command)
                        };
                        refused(call(peer.data().delete(request)).await?.refusal)
                    }
                }
            })
        };
        self.ask(shard, is_passing, question).await
    }

    /// Cleans block after block.
    async fn clean_in(&self, shard: ShardId) -> Result<(), Refusal> {
        let question = |whom| -> Answer<'_, bool> {
            Box::pin(async move {
                match whom {
                    Whom::Here(replica) => replica.clean_one().await,
                    Whom::There(peer) => {
                        let request = wire::ShardRequest {
                            cluster_id: self.cluster_id(),
                            shard: shard.0,
                        };
                        let reply = call(peer.data().clean(request)).await?;
                        refused(reply.refusal)?;
                        Ok(reply.cleaned)
                    }
                }
            })
        };
        while self.ask(shard, is_passing, question).await? {}
        Ok(())
    }

    /// A log index that holds everything acknowledged before.
    async fn index_of(&self, shard: ShardId) -> Result<u64, Refusal> {
        let question = |whom| -> Answer<'_, u64> {
            Box::pin(async move {
                match whom {
                    Whom::Here(replica) => replica.settled_index().await,
                    Whom::There(peer) => {
                        let request = wire::ShardRequest {
                            cluster_id: self.cluster_id(),
                            shard: shard.0,
                        };
                        let reply = call(peer.data().index(request)).await?;
                        refused(reply.refusal)?;
                        Ok(reply.index)
                    }
                }
            })
        };
        self.ask(shard, is_passing, question).await
    }

    async fn export_at(
        &self,
        node: u64,
        name: &str,
        with_head: bool,
        indexes: &[(ShardId, u64)],
    ) -> Result<(), String> {
        if node == self.node {
            let wanted = Wanted {
                name,
                with_head,
                cluster: self.peers.cluster().to_string(),
                node,
                replicas: export::chosen(&self.replicas, indexes),
            };
            let exported = export::export(&self.world, wanted).await;
            return exported.map_err(|e| e.to_string());
        }
        let state = self.state();
        let peer = self.peers.at(state.address(node).unwrap_or_default());
        let request = wire::ExportRequest {
            cluster_id: self.cluster_id(),
            name: name.to_owned(),
            with_head,
            shards: indexes.iter().map(|(shard, _)| shard.0).collect(),
            indexes: indexes.iter().map(|(_, index)| *index).collect(),
        };
        let asked = tokio::time::timeout(EXPORT_TIMEOUT, peer.data().export(request)).await;
        let reply = asked
            .map_err(|_| "no answer in time".to_owned())?
            .map_err(|status| status.to_string())?;
        let refusal = reply.into_inner().refusal.map(convert::refusal_from_wire);
        refusal.map_or(Ok(()), |refusal| Err(refusal.to_string()))
    }

    async fn cardinality_there(
        &self,
        peer: &Peer,
        shard: ShardId,
    ) -> Result<Vec<Cardinality>, Refusal> {
        let request = wire::ShardRequest {
            cluster_id: self.cluster_id(),
            shard: shard.0,
        };
        let mut replies = call(peer.data().cardinality(request)).await?;
        let mut pieces = Vec::new();
        loop {
            let next = tokio::time::timeout(PIECE_TIMEOUT, replies.message()).await;
            let reply = next
                .map_err(|_| Refusal::Unavailable("no answer in time".to_owned()))?
                .map_err(|status| Refusal::Unavailable(status.to_string()))?;
            let Some(mut reply) = reply else {
                return Ok(pieces);
            };
            refused(reply.refusal.take())?;
            let piece = convert::cardinality_from_wire(reply);
            pieces.push(piece.map_err(|e| Refusal::Internal(e.to_string()))?);
        }
    }

    async fn cardinality_of(&self, shard: ShardId) -> Result<Vec<Cardinality>, Refusal> {
        let question = |whom| -> Answer<'_, Vec<Cardinality>> {
            Box::pin(async move {
                match whom {
                    Whom::Here(replica) => {
                        replica.settle(Consistency::Strong).await?;
                        Ok(vec![replica.engine.cardinality()])
                    }
                    Whom::There(peer) => self.cardinality_there(&peer, shard).await,
                }
            })
        };
        self.ask(shard, is_passing, question).await
    }

    fn formed(&self) -> Result<Vec<ShardId>, WriteError> {
        let state = self.state();
        match state.is_formed() {
            true => Ok(state.shards().collect()),
            false => Err(WriteError::Unavailable(Vec::new())),
        }
    }
}

/// All shards' answers, or the shards that gave none.
fn all<T>(answers: Vec<(ShardId, Result<T, Refusal>)>) -> Result<Vec<(ShardId, T)>, WriteError> {
    let mut done = Vec::with_capacity(answers.len());
    let mut lost = Vec::new();
    for (shard, answer) in answers {
        match answer {
            Ok(answer) => done.push((shard, answer)),
            Err(refusal) => {
                tracing::debug!(%shard, %refusal, "not done");
                lost.push(shard);
            }
        }
    }
    match lost.is_empty() {
        true => Ok(done),
        false => Err(WriteError::Unavailable(lost)),
    }
}

#[async_trait]
impl Admin for Router {
    async fn delete_series(
        &self,
        any_of: Vec<Vec<Matcher>>,
        start: Timestamp,
        end: Timestamp,
    ) -> Result<(), WriteError> {
        let command = DeleteCommand { any_of, start, end };
        let questions = self.formed()?.into_iter().map(|shard| {
            let deleted = self.delete_in(shard, &command);
            async move { (shard, deleted.await) }.boxed()
        });
        all(join_all(questions).await).map(drop)
    }

    async fn clean_tombstones(&self) -> Result<(), WriteError> {
        let questions = self.formed()?.into_iter().map(|shard| {
            let cleaned = self.clean_in(shard);
            async move { (shard, cleaned.await) }.boxed()
        });
        all(join_all(questions).await).map(drop)
    }

    async fn snapshot(&self, name: &str, with_head: bool) -> Result<(), WriteError> {
        export::check_name(name).map_err(WriteError::Invalid)?;
        let shards = self.formed()?;
        if !with_head {
            // What says that something is deleted is with the head.
            self.clean_tombstones().await?;
        }
        let questions = shards.into_iter().map(|shard| {
            let index = self.index_of(shard);
            async move { (shard, index.await) }.boxed()
        });
        let indexes = &all(join_all(questions).await)?;
        let state = self.state();
        let questions = state.members.iter().map(|(node, member)| {
            let exported = self.export_at(*node, name, with_head, indexes);
            async move {
                let failed = |why| format!("node {node} at {}: {why}", member.address);
                exported.await.map_err(failed)
            }
            .boxed()
        });
        let answers = join_all(questions).await;
        let failed: Vec<String> = answers.into_iter().filter_map(Result::err).collect();
        match failed.is_empty() {
            true => Ok(()),
            false => Err(WriteError::Failed(failed.join("; "))),
        }
    }

    async fn head_statistics(&self, limit: usize) -> Result<HeadStatistics, SourceError> {
        let shards = self.formed();
        let shards = shards.map_err(|_| SourceError::Unavailable(Vec::new()))?;
        let mut statistics = Statistics::default();
        // One after another: what is held at once is one shard's answer and the sum.
        for shard in shards {
            let pieces = self.cardinality_of(shard).await;
            for piece in pieces.map_err(|refusal| to_source_error(shard, refusal))? {
                let added = statistics.add(piece);
                added.map_err(|_| SourceError::TooLarge("labels of the head".to_owned()))?;
            }
        }
        Ok(statistics.finish(limit))
    }
}
