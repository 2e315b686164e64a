//! A GET whose body is read piece by piece: for bodies that need not fit into memory.

use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode, Uri};
use bytes::Bytes;
use futures::future::{Either, select};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use ingest::scrape::{FetchError, ScrapeRequest};

use super::http::{HttpFetch, address, cause, dial_error, request};

/// Until the head of the answer is there.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Of an error's text.
const ERROR_BYTES_MAX: usize = 1000;

/// An answer with status 200 whose body is still to come.
pub struct Opened {
    headers: HeaderMap,
    incoming: Incoming,
    /// Moves the bytes; nothing once it has ended.
    connection: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl HttpFetch {
    /// Asks, and returns with the head of the answer. Redirects are not followed.
    pub async fn open(&self, url: &str) -> Result<Opened, FetchError> {
        let opened = tokio::time::timeout(TIMEOUT, self.try_open(url)).await;
        opened.unwrap_or_else(|_| {
            let url = url.to_owned();
            Err(FetchError::Timeout { url })
        })
    }

    async fn try_open(&self, url: &str) -> Result<Opened, FetchError> {
        self.refuse_unserved()?;
        let failed = |reason: String| FetchError::Transport {
            url: url.to_owned(),
            reason,
        };
        let uri: Uri = url.parse().map_err(|e| failed(format!("parse: {e}")))?;
        let asked = ScrapeRequest {
            url: url.to_owned(),
            headers: Vec::new(),
            timeout: TIMEOUT,
            body_bytes_max: 0,
        };
        let headers = self.headers(&asked, true).map_err(|e| failed(e.reason()))?;
        let address = address(&uri).map_err(|e| failed(e.reason()))?;
        let io = self.net.connect(&address).await;
        let io = io.map_err(|e| failed(format!("dial tcp {address}: {}", dial_error(&e))))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(io))
            .await
            .map_err(|e| failed(e.to_string()))?;
        let request = request(&uri, headers).map_err(|e| failed(e.reason()))?;
        // However it ends: a body that is not whole says so itself.
        let connection = Box::pin(async move { drop(connection.await) });
        let sending = pin!(sender.send_request(request));
        let (answer, connection) = match select(sending, connection).await {
            Either::Left((answer, connection)) => (answer, Some(connection)),
            Either::Right(((), sending)) => (sending.await, None),
        };
        let (parts, incoming) = answer.map_err(|e| failed(cause(&e)))?.into_parts();
        let mut opened = Opened {
            headers: parts.headers,
            incoming,
            connection: connection.map(|c| c as Pin<Box<dyn Future<Output = ()> + Send>>),
        };
        if parts.status != StatusCode::OK {
            let text = opened.error_text().await;
            let status = parts.status;
            return Err(failed(format!(
                "server returned HTTP status {status}: {text}"
            )));
        }
        Ok(opened)
    }
}

impl Opened {
    pub fn header(&self, name: &str) -> Option<String> {
        let value = self.headers.get(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    }

    /// The next piece of the body; nothing at its end. One that breaks off is an error.
    pub async fn next(&mut self) -> Option<Result<Bytes, String>> {
        loop {
            let frame = match &mut self.connection {
                None => self.incoming.frame().await,
                Some(connection) => match select(pin!(self.incoming.frame()), connection).await {
                    Either::Left((frame, _)) => frame,
                    Either::Right(((), _)) => {
                        self.connection = None;
                        continue;
                    }
                },
            };
            match frame?.map(|frame| frame.into_data()) {
                Ok(Ok(data)) => return Some(Ok(data)),
                // Trailers.
                Ok(Err(_)) => {}
                Err(error) => return Some(Err(cause(&error))),
            }
        }
    }

    async fn error_text(&mut self) -> String {
        let mut text = Vec::new();
        while text.len() < ERROR_BYTES_MAX
            && let Some(Ok(piece)) = self.next().await
        {
            text.extend_from_slice(&piece);
        }
        text.truncate(ERROR_BYTES_MAX);
        String::from_utf8_lossy(&text).trim().to_owned()
    }
}
