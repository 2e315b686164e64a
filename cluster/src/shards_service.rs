//! The gRPC side of data: writes, pushes and reads on the replicas of this node. It never routes
//! on: whoever asks the wrong node is told who leads.

use std::pin::Pin;
use std::sync::Arc;

use futures::{FutureExt, Stream, StreamExt};
use model::group::Group;
use model::port::World;
use model::source::{Consistency, Source};
use model::{Labels, NodeId, Series, ShardId};
use proto::node as wire;
use proto::node::shards_server::Shards;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::changes;
use crate::convert::{self, Malformed};
use crate::dictionary::{Listener, Named};
use crate::evaluate;
use crate::export::{self, Wanted};
use crate::newest;
use crate::peer::Peers;
use crate::raft::types::vote_to_wire;
use crate::reads;
use crate::refusal::Refusal;
use crate::router::{Replicas, engine_refusal};
use crate::shard::{Replica, comparing, scrub};

/// Writes of one connection being decided at once.
const WRITES_MAX: usize = 256;
/// Samples in one message of an answer; a histogram counts as the floats that take its room.
const SAMPLES_PER_MESSAGE: usize = 64 << 10;

#[derive(Clone)]
pub struct Service {
    pub node: NodeId,
    pub world: World,
    pub evaluator: evaluate::Seat,
    pub peers: Arc<Peers>,
    pub replicas: Replicas,
}

impl Service {
    fn find(&self, cluster_id: &[u8], shard: u32) -> Result<Arc<Replica>, Refusal> {
        if convert::cluster_id_from_wire(cluster_id) != Some(self.peers.cluster()) {
            return Err(Refusal::Internal(
                "this node belongs to another cluster".to_owned(),
            ));
        }
        let replicas = self.replicas.read().expect("not poisoned");
        replicas
            .get(&ShardId(shard))
            .cloned()
            .ok_or(Refusal::NotLeader(None))
    }

    async fn write_one(&self, frame: wire::WriteFrame, series: Vec<Labels>) -> wire::WriteReply {
        let seq = frame.seq;
        let written = async {
            let replica = self.find(&frame.cluster_id, frame.shard)?;
            let batch = convert::batch_from_wire(frame.batch.unwrap_or_default(), series);
            replica.write(Arc::new(batch.map_err(malformed)?)).await
        };
        let result = match written.await {
            Ok(written) => wire::write_reply::Result::Written(convert::written_to_wire(&written)),
            Err(refusal) => wire::write_reply::Result::Refusal(convert::refusal_to_wire(refusal)),
        };
        wire::WriteReply {
            seq,
            result: Some(result),
        }
    }

    async fn push_one(&self, request: wire::PushRequest) -> Result<wire::PushReply, Refusal> {
        let replica = self.find(&request.cluster_id, request.shard)?;
        let (key, op, options) = convert::push_from_wire(request).map_err(malformed)?;
        let Some(pushed) = replica.push(key, op, options).await? else {
            return Ok(wire::PushReply {
                must_check: true,
                ..wire::PushReply::default()
            });
        };
        let group = |group: &Option<Arc<Group>>| {
            let group = group.as_ref().filter(|_| !options.brief);
            group.map(|group| convert::group_to_wire(group))
        };
        Ok(wire::PushReply {
            must_check: false,
            at_ms: pushed.at.0,
            before: group(&pushed.before),
            after: group(&pushed.after),
            repeated: pushed.repeated,
            refusal: None,
            stored: true,
        })
    }

    async fn check_one(&self, request: wire::PushRequest) -> Result<wire::CheckReply, Refusal> {
        let replica = self.find(&request.cluster_id, request.shard)?;
        let blocks = request.series.iter();
        let series = blocks.map(|block| convert::labels_from_wire(block));
        let series: Vec<_> = series.collect::<Result<_, _>>().map_err(malformed)?;
        let (key, op, options) = convert::push_from_wire(request).map_err(malformed)?;
        let conflict = replica.conflict(&key, &op, &series).await?;
        Ok(wire::CheckReply {
            conflict: conflict.filter(|_| !options.unchecked).unwrap_or_default(),
            refusal: None,
        })
    }

    async fn wipe_one(&self, request: wire::ShardRequest) -> Result<wire::WipeReply, Refusal> {
        let replica = self.find(&request.cluster_id, request.shard)?;
        let wiped = replica.wipe().await?;
        let groups = wiped.groups.iter().map(|g| convert::group_to_wire(g));
        Ok(wire::WipeReply {
            at_ms: wiped.at.0,
            groups: groups.collect(),
            refusal: None,
        })
    }

