//! What metrics mean: to the shards of the families' names, and from all shards back.
//!
//! A family lives where a series without labels and of its name would. What pushed groups say of
//! their families lies with the groups, so a question about one family goes to every shard too.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::join_all;
use model::labels::METRIC_NAME;
use model::sink::WriteError;
use model::source::SourceError;
use model::{FamilyMetadata, Labels, MetadataStore, ShardId};
use proto::node as wire;

use super::{Answer, Router, Whom, call, is_passing, refused, to_source_error};
use crate::convert;
use crate::peer::Peer;
use crate::refusal::Refusal;

impl Router {
    async fn describe_in(
        &self,
        shard: ShardId,
        families: &[FamilyMetadata],
    ) -> Result<(), Refusal> {
        // Telling the same again changes nothing but when it was told.
        let question = |whom| -> Answer<'_, ()> {
            Box::pin(async move {
                match whom {
                    Whom::Here(replica) => replica.describe(families).await,
                    Whom::There(peer) => {
                        let request = wire::DescribeRequest {
                            cluster_id: self.cluster_id(),
                            shard: shard.0,
                            families: convert::metadata_families_to_wire(families),
                        };
                        refused(call(peer.data().describe(request)).await?.refusal)
                    }
                }
            })
        };
        self.ask(shard, is_passing, question).await
    }

    async fn described_in(
        &self,
        shard: ShardId,
        family: Option<&str>,
    ) -> Result<Vec<FamilyMetadata>, Refusal> {
        let question = |whom| -> Answer<'_, Vec<FamilyMetadata>> {
            Box::pin(async move {
                match whom {
                    Whom::Here(replica) => replica.described(family).await,
                    Whom::There(peer) => self.described_there(&peer, shard, family).await,
                }
            })
        };
        self.ask(shard, is_passing, question).await
    }

    async fn described_there(
        &self,
        peer: &Peer,
        shard: ShardId,
        family: Option<&str>,
    ) -> Result<Vec<FamilyMetadata>, Refusal> {
        let request = wire::DescribedRequest {
            cluster_id: self.cluster_id(),
            shard: shard.0,
            family: family.map(str::to_owned),
        };
        let reply = call(peer.data().described(request)).await?;
        refused(reply.refusal)?;
        let families = convert::metadata_families_from_wire(reply.families);
        families.map_err(|e| Refusal::Internal(e.to_string()))
    }
}

#[async_trait]
impl MetadataStore for Router {
    async fn describe(&self, told: Vec<FamilyMetadata>) -> Result<(), WriteError> {
        let state = self.state();
        if !state.is_formed() {
            return Err(WriteError::Unavailable(Vec::new()));
        }
        let mut by_shard: BTreeMap<ShardId, Vec<FamilyMetadata>> = BTreeMap::new();
        for family in told {
            let series = Labels::from_pairs([(METRIC_NAME, &family.name)]);
            let shard = state.shard_of(series.as_canonical());
            by_shard.entry(shard).or_default().push(family);
        }
        let told = by_shard.iter().map(|(shard, families)| {
            async move { (*shard, self.describe_in(*shard, families).await) }.boxed()
        });
        let mut lost = Vec::new();
        let mut overloaded = None;
        for (shard, told) in join_all(told).await {
            match told {
                Ok(()) => {}
                Err(Refusal::Overloaded(why)) => overloaded = Some(why),
                Err(refusal) => {
                    tracing::debug!(%shard, %refusal, "metadata not acknowledged");
                    lost.push(shard);
                }
            }
        }
        match (lost.is_empty(), overloaded) {
            (false, _) => Err(WriteError::Unavailable(lost)),
            (true, Some(why)) => Err(WriteError::Overloaded(why)),
            (true, None) => Ok(()),
        }
    }

    async fn described(&self, family: Option<&str>) -> Result<Vec<FamilyMetadata>, SourceError> {
        let state = self.state();
        if !state.is_formed() {
            return Err(SourceError::Unavailable(Vec::new()));
        }
        let questions = state.shards().map(|shard| {
            let found = self.described_in(shard, family);
            async move {
                found
                    .await
                    .map_err(|refusal| to_source_error(shard, refusal))
            }
            .boxed()
        });
        let mut all = BTreeSet::new();
        for found in join_all(questions).await {
            all.extend(found?);
        }
        Ok(all.into_iter().collect())
    }
}
