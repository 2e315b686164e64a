//! Connections that other nodes make: each says by its first bytes what it will carry.
//!
//! Reads come in frames of their own and begin with [`MAGIC`]; everything else is gRPC and begins as
//! HTTP/2 does. Promise: who says nothing for [`GREETING_MAX`] is hung up on, and holds up nobody
//! meanwhile.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, Stream};
use futures::{FutureExt, StreamExt};
use model::limits::LISTEN_BACKLOG;
use model::port::{Connection, Listener, Task};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::timeout;

use crate::peer::Wire;
use crate::reads::{Answerer, MAGIC, answer_all};

/// How long a connection may say nothing at first.
const GREETING_MAX: Duration = Duration::from_secs(5);

type First = [u8; MAGIC.len()];
type Greeted = Option<(First, Box<dyn Connection>)>;

/// The connections that carry gRPC; the others are answered by tasks of this stream's.
pub fn connections(
    listener: Box<dyn Listener>,
    answerer: Arc<Answerer>,
) -> impl Stream<Item = io::Result<Wire>> {
    let door = Door {
        listener,
        answerer,
        greeting: FuturesUnordered::new(),
        reads: Vec::new(),
    };
    futures::stream::unfold(door, |mut door| async move {
        let wire = door.next().await;
        Some((Ok(wire), door))
    })
}

struct Door {
    listener: Box<dyn Listener>,
    answerer: Arc<Answerer>,
    greeting: FuturesUnordered<BoxFuture<'static, Greeted>>,
    reads: Vec<Task>,
}

impl Door {
    async fn next(&mut self) -> Wire {
        let greeting_max = LISTEN_BACKLOG as usize;
        loop {
            tokio::select! {
                biased;
                Some(greeted) = self.greeting.next(), if !self.greeting.is_empty() => {
                    if let Some(wire) = greeted.and_then(|greeted| self.open(greeted)) {
                        return wire;
                    }
                }
                accepted = self.listener.accept(), if self.greeting.len() < greeting_max => {
                    match accepted {
                        Ok((connection, _)) => self.greeting.push(greet(connection).boxed()),
                        // One bad accept (no descriptors left, a peer gone) must not end the service.
                        Err(e) => {
                            tracing::warn!(error = %e, "a node's connection was not accepted");
                            tokio::time::sleep(Duration::from_millis(100)).await;
                        }
                    }
                }
            }
        }
    }

    fn open(&mut self, (first, connection): (First, Box<dyn Connection>)) -> Option<Wire> {
        if first != MAGIC {
            return Some(Wire(Box::new(Rejoined {
                first,
                given: 0,
                rest: connection,
            })));
        }
        self.reads.retain(|task| !task.is_finished());
        let answering = answer_all(connection, self.answerer.clone()).boxed();
        let spawn = &self.answerer.server.world.spawn;
        self.reads.push(spawn.spawn("reads of a node", answering));
        None
    }
}

async fn greet(mut connection: Box<dyn Connection>) -> Greeted {
    let mut first = First::default();
    let read = timeout(GREETING_MAX, connection.read_exact(&mut first)).await;
    match read {
        Ok(Ok(_)) => Some((first, connection)),
        Ok(Err(_)) | Err(_) => None,
    }
}

/// A connection whose first bytes were looked at.
struct Rejoined {
    first: First,
    /// How many of them were handed on.
    given: usize,
    rest: Box<dyn Connection>,
}

impl AsyncRead for Rejoined {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = self.first.get(self.given..).unwrap_or_default();
        if left.is_empty() {
            return Pin::new(&mut self.rest).poll_read(context, buffer);
        }
        let some = &left[..left.len().min(buffer.remaining())];
        buffer.put_slice(some);
        self.given += some.len();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rejoined {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.rest).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.rest).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.rest).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.rest.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.rest).poll_write_vectored(context, pieces)
    }
}
