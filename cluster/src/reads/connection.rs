//! The answering side of a connection that carries reads.
//!
//! A question is worked on right here, in the task that took it from the wire, and its answer written,
//! as long as that needs no waiting; one that takes longer gets a task of its own, which ends when the
//! asker gives up or the connection ends.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use model::ShardId;
use model::limits::{READS_MAX, RPC_BYTES_MAX};
use model::port::{Connection, Task};
use prost::Message;
use proto::node::{ReadReply, ReadRequest};
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use super::answer::{Answering, Server};
use super::frame::{Frame, Frames, Kind, MAGIC, put_bare, put_message};
use super::wire;
use crate::convert;
use crate::peer::Peers;
use crate::refusal::Refusal;

/// Messages that wait to be written.
const OUTGOING_MAX: usize = 16;

/// Who answers on a connection.
pub struct Answerer {
    pub server: Server,
    pub peers: Arc<Peers>,
}

/// Answers what comes on `connection`, behind the greeting, until it ends.
pub async fn answer_all(connection: Box<dyn Connection>, answerer: Arc<Answerer>) {
    let (reader, writer) = tokio::io::split(connection);
    let (outgoing, waiting) = mpsc::channel(OUTGOING_MAX);
    let served = Served {
        answerer,
        frames: Frames::new(reader),
        writer,
        outgoing,
        waiting,
        open: BTreeMap::new(),
    };
    if let Err(error) = served.run().await {
        tracing::debug!(%error, "a connection of reads ended");
    }
}

struct Served {
    answerer: Arc<Answerer>,
    frames: Frames<ReadHalf<Box<dyn Connection>>>,
    writer: WriteHalf<Box<dyn Connection>>,
    outgoing: mpsc::Sender<Bytes>,
    waiting: mpsc::Receiver<Bytes>,
    /// Questions that take longer, by number.
    open: BTreeMap<u64, Task>,
}

impl Served {
    async fn run(mut self) -> io::Result<()> {
        self.writer.write_all(&MAGIC).await?;
        loop {
            let frame = tokio::select! {
                biased;
                Some(bytes) = self.waiting.recv() => {
                    self.writer.write_all(&bytes).await?;
                    continue;
                }
                frame = self.frames.next() => frame?,
            };
            match frame {
                None => return Ok(()),
                Some(frame) => self.take(frame).await?,
            }
        }
    }

    async fn take(&mut self, frame: Frame) -> io::Result<()> {
        match frame.kind {
            Kind::Ask => self.ask(frame.number, frame.body).await?,
            Kind::Cancel => drop(self.open.remove(&frame.number)),
            Kind::Ping => {
                let mut pong = BytesMut::new();
                put_bare(Kind::Pong, frame.number, &mut pong);
                self.writer.write_all(&pong).await?;
            }
            Kind::Reply | Kind::Pong => {}
        }
        Ok(())
    }

    async fn ask(&mut self, number: u64, body: Bytes) -> io::Result<()> {
        let request = ReadRequest::decode(body)?;
        self.open.retain(|_, task| !task.is_finished());
        let peers = &self.answerer.peers;
        if convert::cluster_id_from_wire(&request.cluster_id) != Some(peers.cluster()) {
            let other = Refusal::Unavailable("this node belongs to another cluster".to_owned());
            return self.refuse(number, &request, other).await;
        }
        if self.open.len() >= READS_MAX {
            let full = Refusal::Unavailable("too many questions on one connection".to_owned());
            return self.refuse(number, &request, full).await;
        }
        let server = self.answerer.server.clone();
        let spawn = server.world.spawn.clone();
        let shards = request.shards.clone();
        let encoded = move |reply| encoded_or_refused(number, &shards, &reply);
        let mut answering = Answering::new(server, request);
        // What is there at once is written here: a task that wakes itself, as one does that sends
        // into a channel it reads from, wakes another thread to help it.
        let messages = match answering.at_once().await {
            Some(replies) if replies.len() <= OUTGOING_MAX => {
                for reply in replies {
                    self.writer.write_all(&encoded(reply)).await?;
                }
                return Ok(());
            }
            Some(replies) => futures::stream::iter(replies).boxed(),
            None => answering.messages().into_stream().flatten().boxed(),
        };
        let sending = send(messages.map(encoded).boxed(), self.outgoing.clone());
        self.open
            .insert(number, spawn.spawn("read", sending.boxed()));
        Ok(())
    }

    async fn refuse(
        &mut self,
        number: u64,
        request: &ReadRequest,
        refusal: Refusal,
    ) -> io::Result<()> {
        let mut bytes = BytesMut::new();
        let refused = wire::refused(of_all(&request.shards, &refusal));
        put_message(Kind::Reply, number, &refused, &mut bytes)?;
        self.writer.write_all(&bytes).await
    }
}

