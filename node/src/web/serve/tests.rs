//! A listener over pipes in memory.

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
                let bounds = Bounds::default();
                serve(listener, router, Arc::new(TokioSpawn), bounds, stopping).await;
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

/// As Go's server answers, not with an empty 400; also behind an answer of ours.
#[tokio::test]
async fn what_is_no_request_is_told_so() {
    let server = Server::start(router());
    let mut pipe = server.connect().await;
    let sent = b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\nhello\r\n\r\n";
    pipe.write_all(sent).await.unwrap();
    assert!(answer(&mut pipe).await.ends_with("\r\n\r\nhello"));
    let mut told = String::new();
    pipe.read_to_string(&mut told).await.unwrap();
    let (head, text) = told.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain"));
    assert_eq!(text, "400 Bad Request");
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
