//! The stream that carries batches for every shard a peer leads.

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use model::port::World;
use proto::node::shards_client::ShardsClient;
use proto::node::{WriteFrame, WriteReply};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

use crate::link::{Link, Protocol};

pub type WriteLink = Link<Writes>;

/// Opens `Shards.Write`.
pub struct Writes(ShardsClient<Channel>);

impl WriteLink {
    pub fn to(world: World, client: ShardsClient<Channel>) -> Self {
        Self::new(world, Writes(client))
    }
}

#[async_trait]
impl Protocol for Writes {
    type Question = WriteFrame;
    type Answer = WriteReply;

    async fn open(
        &self,
        questions: ReceiverStream<WriteFrame>,
    ) -> Result<BoxStream<'static, Result<WriteReply, Status>>, Status> {
        Ok(self.0.clone().write(questions).await?.into_inner().boxed())
    }

    fn number(question: &mut WriteFrame, seq: u64) {
        question.seq = seq;
    }

    fn seq(answer: &WriteReply) -> u64 {
        answer.seq
    }
}
