//! One listener and its connections.
//!
//! Promise: never more connections than [`Bounds`] say, over all listeners; one that neither sends
//! nor takes a byte for as long as they say is closed (the client in the field that never closes its own is why);
//! headers beyond [`HTTP_HEADER_BYTES_MAX`] are refused; every task is owned here and ends with the
//! listener. HTTP/1.1 and, by its preface, HTTP/2 without TLS.

use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use model::limits::{HTTP_CONNECTIONS_MAX, HTTP_HEADER_BYTES_MAX, HTTP_STREAMS_MAX};
use model::port::{Connection, Listener, Spawn, Task};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Sleep, sleep, timeout};
use tower::ServiceExt as _;
use tracing::{debug, warn};

use super::params::Peer;
use super::request_line::Escaped;

/// Prometheus' `--web.read-timeout`.
pub const IDLE_MAX: Duration = Duration::from_secs(300);
/// How long requests that are under way may still take when the node stops.
pub const STOP_MAX: Duration = Duration::from_secs(10);
/// Pause after a failed accept: too many open files do not close themselves at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What connections may be there; all listeners of a node share one.
#[derive(Debug, Clone)]
pub struct Bounds {
    slots: Arc<Semaphore>,
    /// How many slots there are.
    connections_max: u32,
    idle_max: Duration,
}

impl Bounds {
    pub fn new(connections_max: usize, idle_max: Duration) -> Self {
        let connections_max = connections_max.min(Semaphore::MAX_PERMITS);
        let connections_max = u32::try_from(connections_max).unwrap_or(u32::MAX);
        Self {
            slots: Arc::new(Semaphore::new(connections_max as usize)),
            connections_max,
            idle_max,
        }
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self::new(HTTP_CONNECTIONS_MAX, IDLE_MAX)
    }
}

/// Serves until `stop` turns true, then lets requests under way finish for [`STOP_MAX`].
pub async fn serve(
    mut listener: Box<dyn Listener>,
    router: Router,
    spawn: Arc<dyn Spawn>,
    bounds: Bounds,
    mut stop: watch::Receiver<bool>,
) {
    let connections = Tasks::new(spawn);
    loop {
        let slot = Arc::clone(&bounds.slots).acquire_owned();
        let accepted = async {
            let slot = slot.await.expect("the semaphore is never closed");
            (listener.accept().await, slot)
        };
        let (accepted, slot) = tokio::select! {
            accepted = accepted => accepted,
            () = stopped(&mut stop) => break,
        };
        match accepted {
            Ok((connection, peer)) => {
                debug!(%peer, "connection opened");
                let served = serve_connection(
                    connection,
                    Peer(peer),
                    router.clone(),
                    connections.spawner(),
                    bounds.idle_max,
                    stop.clone(),
                );
                connections.start("http connection", async move {
                    served.await;
                    drop(slot);
                });
            }
            Err(error) => {
                warn!(%error, "accept failed");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let all = bounds.slots.acquire_many(bounds.connections_max);
    if timeout(STOP_MAX, all).await.is_err() {
        warn!("connections were cut off while the node stopped");
    }
}

async fn serve_connection(
    connection: Box<dyn Connection>,
    peer: Peer,
    router: Router,
    spawn: Arc<dyn Spawn>,
    idle_max: Duration,
    mut stop: watch::Receiver<bool>,
) {
    let streams = Tasks::new(spawn);
    let mut builder = Builder::new(Streams(streams));
    builder
        .http1()
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .header_read_timeout(idle_max)
        .max_buf_size(HTTP_HEADER_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_header_list_size(HTTP_HEADER_BYTES_MAX as u32)
        .max_concurrent_streams(HTTP_STREAMS_MAX);
    let io = TokioIo::new(Escaped::new(IdleBounded::new(connection, idle_max)));
    let named = router.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        request
    });
    let service = TowerToHyperService::new(named);
    let mut served = pin!(builder.serve_connection(io, service));
    let result = tokio::select! {
        result = served.as_mut() => result,
        () = stopped(&mut stop) => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = result {
        debug!(error, "connection failed");
    }
}

/// Returns once `stop` is true, or can no longer become so.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        debug!("nobody is left to stop the listener: stopping");
    }
}

/// Owns tasks: they end when the last clone is dropped.
#[derive(Clone)]
struct Tasks {
    spawn: Arc<dyn Spawn>,
    running: Arc<Mutex<Vec<Task>>>,
}

impl Tasks {
    fn new(spawn: Arc<dyn Spawn>) -> Self {
        Self {
            spawn,
            running: Arc::default(),
        }
    }

    fn spawner(&self) -> Arc<dyn Spawn> {
        Arc::clone(&self.spawn)
    }

    /// Starts one more and lets go of those that ended.
    fn start(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        let task = self.spawn.spawn(name, Box::pin(future));
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|task| !task.is_finished());
        running.push(task);
    }
}

/// Runs the streams of one HTTP/2 connection.
#[derive(Clone)]
struct Streams(Tasks);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, future: F) {
        self.0.start("http2 stream", future);
    }
}

/// A connection that fails once no byte has moved for `idle_max` to twice that.
///
/// The timer is looked at when it fires, not set back at each byte: that costs nothing per byte.
struct IdleBounded<C> {
    connection: C,
    timer: Pin<Box<Sleep>>,
    idle_max: Duration,
    moved: bool,
}

impl<C> IdleBounded<C> {
    fn new(connection: C, idle_max: Duration) -> Self {
        Self {
            connection,
            timer: Box::pin(sleep(idle_max)),
            idle_max,
            moved: true,
        }
    }

    /// Pending while the connection may stay.
    fn poll_idle(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            ready!(self.timer.as_mut().poll(context));
            if !std::mem::take(&mut self.moved) {
                return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "idle connection"));
            }
            self.timer = Box::pin(sleep(self.idle_max));
        }
    }

    /// The outcome of a read or write: progress is noted, waiting is bounded.
    fn judge<T>(
        &mut self,
        outcome: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        match outcome {
            Poll::Ready(result) => {
                self.moved = true;
                Poll::Ready(result)
            }
            Poll::Pending => self.poll_idle(context).map(Err),
        }
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for IdleBounded<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.connection).poll_read(context, buffer);
        self.judge(outcome, context)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for IdleBounded<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.connection).poll_write(context, bytes);
        self.judge(outcome, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.connection).poll_write_vectored(context, pieces);
        self.judge(outcome, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.connection).poll_flush(context);
        match outcome {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => self.poll_idle(context).map(Err),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
