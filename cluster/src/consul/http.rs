//! One HTTP request on a connection of its own: within a deadline, the answer within a bound. It
//! does not know what is asked.

use std::convert::Infallible;
use std::error::Error;
use std::future::pending;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::{HeaderMap, Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use model::limits::CONSUL_BODY_BYTES_MAX;
use model::port::Net;

/// What broke an exchange.
pub(super) type Cause = Box<dyn Error + Send + Sync>;

/// A request without its host. `target` is the path and query, percent-encoded.
pub(super) struct Asked {
    pub method: Method,
    pub target: String,
    pub body: Bytes,
    pub deadline: Duration,
}

impl Asked {
    /// Method and path, as errors name it: a query tells nothing more.
    pub fn name(&self) -> String {
        let path = self.target.split('?').next().unwrap_or_default();
        format!("{} {path}", self.method)
    }
}

/// A whole answer.
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Asks `address` and waits for the whole answer.
pub(super) async fn ask(net: &dyn Net, address: &str, asked: &Asked) -> Result<Answer, Cause> {
    let exchanged = tokio::time::timeout(asked.deadline, exchange(net, address, asked));
    exchanged.await.unwrap_or_else(|late| Err(late.into()))
}

async fn exchange(net: &dyn Net, address: &str, asked: &Asked) -> Result<Answer, Cause> {
    let request = Request::builder()
        .method(&asked.method)
        .uri(&asked.target)
        .header(header::HOST, address)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(asked.body.clone()))?;
    let stream = TokioIo::new(net.connect(address).await?);
    let (mut sender, connection) = http1::handshake(stream).await?;
    let answered = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, CONSUL_BODY_BYTES_MAX).collect().await?;
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: body.to_bytes(),
        })
    };
    // What breaks the connection breaks the answer as well, and is told there.
    let driven = async {
        drop(connection.await);
        pending::<Infallible>().await
    };
    match select(pin!(answered), pin!(driven)).await {
        Either::Left((answer, _)) => answer,
        Either::Right((never, _)) => match never {},
    }
}

/// One segment of a path: everything but RFC 3986's unreserved characters percent-encoded.
pub(super) fn segment(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}