    async fn groups_of(&self, request: wire::GroupsRequest) -> Result<wire::GroupsReply, Refusal> {
        let replica = self.find(&request.cluster_id, request.shard)?;
        let groups = replica
            .groups()
            .await?
            .iter()
            .map(convert::group_to_wire)
            .collect();
        Ok(wire::GroupsReply {
            groups,
            refusal: None,
        })
    }

    async fn describe_one(&self, request: wire::DescribeRequest) -> Result<(), Refusal> {
        let replica = self.find(&request.cluster_id, request.shard)?;
        let families = convert::metadata_families_from_wire(request.families).map_err(malformed)?;
        replica.describe(&families).await
    }

    async fn described_of(
        &self,
        request: wire::DescribedRequest,
    ) -> Result<wire::DescribedReply, Refusal> {
        let replica = self.find(&request.cluster_id, request.shard)?;
        let families = replica.described(request.family.as_deref()).await?;
        Ok(wire::DescribedReply {
            families: convert::metadata_families_to_wire(&families),
            refusal: None,
        })
    }

    async fn select_all(&self, request: wire::SelectRequest) -> Result<Vec<Series>, Refusal> {
        let replica = self.find(&request.cluster_id, request.shard)?;
        let selection = convert::selection_from_wire(request).map_err(malformed)?;
        replica.settle(selection.consistency).await?;
        replica
            .engine
            .select(&selection)
            .await
            .map_err(engine_refusal)
    }

    async fn evaluate_part(
        &self,
        request: wire::EvaluateRequest,
    ) -> Result<evaluate::Answer, Refusal> {
        let replica = self.find(&request.cluster_id, request.shard)?;
        let fragment = evaluate::fragment_from_wire(request);
        evaluate::here(&self.evaluator, replica, fragment).await
    }

    async fn metadata_of(
        &self,
        request: wire::MetadataRequest,
    ) -> Result<wire::MetadataReply, Refusal> {
        use wire::metadata_request::Kind;
        let replica = self.find(&request.cluster_id, request.shard)?;
        let (kind, label) = (request.kind(), request.label.clone());
        let selection = convert::metadata_from_wire(request).map_err(malformed)?;
        replica.settle(selection.consistency).await?;
        let mut reply = wire::MetadataReply::default();
        let engine = &replica.engine;
        match kind {
            Kind::Series => {
                let sets = engine.series(&selection).await.map_err(engine_refusal)?;
                reply.series = convert::label_sets_to_wire(&sets);
            }
            Kind::LabelNames => {
                reply.texts = engine
                    .label_names(&selection)
                    .await
                    .map_err(engine_refusal)?;
            }
            Kind::LabelValues => {
                let values = engine.label_values(&label, &selection).await;
                reply.texts = values.map_err(engine_refusal)?;
            }
            Kind::Exemplars => {
                let found = engine.exemplars(&selection).await.map_err(engine_refusal)?;
                reply.exemplars = found.iter().map(convert::exemplars_to_wire).collect();
            }
        }
        Ok(reply)
    }
}

/// What is asked of a shard by an administrator, and of the node for a snapshot.
impl Service {
    async fn delete_in(&self, request: wire::DeleteRequest) -> Result<(), Refusal> {
        let replica = self.find(&request.cluster_id, request.shard)?;
        let command = convert::delete_from_wire(request).map_err(malformed)?;
        replica.delete(command).await
    }

    async fn export_here(&self, request: wire::ExportRequest) -> Result<(), Refusal> {
        let cluster = self.peers.cluster();
        if convert::cluster_id_from_wire(&request.cluster_id) != Some(cluster) {
            return Err(Refusal::Internal(
                "this node belongs to another cluster".to_owned(),
            ));
        }
        let shards = request.shards.into_iter().map(ShardId);
        let indexes: Vec<_> = shards.zip(request.indexes).collect();
        let wanted = Wanted {
            name: &request.name,
            with_head: request.with_head,
            cluster: cluster.to_string(),
            node: self.node.0,
            replicas: export::chosen(&self.replicas, &indexes),
        };
        let exported = export::export(&self.world, wanted).await;
        exported.map_err(|e| Refusal::Internal(e.to_string()))
    }

