//! The stream that carries batches for every shard a peer leads.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use model::port::World;
use model::{Batch, ShardId};
use proto::node::shards_client::ShardsClient;
use proto::node::{WriteFrame, WriteReply};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

use crate::convert;
use crate::dictionary::{Named, Teller};
use crate::link::{Link, Protocol};

pub type WriteLink = Link<Writes>;

/// What one shard of a cluster is to store.
pub struct Write {
    pub cluster_id: Bytes,
    pub shard: ShardId,
    pub batch: Arc<Batch>,
}

/// Opens `Shards.Write`.
pub struct Writes(ShardsClient<Channel>);

impl WriteLink {
    pub fn to(world: World, client: ShardsClient<Channel>) -> Self {
        Self::new(world, Writes(client))
    }
}

#[async_trait]
impl Protocol for Writes {
    type Asked = Write;
    type Question = WriteFrame;
    type Told = Teller;
    type Answer = WriteReply;

    async fn open(
        &self,
        questions: ReceiverStream<WriteFrame>,
    ) -> Result<BoxStream<'static, Result<WriteReply, Status>>, Status> {
        Ok(self.0.clone().write(questions).await?.into_inner().boxed())
    }

    fn question(told: &mut Teller, seq: u64, asked: Write) -> WriteFrame {
        let Named { anew, steps, new } = told.name(&asked.batch.series);
        WriteFrame {
            cluster_id: asked.cluster_id,
            seq,
            shard: asked.shard.0,
            batch: Some(convert::batch_to_wire(&asked.batch, new)),
            steps,
            anew,
        }
    }

    fn seq(answer: &WriteReply) -> u64 {
        answer.seq
    }
}
