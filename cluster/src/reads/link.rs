//! The asking side of the connection that carries reads to one peer.
//!
//! One connection for all questions, opened when the first one comes, in frames of its own
//! ([`super::frame`]): a call over HTTP/2 takes half a dozen tasks on the two nodes and their turns,
//! several times what a small question takes itself (docs/adr/0024-reads-in-frames.md).
//!
//! Promise: whoever stops waiting ends the work over there; when the connection breaks, or a peer
//! says nothing for [`PING_AFTER`] and then not even that it lives, every open question learns so.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use model::port::{Connection, Task, World};
use prost::Message;
use proto::node::{ReadReply, ReadRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use super::frame::{Frames, Kind, MAGIC, put_bare, put_message};

const CONNECT_MAX: Duration = Duration::from_secs(2);
/// A peer that owes an answer and is silent for so long is asked whether it lives.
const PING_AFTER: Duration = Duration::from_secs(2);
/// How long a peer that does not speak in frames is called instead, before it is tried again.
const OTHERWISE_FOR: Duration = Duration::from_secs(60);
/// Messages of one answer that wait to be read.
const REPLIES_WAITING: usize = 4;

/// Why a question did not get through, or its answer not back.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Nothing was asked.
    #[error("connecting")]
    NotConnected(#[source] io::Error),
    /// The peer does not know this protocol: it has to be called.
    #[error("the peer does not speak in frames")]
    Otherwise,
    #[error("connection to the peer failed: {0}")]
    Broken(String),
}

/// The way to one peer.
pub struct ReadLink {
    world: World,
    address: String,
    open: tokio::sync::Mutex<Option<Arc<Stream>>>,
    /// On the monotonic clock: until when the peer is called.
    otherwise_until: Mutex<Duration>,
}

struct Stream {
    line: Arc<Line>,
    _keeper: Task,
}

/// What askers and keeper of a connection share.
struct Line {
    writer: tokio::sync::Mutex<Writer>,
    /// `None` once the connection has ended.
    asked: Mutex<Option<Asked>>,
    /// Questions whose askers went away before the answer was whole.
    given_up: Mutex<Vec<u64>>,
    wake: Notify,
}

#[derive(Default)]
struct Asked {
    next: u64,
    open: BTreeMap<u64, mpsc::Sender<Bytes>>,
}

struct Writer {
    half: WriteHalf<Box<dyn Connection>>,
    /// Somebody stopped in the middle of a frame.
    is_torn: bool,
}

/// An answer on its way. Dropping it before its end gives the question up.
pub struct Replies {
    /// The connection lasts while there is an answer to come.
    stream: Arc<Stream>,
    number: u64,
    messages: mpsc::Receiver<Bytes>,
    is_whole: bool,
}

impl ReadLink {
    pub fn new(world: World, address: &str) -> Self {
        Self {
            world,
            address: address.to_owned(),
            open: tokio::sync::Mutex::default(),
            otherwise_until: Mutex::default(),
        }
    }

    /// Asks. Returns once the question is on its way.
    pub async fn ask(&self, request: &ReadRequest) -> Result<Replies, LinkError> {
        let stream = self.stream().await?;
        let (sender, messages) = mpsc::channel(REPLIES_WAITING);
        let number = stream.line.register(sender)?;
        // Made first: whoever stops waiting here gives the question up.
        let replies = Replies {
            stream,
            number,
            messages,
            is_whole: false,
        };
        let mut bytes = BytesMut::new();
        put_message(Kind::Ask, number, request, &mut bytes).map_err(broken)?;
        replies.stream.line.write(&bytes).await?;
        Ok(replies)
    }

    /// The open connection, or a new one.
    async fn stream(&self) -> Result<Arc<Stream>, LinkError> {
        let mut open = self.open.lock().await;
        if let Some(stream) = open.as_ref().filter(|stream| !stream.line.has_ended()) {
            return Ok(stream.clone());
        }
        let until = *self
            .otherwise_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let now = self.world.clock.monotonic();
        if now < until {
            return Err(LinkError::Otherwise);
        }
        match timeout(CONNECT_MAX, self.connect()).await {
            Err(_elapsed) => Err(LinkError::NotConnected(io::ErrorKind::TimedOut.into())),
            Ok(Err(error)) => {
                if matches!(error, LinkError::Otherwise) {
                    let until = now.saturating_add(OTHERWISE_FOR);
                    *self
                        .otherwise_until
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner) = until;
                }
                Err(error)
            }
            Ok(Ok(connection)) => {
                let stream = Arc::new(self.keep(connection));
                *open = Some(stream.clone());
                Ok(stream)
            }
        }
    }

    async fn connect(&self) -> Result<Box<dyn Connection>, LinkError> {
        let connected = self.world.net.connect(&self.address).await;
        let mut connection = connected.map_err(LinkError::NotConnected)?;
        let mut theirs = [0; MAGIC.len()];
        let greeted = async {
            connection.write_all(&MAGIC).await?;
            connection.read_exact(&mut theirs).await
        };
        match greeted.await {
            Ok(_) if theirs == MAGIC => Ok(connection),
            // Who does not know the greeting hangs up, or says something else.
            _ => Err(LinkError::Otherwise),
        }
    }

    fn keep(&self, connection: Box<dyn Connection>) -> Stream {
        let (reader, half) = tokio::io::split(connection);
        let line = Arc::new(Line {
            writer: tokio::sync::Mutex::new(Writer {
                half,
                is_torn: false,
            }),
            asked: Mutex::new(Some(Asked::default())),
            given_up: Mutex::default(),
            wake: Notify::new(),
        });
        let keeper = keep(Frames::new(reader), line.clone());
        let keeper = self.world.spawn.spawn("reads of a peer", keeper.boxed());
        Stream {
            line,
            _keeper: keeper,
        }
    }
}