    async fn fetch_from(
        &self,
        request: wire::FetchRequest,
    ) -> Result<ReplyStream<wire::FetchReply>, Refusal> {
        let replica = self.find(&request.cluster_id, request.shard)?;
        let found = replica.file_of(&request.name).await;
        let found = found.map_err(|e| Refusal::Internal(e.to_string()))?;
        let Some((path, len)) = found else {
            replica.write_soon(&request.name).await;
            let none = "this replica has no such file".to_owned();
            return Err(Refusal::Internal(none));
        };
        Ok(scrub::serve(self.world.disk.clone(), path, len))
    }

    async fn cardinality_in(
        &self,
        request: wire::ShardRequest,
    ) -> Result<Vec<wire::CardinalityReply>, Refusal> {
        let replica = self.find(&request.cluster_id, request.shard)?;
        replica.settle(Consistency::Strong).await?;
        Ok(convert::cardinality_to_wire(&replica.engine.cardinality()))
    }
}

/// What a frame says of its label sets.
fn take_named(frame: &mut wire::WriteFrame) -> Named {
    let new = frame
        .batch
        .as_mut()
        .map(|batch| std::mem::take(&mut batch.labels));
    Named {
        anew: frame.anew,
        steps: std::mem::take(&mut frame.steps),
        new: new.unwrap_or_default(),
    }
}

fn malformed(error: Malformed) -> Refusal {
    Refusal::Internal(error.to_string())
}

/// Cuts an answer into messages of bounded size.
pub(crate) fn messages(series: Vec<Series>) -> Vec<wire::SelectReply> {
    let mut messages = Vec::new();
    let mut current = wire::SelectReply::default();
    let mut samples = 0;
    let mut add = |one: &Series, weight: usize| {
        samples += weight;
        current.series.push(convert::series_to_wire(one));
        if samples >= SAMPLES_PER_MESSAGE {
            messages.push(std::mem::take(&mut current));
            samples = 0;
        }
    };
    for one in series {
        let plain = one.samples.histograms.is_empty();
        match plain && one.samples.len() <= SAMPLES_PER_MESSAGE {
            true => add(&one, one.samples.len()),
            false => convert::pieces(&one, SAMPLES_PER_MESSAGE)
                .iter()
                .for_each(|piece| add(piece, SAMPLES_PER_MESSAGE)),
        }
    }
    messages.push(current);
    messages
}

type ReplyStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Shards for Service {
    type WriteStream = ReplyStream<wire::WriteReply>;
    type SelectStream = ReplyStream<wire::SelectReply>;
    type ReadStream = ReplyStream<wire::ReadReply>;
    type EvaluateStream = ReplyStream<wire::EvaluateReply>;
    type ChangesStream = ReplyStream<wire::ChangesReply>;
    type NewestStream = ReplyStream<wire::NewestReply>;
    type CardinalityStream = ReplyStream<wire::CardinalityReply>;
    type FetchStream = ReplyStream<wire::FetchReply>;

    async fn fetch(
        &self,
        request: Request<wire::FetchRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        let stream = match self.fetch_from(request.into_inner()).await {
            Ok(stream) => stream,
            Err(refusal) => {
                let refusal = Some(convert::refusal_to_wire(refusal));
                let reply = wire::FetchReply {
                    refusal,
                    ..Default::default()
                };
                futures::stream::iter([Ok(reply)]).boxed()
            }
        };
        Ok(Response::new(stream))
    }

    async fn delete(
        &self,
        request: Request<wire::DeleteRequest>,
    ) -> Result<Response<wire::DeleteReply>, Status> {
        let refusal = self.delete_in(request.into_inner()).await.err();
        let refusal = refusal.map(convert::refusal_to_wire);
        Ok(Response::new(wire::DeleteReply { refusal }))
    }

    async fn clean(
        &self,
        request: Request<wire::ShardRequest>,
    ) -> Result<Response<wire::CleanReply>, Status> {
        let request = request.into_inner();
        let cleaned = async {
            let replica = self.find(&request.cluster_id, request.shard)?;
            replica.clean_one().await
        };
        Ok(Response::new(match cleaned.await {
            Ok(cleaned) => wire::CleanReply {
                cleaned,
                refusal: None,
            },
            Err(refusal) => wire::CleanReply {
                refusal: Some(convert::refusal_to_wire(refusal)),
                ..Default::default()
            },
        }))
    }

    async fn index(
        &self,
        request: Request<wire::ShardRequest>,
    ) -> Result<Response<wire::IndexReply>, Status> {
        let request = request.into_inner();
        let index = async {
            let replica = self.find(&request.cluster_id, request.shard)?;
            replica.settled_index().await
        };
        Ok(Response::new(match index.await {
            Ok(index) => wire::IndexReply {
                index,
                refusal: None,
            },
            Err(refusal) => wire::IndexReply {
                refusal: Some(convert::refusal_to_wire(refusal)),
                ..Default::default()
            },
        }))
    }

    async fn export(
        &self,
        request: Request<wire::ExportRequest>,
    ) -> Result<Response<wire::ExportReply>, Status> {
        let refusal = self.export_here(request.into_inner()).await.err();
        let refusal = refusal.map(convert::refusal_to_wire);
        Ok(Response::new(wire::ExportReply { refusal }))
    }

    async fn cardinality(
        &self,
        request: Request<wire::ShardRequest>,
    ) -> Result<Response<Self::CardinalityStream>, Status> {
        let replies = match self.cardinality_in(request.into_inner()).await {
            Ok(pieces) => pieces,
            Err(refusal) => vec![wire::CardinalityReply {
                refusal: Some(convert::refusal_to_wire(refusal)),
                ..Default::default()
            }],
        };
        Ok(Response::new(Box::pin(futures::stream::iter(
            replies.into_iter().map(Ok),
        ))))
    }

    async fn write(
        &self,
        request: Request<Streaming<wire::WriteFrame>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        let frames = request.into_inner();
        let service = self.clone();
        let (replies, receiver) = mpsc::channel(WRITES_MAX);
        let mut told = Listener::default();
        let answer = frames
            .map(move |frame| {
                let mut frame = frame?;
                let series = told.resolve(&take_named(&mut frame));
                let malformed = |e: Malformed| Status::invalid_argument(e.to_string());
                Ok::<_, Status>((frame, series.map_err(malformed)?))
            })
            .take_while(|read| std::future::ready(read.is_ok()))
            .filter_map(|read| std::future::ready(read.ok()))
            .for_each_concurrent(WRITES_MAX, move |(frame, series)| {
                let (service, replies) = (service.clone(), replies.clone());
                async move {
                    let reply = service.write_one(frame, series).await;
                    // A peer that went away asks again elsewhere.
                    replies.send(Ok(reply)).await.ok();
                }
            });
        let task = self.world.spawn.spawn("writes from a peer", answer.boxed());
        let stream = ReceiverStream::new(receiver).map(move |reply| {
            let _keep = &task;
            reply
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn push(
        &self,
        request: Request<wire::PushRequest>,
    ) -> Result<Response<wire::PushReply>, Status> {
        let reply = self.push_one(request.into_inner()).await;
        Ok(Response::new(reply.unwrap_or_else(|refusal| {
            wire::PushReply {
                refusal: Some(convert::refusal_to_wire(refusal)),
                ..Default::default()
            }
        })))
    }

    async fn check(
        &self,
        request: Request<wire::PushRequest>,
    ) -> Result<Response<wire::CheckReply>, Status> {
        let reply = self.check_one(request.into_inner()).await;
        Ok(Response::new(reply.unwrap_or_else(|refusal| {
            wire::CheckReply {
                refusal: Some(convert::refusal_to_wire(refusal)),
                ..wire::CheckReply::default()
            }
        })))
    }

    async fn wipe(
        &self,
        request: Request<wire::ShardRequest>,
    ) -> Result<Response<wire::WipeReply>, Status> {
        let reply = self.wipe_one(request.into_inner()).await;
        Ok(Response::new(reply.unwrap_or_else(|refusal| {
            wire::WipeReply {
                refusal: Some(convert::refusal_to_wire(refusal)),
                ..wire::WipeReply::default()
            }
        })))
    }

    async fn groups(
        &self,
        request: Request<wire::GroupsRequest>,
    ) -> Result<Response<wire::GroupsReply>, Status> {
        let reply = self.groups_of(request.into_inner()).await;
        Ok(Response::new(reply.unwrap_or_else(|refusal| {
            wire::GroupsReply {
                refusal: Some(convert::refusal_to_wire(refusal)),
                ..Default::default()
            }
        })))
    }

    async fn describe(
        &self,
        request: Request<wire::DescribeRequest>,
    ) -> Result<Response<wire::DescribeReply>, Status> {
        let done = self.describe_one(request.into_inner()).await;
        let refusal = done.err().map(convert::refusal_to_wire);
        Ok(Response::new(wire::DescribeReply { refusal }))
    }

    async fn described(
        &self,
        request: Request<wire::DescribedRequest>,
    ) -> Result<Response<wire::DescribedReply>, Status> {
        let reply = self.described_of(request.into_inner()).await;
        Ok(Response::new(reply.unwrap_or_else(|refusal| {
            wire::DescribedReply {
                refusal: Some(convert::refusal_to_wire(refusal)),
                ..wire::DescribedReply::default()
            }
        })))
    }

    async fn select(
        &self,
        request: Request<wire::SelectRequest>,
    ) -> Result<Response<Self::SelectStream>, Status> {
        let replies = match self.select_all(request.into_inner()).await {
            Ok(series) => messages(series),
            Err(refusal) => vec![wire::SelectReply {
                refusal: Some(convert::refusal_to_wire(refusal)),
                ..Default::default()
            }],
        };
        Ok(Response::new(Box::pin(futures::stream::iter(
            replies.into_iter().map(Ok),
        ))))
    }

    async fn newest(
        &self,
        request: Request<wire::NewestRequest>,
    ) -> Result<Response<Self::NewestStream>, Status> {
        let request = request.into_inner();
        let found = self.find(&request.cluster_id, request.shard);
        Ok(Response::new(newest::replies(found, request).await))
    }

    async fn changes(
        &self,
        request: Request<wire::ChangesRequest>,
    ) -> Result<Response<Self::ChangesStream>, Status> {
        let request = request.into_inner();
        let found = self.find(&request.cluster_id, request.shard);
        Ok(Response::new(changes::replies(found, request).await))
    }

    async fn read(
        &self,
        request: Request<wire::ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let request = request.into_inner();
        if convert::cluster_id_from_wire(&request.cluster_id) != Some(self.peers.cluster()) {
            return Err(Status::failed_precondition(
                "this node belongs to another cluster",
            ));
        }
        let server = reads::Server {
            seat: self.evaluator.clone(),
            world: self.world.clone(),
            replicas: self.replicas.clone(),
        };
        let replies = reads::Answering::new(server, request).messages().await;
        Ok(Response::new(replies.map(Ok).boxed()))
    }

    async fn evaluate(
        &self,
        request: Request<wire::EvaluateRequest>,
    ) -> Result<Response<Self::EvaluateStream>, Status> {
        let replies = evaluate::replies(self.evaluate_part(request.into_inner()).await);
        Ok(Response::new(Box::pin(futures::stream::iter(
            replies.into_iter().map(Ok),
        ))))
    }

    async fn metadata(
        &self,
        request: Request<wire::MetadataRequest>,
    ) -> Result<Response<wire::MetadataReply>, Status> {
        let reply = self.metadata_of(request.into_inner()).await;
        Ok(Response::new(reply.unwrap_or_else(|refusal| {
            wire::MetadataReply {
                refusal: Some(convert::refusal_to_wire(refusal)),
                ..Default::default()
            }
        })))
    }

    async fn digest(
        &self,
        request: Request<wire::DigestRequest>,
    ) -> Result<Response<wire::DigestReply>, Status> {
        let request = request.into_inner();
        let replica = self.find(&request.cluster_id, request.shard);
        let reply = match replica {
            Ok(replica) => {
                if let Some(verdict) = request.verdict {
                    comparing::obey(&replica, verdict, &request.agreed);
                }
                comparing::answer(&replica)
            }
            Err(refusal) => wire::DigestReply {
                refusal: Some(convert::refusal_to_wire(refusal)),
                ..Default::default()
            },
        };
        Ok(Response::new(reply))
    }

    async fn discharge(
        &self,
        request: Request<wire::DischargeRequest>,
    ) -> Result<Response<wire::DischargeReply>, Status> {
        let request = request.into_inner();
        let discharged = async {
            let replica = self.find(&request.cluster_id, request.shard)?;
            replica.discharge(request.node).await
        };
        Ok(Response::new(match discharged.await {
            Ok(None) => wire::DischargeReply::default(),
            Ok(Some((vote, index))) => wire::DischargeReply {
                vote: Some(vote_to_wire(&vote)),
                index,
                refusal: None,
            },
            Err(refusal) => wire::DischargeReply {
                refusal: Some(convert::refusal_to_wire(refusal)),
                ..Default::default()
            },
        }))
    }
}
