//! One listener and its connections.
//!
//! Promise: never more than [`HTTP_CONNECTIONS_MAX`] connections; one that neither sends nor takes
//! a byte for [`IDLE_MAX`] is closed (the client in the field that never closes its own is why);
//! headers beyond [`HTTP_HEADER_BYTES_MAX`] are refused; every task is owned here and ends with the
//! listener. HTTP/1.1 and, by its preface, HTTP/2 without TLS.

use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use model::limits::{HTTP_CONNECTIONS_MAX, HTTP_HEADER_BYTES_MAX, HTTP_STREAMS_MAX};
use model::port::{Connection, Listener, Spawn, Task};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Sleep, sleep, timeout};
use tracing::{debug, warn};

/// Prometheus' `--web.read-timeout`.
pub const IDLE_MAX: Duration = Duration::from_secs(300);
/// How long requests that are under way may still take when the node stops.
pub const STOP_MAX: Duration = Duration::from_secs(10);
/// Pause after a failed accept: too many open files do not close themselves at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop` turns true, then lets requests under way finish for [`STOP_MAX`].
pub async fn serve(
    mut listener: Box<dyn Listener>,
    router: Router,
    spawn: Arc<dyn Spawn>,
    mut stop: watch::Receiver<bool>,
) {
    let slots = Arc::new(Semaphore::new(HTTP_CONNECTIONS_MAX));
    let connections = Tasks::new(spawn);
    loop {
        let slot = Arc::clone(&slots).acquire_owned();
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
                    router.clone(),
                    connections.spawner(),
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
    let all = u32::try_from(HTTP_CONNECTIONS_MAX).expect("a small constant");
    if timeout(STOP_MAX, slots.acquire_many(all)).await.is_err() {
        warn!("connections were cut off while the node stopped");
    }
}

async fn serve_connection(
    connection: Box<dyn Connection>,
    router: Router,
    spawn: Arc<dyn Spawn>,
    mut stop: watch::Receiver<bool>,
) {
    let streams = Tasks::new(spawn);
    let mut builder = Builder::new(Streams(streams));
    builder
        .http1()
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .header_read_timeout(IDLE_MAX)
        .max_buf_size(HTTP_HEADER_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_header_list_size(HTTP_HEADER_BYTES_MAX as u32)
        .max_concurrent_streams(HTTP_STREAMS_MAX);
    let io = TokioIo::new(IdleBounded::new(connection));
    let service = TowerToHyperService::new(router);
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

/// A connection that fails once no byte has moved for [`IDLE_MAX`] to twice that.
///
/// The timer is looked at when it fires, not set back at each byte: that costs nothing per byte.
struct IdleBounded<C> {
    connection: C,
    timer: Pin<Box<Sleep>>,
    moved: bool,
}

impl<C> IdleBounded<C> {
    fn new(connection: C) -> Self {
        Self {
            connection,
            timer: Box::pin(sleep(IDLE_MAX)),
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
            self.timer = Box::pin(sleep(IDLE_MAX));
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
mod tests {
    use std::net::SocketAddr;

    use async_trait::async_trait;
    use axum::routing::{get, post};
    use futures::future::BoxFuture;
    use http_body_util::{BodyExt, Empty};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::sync::mpsc;

    use super::*;

    struct TokioSpawn;

    impl Spawn for TokioSpawn {
        #[allow(
            clippy::disallowed_methods,
            reason = "this is the port's twin for tests"
        )]
        fn spawn(&self, _: &'static str, future: BoxFuture<'static, ()>) -> Task {
            Task::new(tokio::spawn(future).abort_handle())
        }
    }

    /// A listener whose connections are pipes in memory.
    struct Pipes(mpsc::Receiver<DuplexStream>);

    #[async_trait]
    impl Listener for Pipes {
        async fn accept(&mut self) -> io::Result<(Box<dyn Connection>, SocketAddr)> {
            match self.0.recv().await {
                Some(pipe) => Ok((Box::new(pipe), SocketAddr::from(([127, 0, 0, 1], 1)))),
                None => std::future::pending().await,
            }
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok(SocketAddr::from(([127, 0, 0, 1], 9090)))
        }
    }

    struct Server {
        pipes: mpsc::Sender<DuplexStream>,
        stop: watch::Sender<bool>,
        ended: watch::Receiver<bool>,
        _task: Task,
    }

    impl Server {
        fn start(router: Router) -> Self {
            let (pipes, incoming) = mpsc::channel(1);
            let (stop, stopping) = watch::channel(false);
            let (end, ended) = watch::channel(false);
            let task = TokioSpawn.spawn(
                "server",
                Box::pin(async move {
                    let listener = Box::new(Pipes(incoming));
                    serve(listener, router, Arc::new(TokioSpawn), stopping).await;
                    end.send_replace(true);
                }),
            );
            Self {
                pipes,
                stop,
                ended,
                _task: task,
            }
        }

        async fn connect(&self) -> DuplexStream {
            let (ours, theirs) = duplex(64 << 10);
            self.pipes.send(theirs).await.expect("the listener runs");
            ours
        }
    }

    fn router() -> Router {
        let echo = post(|body: String| async move { body });
        Router::new()
            .route("/hello", get(|| async { "hello" }))
            .route("/echo", echo)
    }

    /// Reads one answer whose body has the length it says.
    async fn answer(pipe: &mut DuplexStream) -> String {
        let mut text = String::new();
        while !text.ends_with("\r\n\r\n") {
            text.push(char::from(pipe.read_u8().await.expect("an answer")));
        }
        let length = text
            .lines()
            .find_map(|l| l.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |l| l.parse().unwrap())];
        pipe.read_exact(&mut body).await.expect("a body");
        text + std::str::from_utf8(&body).unwrap()
    }

    /// What an Arduino sketch in the field sends: header lines that end in LF alone, and CR LF
    /// behind the body; then, on the same connection, the next push.
    #[tokio::test]
    async fn bare_line_feeds_and_a_stray_line_end_are_taken() {
        let server = Server::start(router());
        let mut pipe = server.connect().await;
        for _ in 0..2 {
            let sent = b"POST /echo HTTP/1.1\nHost: x\nContent-Type: text/plain\nContent-Length: 4\n\na 1\n\r\n";
            pipe.write_all(sent).await.unwrap();
            let answer = answer(&mut pipe).await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            assert!(answer.ends_with("\r\n\r\na 1\n"), "{answer}");
        }
    }

    #[tokio::test]
    async fn http2_without_tls_is_told_by_its_preface() {
        let server = Server::start(router());
        let io = TokioIo::new(server.connect().await);
        let executor = hyper_util::rt::TokioExecutor::new();
        let (mut client, connection) = hyper::client::conn::http2::handshake(executor, io)
            .await
            .unwrap();
        let _driver = TokioSpawn.spawn(
            "client",
            Box::pin(async move { connection.await.expect("a clean connection") }),
        );
        let request = hyper::Request::get("http://x/hello").body(Empty::<bytes::Bytes>::new());
        let answer = client.send_request(request.unwrap()).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(
            answer.into_body().collect().await.unwrap().to_bytes(),
            "hello"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connections_are_closed() {
        let server = Server::start(router());
        let mut silent = server.connect().await;
        let mut kept = server.connect().await;
        kept.write_all(b"GET /hello HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        answer(&mut kept).await;
        let mut rest = Vec::new();
        assert_eq!(silent.read_to_end(&mut rest).await.unwrap(), 0);
        assert_eq!(kept.read_to_end(&mut rest).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn headers_are_bounded() {
        let server = Server::start(router());
        let mut pipe = server.connect().await;
        let long = "a".repeat(HTTP_HEADER_BYTES_MAX);
        let sent = format!("GET /hello HTTP/1.1\r\nx: {long}\r\n\r\n");
        pipe.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = String::new();
        pipe.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }

    #[tokio::test]
    async fn connections_are_bounded() {
        let server = Server::start(router());
        let mut open = Vec::new();
        for _ in 0..HTTP_CONNECTIONS_MAX {
            open.push(server.connect().await);
        }
        let mut last = server.connect().await;
        let request = b"GET /hello HTTP/1.1\r\nhost: x\r\n\r\n";
        last.write_all(request).await.unwrap();
        // All that are open answer, the last one is not accepted yet.
        for pipe in &mut open {
            pipe.write_all(request).await.unwrap();
            answer(pipe).await;
        }
        let mut byte = [0];
        let waiting = futures::poll!(pin!(last.read(&mut byte)));
        assert!(waiting.is_pending());
        drop(open);
        assert!(answer(&mut last).await.ends_with("hello"));
    }

    #[tokio::test]
    async fn requests_under_way_finish_when_the_node_stops() {
        let (started, mut begin) = mpsc::channel::<()>(1);
        let (finish, finished) = watch::channel(false);
        let slow = get(move || {
            let (started, mut finished) = (started.clone(), finished.clone());
            async move {
                started.send(()).await.expect("the test waits");
                finished.wait_for(|f| *f).await.expect("the test finishes");
                "done"
            }
        });
        let mut server = Server::start(Router::new().route("/slow", slow));
        let mut idle = server.connect().await;
        let mut pipe = server.connect().await;
        pipe.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        begin.recv().await.expect("the request runs");
        server.stop.send_replace(true);
        let mut rest = Vec::new();
        assert_eq!(idle.read_to_end(&mut rest).await.unwrap(), 0);
        assert!(!*server.ended.borrow());
        finish.send_replace(true);
        assert!(answer(&mut pipe).await.ends_with("done"));
        server.ended.wait_for(|e| *e).await.unwrap();
    }
}