fn broken(error: io::Error) -> LinkError {
    LinkError::Broken(error.to_string())
}

fn ended() -> LinkError {
    LinkError::Broken("the connection ended".to_owned())
}

impl Line {
    fn asked(&self) -> std::sync::MutexGuard<'_, Option<Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_ended(&self) -> bool {
        self.asked().is_none()
    }

    fn given_up(&self) -> std::sync::MutexGuard<'_, Vec<u64>> {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anybody waits for an answer.
    fn is_awaited(&self) -> bool {
        self.asked().as_ref().is_some_and(|a| !a.open.is_empty())
    }

    /// Every open question learns that nothing more will come.
    fn end(&self) {
        *self.asked() = None;
    }

    fn register(&self, sender: mpsc::Sender<Bytes>) -> Result<u64, LinkError> {
        let mut asked = self.asked();
        let asked = asked.as_mut().ok_or_else(ended)?;
        asked.next += 1;
        asked.open.insert(asked.next, sender);
        Ok(asked.next)
    }

    /// Writes whole frames. Who gives up in the middle of one ends the connection.
    async fn write(&self, bytes: &[u8]) -> Result<(), LinkError> {
        let mut writer = self.writer.lock().await;
        if std::mem::replace(&mut writer.is_torn, true) {
            self.end();
            return Err(ended());
        }
        let written = writer.half.write_all(bytes).await;
        writer.is_torn = written.is_err();
        if written.is_err() {
            self.end();
        }
        written.map_err(broken)
    }

    /// Tells the peer which answers nobody waits for.
    async fn cancel(&self) -> Result<(), LinkError> {
        let mut bytes = BytesMut::new();
        for number in std::mem::take(&mut *self.given_up()) {
            put_bare(Kind::Cancel, number, &mut bytes);
        }
        self.write(&bytes).await
    }

    async fn deliver(&self, number: u64, message: Bytes) {
        let asker = self
            .asked()
            .as_ref()
            .and_then(|a| a.open.get(&number).cloned());
        if let Some(asker) = asker {
            // Whoever asked may have gone.
            asker.send(message).await.ok();
        }
    }
}

/// Hands answers out until the connection ends.
async fn keep(mut frames: Frames<ReadHalf<Box<dyn Connection>>>, line: Arc<Line>) {
    let mut is_pinged = false;
    loop {
        let next = tokio::select! {
            biased;
            next = timeout(PING_AFTER, frames.next()) => next,
            () = line.wake.notified() => match line.cancel().await {
                Ok(()) => continue,
                Err(_) => break,
            },
        };
        match next {
            Ok(Ok(Some(frame))) => {
                is_pinged = false;
                if frame.kind == Kind::Reply {
                    line.deliver(frame.number, frame.body).await;
                }
            }
            Ok(Ok(None) | Err(_)) => break,
            Err(_elapsed) if is_pinged => break,
            Err(_elapsed) if line.is_awaited() => {
                is_pinged = true;
                let mut ping = BytesMut::new();
                put_bare(Kind::Ping, 0, &mut ping);
                if line.write(&ping).await.is_err() {
                    break;
                }
            }
            Err(_elapsed) => {}
        }
    }
    line.end();
}

impl Replies {
    /// The next message of the answer.
    pub async fn next(&mut self) -> Result<ReadReply, LinkError> {
        let bytes = self.messages.recv().await.ok_or_else(ended)?;
        let reply = ReadReply::decode(bytes);
        let reply = reply.map_err(|error| LinkError::Broken(error.to_string()))?;
        self.is_whole = reply.end;
        Ok(reply)
    }
}

