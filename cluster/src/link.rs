//! One long-lived two-way stream to a peer, shared by everybody who has something to ask.
//!
//! Questions carry a sequence number, answers repeat it, in any order. When the stream breaks
//! every open question learns so at once, and the next one opens a new stream. What a question
//! means is the business of the two links built on this: appends and writes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use model::port::{Task, World};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Questions on their way into one stream.
const OUTGOING_MAX: usize = 64;

/// How one kind of stream is opened and its answers are told apart.
#[async_trait]
pub trait Protocol: Send + Sync + 'static {
    /// What is to be asked.
    type Asked: Send;
    /// The same as it travels.
    type Question: Send + 'static;
    /// What one stream has told its other end so far.
    type Told: Default + Send;
    type Answer: Send + 'static;

    async fn open(
        &self,
        questions: ReceiverStream<Self::Question>,
    ) -> Result<BoxStream<'static, Result<Self::Answer, Status>>, Status>;

    /// What is said behind all that is `told`; it travels certainly, or the stream ends.
    fn question(told: &mut Self::Told, seq: u64, asked: Self::Asked) -> Self::Question;
    fn seq(answer: &Self::Answer) -> u64;
}

type Pending<P> = Arc<Mutex<Option<BTreeMap<u64, oneshot::Sender<<P as Protocol>::Answer>>>>>;

struct Stream<P: Protocol> {
    outgoing: mpsc::Sender<P::Question>,
    /// `None` once the stream has ended.
    pending: Pending<P>,
    next_seq: u64,
    told: P::Told,
    _reader: Task,
}

/// A stream that reopens itself.
pub struct Link<P: Protocol> {
    world: World,
    protocol: Arc<P>,
    stream: tokio::sync::Mutex<Option<Stream<P>>>,
}

/// The stream broke before the answer came: the question may or may not have been heard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("connection to the peer failed: {0}")]
pub struct Broken(pub String);

/// An answer that is on its way.
pub struct Awaiting<A>(oneshot::Receiver<A>);

impl<A> Awaiting<A> {
    pub async fn answer(self) -> Result<A, Broken> {
        self.0
            .await
            .map_err(|_| Broken("the stream ended before the answer".to_owned()))
    }
}

impl<P: Protocol> Link<P> {
    pub fn new(world: World, protocol: P) -> Self {
        Self {
            world,
            protocol: Arc::new(protocol),
            stream: tokio::sync::Mutex::default(),
        }
    }

    /// Sends a question after those sent before it. Returns once it is on its way.
    pub async fn ask(&self, asked: P::Asked) -> Result<Awaiting<P::Answer>, Broken> {
        let mut slot = self.stream.lock().await;
        if slot.as_ref().is_none_or(Stream::ended) {
            *slot = Some(self.open());
        }
        let stream = slot.as_mut().expect("just opened");
        // Whoever gives up waiting for room has told nothing.
        let gone = |_| Broken("the stream ended".to_owned());
        let room = stream.outgoing.reserve().await.map_err(gone)?;
        let seq = stream.next_seq;
        stream.next_seq += 1;
        let (sender, receiver) = oneshot::channel();
        match stream.pending.lock().expect("not poisoned").as_mut() {
            Some(pending) => drop(pending.insert(seq, sender)),
            None => return Err(Broken("the stream ended".to_owned())),
        }
        room.send(P::question(&mut stream.told, seq, asked));
        Ok(Awaiting(receiver))
    }

    fn open(&self) -> Stream<P> {
        let (outgoing, questions) = mpsc::channel(OUTGOING_MAX);
        let pending: Pending<P> = Arc::new(Mutex::new(Some(BTreeMap::new())));
        let reader = read(
            self.protocol.clone(),
            ReceiverStream::new(questions),
            pending.clone(),
        );
        let task = self.world.spawn.spawn("peer link", reader.boxed());
        Stream {
            outgoing,
            pending,
            next_seq: 1,
            told: P::Told::default(),
            _reader: task,
        }
    }
}

impl<P: Protocol> Stream<P> {
    fn ended(&self) -> bool {
        self.outgoing.is_closed() || self.pending.lock().expect("not poisoned").is_none()
    }
}

/// Hands answers out until the stream ends, then lets every open question know.
async fn read<P: Protocol>(
    protocol: Arc<P>,
    questions: ReceiverStream<P::Question>,
    pending: Pending<P>,
) {
    match protocol.open(questions).await {
        Ok(mut answers) => {
            while let Some(Ok(answer)) = answers.next().await {
                let mut pending = pending.lock().expect("not poisoned");
                let waiting = pending
                    .as_mut()
                    .and_then(|open| open.remove(&P::seq(&answer)));
                if let Some(waiting) = waiting {
                    // Nobody listening means the asker gave up: fine.
                    waiting.send(answer).ok();
                }
            }
        }
        Err(status) => tracing::debug!(%status, "peer stream not opened"),
    }
    *pending.lock().expect("not poisoned") = None;
}