fn of_all(shards: &[u32], refusal: &Refusal) -> Vec<(ShardId, Refusal)> {
    let shards = shards.iter();
    shards.map(|&s| (ShardId(s), refusal.clone())).collect()
}

fn encoded_or_refused(number: u64, shards: &[u32], reply: &ReadReply) -> Bytes {
    encoded(number, reply).unwrap_or_else(|_| {
        let large = Refusal::TooLarge(format!("one series of more than {RPC_BYTES_MAX} bytes"));
        let refused = wire::refused(of_all(shards, &large));
        encoded(number, &refused).expect("refusals are short")
    })
}

async fn send(mut messages: BoxStream<'static, Bytes>, outgoing: mpsc::Sender<Bytes>) {
    while let Some(bytes) = messages.next().await {
        // Fails when the connection is gone.
        if outgoing.send(bytes).await.is_err() {
            return;
        }
    }
}

fn encoded(number: u64, reply: &ReadReply) -> io::Result<Bytes> {
    let mut bytes = BytesMut::new();
    put_message(Kind::Reply, number, reply, &mut bytes)?;
    Ok(bytes.freeze())
}

#[cfg(test)]
mod tests {
    use std::sync::{OnceLock, RwLock};

    use model::port::World;
    use model::{ClusterId, ShardId};
    use proto::node as messages;

    use super::super::link::{LinkError, ReadLink};
    use super::*;

    const CLUSTER: ClusterId = ClusterId(7);

    /// A node without replicas, listening; where.
    async fn listening(world: &World) -> (String, Task) {
        let mut listener = world.net.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let peers = Arc::new(Peers::new(world.clone()));
        peers.belong_to(CLUSTER);
        let server = Server {
            seat: Arc::new(OnceLock::new()),
            world: world.clone(),
            replicas: Arc::new(RwLock::default()),
        };
        let answerer = Arc::new(Answerer { server, peers });
        let serving = async move {
            loop {
                let (mut connection, _) = listener.accept().await.unwrap();
                let mut first = [0; MAGIC.len()];
                tokio::io::AsyncReadExt::read_exact(&mut connection, &mut first)
                    .await
                    .unwrap();
                assert_eq!(first, MAGIC);
                answer_all(connection, answerer.clone()).await;
            }
        };
        (address, world.spawn.spawn("node", serving.boxed()))
    }

    fn request(cluster: ClusterId, shards: Vec<u32>) -> ReadRequest {
        let metadata = messages::MetadataRequest::default();
        ReadRequest {
            cluster_id: convert::cluster_id_to_wire(cluster),
            shards,
            question: Some(messages::read_request::Question::Metadata(metadata)),
            ..Default::default()
        }
    }

    async fn refusals(link: &ReadLink, request: &ReadRequest) -> Vec<(ShardId, Refusal)> {
        let mut replies = link.ask(request).await.unwrap();
        let reply = replies.next().await.unwrap();
        assert!(reply.end);
        let refused = reply.refused.into_iter();
        let refusal = |r: messages::RefusedShard| {
            let refusal = convert::refusal_from_wire(r.refusal.unwrap());
            (ShardId(r.shard), refusal)
        };
        refused.map(refusal).collect()
    }

    #[tokio::test]
    async fn questions_are_answered_in_one_message() {
        let root = tempfile::tempdir().unwrap();
        let world = host::world(root.path()).unwrap();
        let (address, _node) = listening(&world).await;
        let link = ReadLink::new(world.clone(), &address);
        for _ in 0..3 {
            let found = refusals(&link, &request(CLUSTER, vec![3])).await;
            assert_eq!(found, [(ShardId(3), Refusal::NotLeader(None))]);
        }
        let votes = link.ask(&request(CLUSTER, Vec::new())).await;
        assert!(votes.unwrap().next().await.unwrap().end);
        let stranger = refusals(&link, &request(ClusterId(8), vec![3])).await;
        assert!(matches!(
            &stranger[..],
            [(ShardId(3), Refusal::Unavailable(_))]
        ));
    }

    #[tokio::test]
    async fn a_node_that_is_gone_was_not_asked() {
        let root = tempfile::tempdir().unwrap();
        let world = host::world(root.path()).unwrap();
        let listener = world.net.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let link = ReadLink::new(world, &address);
        let asked = link.ask(&request(CLUSTER, vec![1])).await;
        assert!(matches!(asked, Err(LinkError::NotConnected(_))));
    }
}
