//! The stream that carries AppendEntries of every group to one peer.

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use model::port::World;
use proto::node::raft_client::RaftClient;
use proto::node::{AppendFrame, AppendReply};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

use crate::link::{Link, Protocol};

pub type AppendLink = Link<Appends>;

/// Opens `Raft.Append`.
pub struct Appends(RaftClient<Channel>);

impl AppendLink {
    pub fn to(world: World, client: RaftClient<Channel>) -> Self {
        Self::new(world, Appends(client))
    }
}

#[async_trait]
impl Protocol for Appends {
    type Asked = AppendFrame;
    type Question = AppendFrame;
    type Told = ();
    type Answer = AppendReply;

    async fn open(
        &self,
        questions: ReceiverStream<AppendFrame>,
    ) -> Result<BoxStream<'static, Result<AppendReply, Status>>, Status> {
        Ok(self.0.clone().append(questions).await?.into_inner().boxed())
    }

    fn question((): &mut (), seq: u64, asked: AppendFrame) -> AppendFrame {
        AppendFrame { seq, ..asked }
    }

    fn seq(answer: &AppendReply) -> u64 {
        answer.seq
    }
}