impl Drop for Replies {
    fn drop(&mut self) {
        let line = &self.stream.line;
        let mut asked = line.asked();
        let was_open = asked.as_mut().and_then(|a| a.open.remove(&self.number));
        drop(asked);
        if was_open.is_some() && !self.is_whole {
            line.given_up().push(self.number);
            line.wake.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::Frame;
    use super::*;

    /// A link whose one connection ends in the peer that is returned.
    async fn linked() -> (
        ReadLink,
        Frames<ReadHalf<Box<dyn Connection>>>,
        WriteHalf<Box<dyn Connection>>,
    ) {
        let world = host::world(tempfile::tempdir().unwrap().path()).unwrap();
        let link = ReadLink::new(world, "nowhere");
        let (near, far) = tokio::io::duplex(1 << 16);
        let stream = Arc::new(link.keep(Box::new(near)));
        *link.open.lock().await = Some(stream);
        let (reader, writer) = tokio::io::split(Box::new(far) as Box<dyn Connection>);
        (link, Frames::new(reader), writer)
    }

    async fn next(frames: &mut Frames<ReadHalf<Box<dyn Connection>>>) -> Frame {
        frames.next().await.unwrap().unwrap()
    }

    fn reply(end: bool) -> ReadReply {
        ReadReply {
            end,
            ..ReadReply::default()
        }
    }

    #[tokio::test]
    async fn who_goes_away_tells_and_others_go_on() {
        let (link, mut peer, mut back) = linked().await;
        let request = ReadRequest::default();
        let first = link.ask(&request).await.unwrap();
        let mut second = link.ask(&request).await.unwrap();
        assert_eq!(next(&mut peer).await.kind, Kind::Ask);
        let asked = next(&mut peer).await;
        drop(first);
        let canceled = next(&mut peer).await;
        assert_eq!((canceled.kind, canceled.number), (Kind::Cancel, 1));
        let mut bytes = BytesMut::new();
        // What nobody waits for any more is left lying.
        put_message(Kind::Reply, 1, &reply(true), &mut bytes).unwrap();
        put_message(Kind::Reply, asked.number, &reply(false), &mut bytes).unwrap();
        put_message(Kind::Reply, asked.number, &reply(true), &mut bytes).unwrap();
        back.write_all(&bytes).await.unwrap();
        assert!(!second.next().await.unwrap().end);
        assert!(second.next().await.unwrap().end);
        drop(second);
        // A whole answer was not given up.
        let _third = link.ask(&request).await.unwrap();
        assert_eq!(next(&mut peer).await.kind, Kind::Ask);
    }

    #[tokio::test]
    async fn a_broken_connection_ends_every_question() {
        let (link, peer, back) = linked().await;
        let mut replies = link.ask(&ReadRequest::default()).await.unwrap();
        drop((peer, back));
        assert!(matches!(replies.next().await, Err(LinkError::Broken(_))));
        // The next one finds that out and connects anew, here to nowhere.
        let again = link.ask(&ReadRequest::default()).await;
        assert!(matches!(again, Err(LinkError::NotConnected(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_may_think_for_long_but_not_be_dead() {
        let (link, mut peer, mut back) = linked().await;
        let mut replies = link.ask(&ReadRequest::default()).await.unwrap();
        let number = next(&mut peer).await.number;
        for _ in 0..3 {
            let ping = next(&mut peer).await;
            assert_eq!(ping.kind, Kind::Ping);
            let mut pong = BytesMut::new();
            put_bare(Kind::Pong, ping.number, &mut pong);
            back.write_all(&pong).await.unwrap();
        }
        let mut bytes = BytesMut::new();
        put_message(Kind::Reply, number, &reply(false), &mut bytes).unwrap();
        back.write_all(&bytes).await.unwrap();
        assert!(!replies.next().await.unwrap().end);
        // Now it says nothing any more.
        assert!(matches!(replies.next().await, Err(LinkError::Broken(_))));
    }

    #[tokio::test]
    async fn a_peer_of_another_version_is_called() {
        let root = tempfile::tempdir().unwrap();
        let world = host::world(root.path()).unwrap();
        let mut listener = world.net.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let hang_up = async move { drop(listener.accept().await) };
        let link = ReadLink::new(world, &address);
        let request = ReadRequest::default();
        let (asked, ()) = tokio::join!(link.ask(&request), hang_up);
        assert!(matches!(asked, Err(LinkError::Otherwise)));
        // And is not asked again for a while.
        let again = link.ask(&request).await;
        assert!(matches!(again, Err(LinkError::Otherwise)));
    }
}
