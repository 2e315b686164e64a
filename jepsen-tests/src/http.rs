//! A client that knows what it knows: one connection to one address, kept alive, and for each
//! request one of three endings. *Answer* came whole; *NotSent* means that not one byte of the
//! request left; *Lost* is everything in between.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// The largest answer read; a scan of a load run is a few megabytes.
const ANSWER_BYTES_MAX: usize = 512 << 20;

/// How a request ended.
#[derive(Debug, Clone)]
pub enum Reply {
    Answer { status: u16, body: Bytes },
    NotSent(String),
    Lost(String),
}

/// One connection, opened when needed and again after it broke.
pub struct Connection {
    address: SocketAddr,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            sender: None,
        }
    }

    pub async fn get(&mut self, path: &str, deadline: Duration) -> Reply {
        self.send(Method::GET, path, &[], Bytes::new(), deadline)
            .await
    }

    /// Sends one request and waits for the whole answer, `deadline` for all of it.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
        deadline: Duration,
    ) -> Reply {
        let deadline = Instant::now() + deadline;
        let mut sender = match timeout_at(deadline, self.connected()).await {
            Ok(Ok(sender)) => sender,
            Ok(Err(error)) => return Reply::NotSent(format!("connect: {error:#}")),
            Err(_) => return Reply::NotSent("connect: deadline".to_owned()),
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.address.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = match request.body(Full::new(body)) {
            Ok(request) => request,
            Err(error) => return Reply::NotSent(format!("build request: {error}")),
        };
        match timeout_at(deadline, exchange(&mut sender, request)).await {
            Ok(Ok((status, body))) => {
                self.sender = Some(sender);
                Reply::Answer { status, body }
            }
            Ok(Err(error)) => Reply::Lost(error.to_string()),
            Err(_) => Reply::Lost("deadline".to_owned()),
        }
    }

    async fn connected(&mut self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        if let Some(mut sender) = self.sender.take() {
            // `ready` fails on a connection known to be closed, before anything is sent.
            if !sender.is_closed() && sender.ready().await.is_ok() {
                return Ok(sender);
            }
        }
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // Ends with the sender. Its error is also the sender's, which reports it.
        tokio::spawn(async move { connection.await.ok() });
        Ok(sender)
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

async fn exchange(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<(u16, Bytes), BoxError> {
    let response = sender.send_request(request).await?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
    Ok((status, body.collect().await?.to_bytes()))
}
