//! The GET of a scrape over HTTP/1.1.
//!
//! Promise: one connection per scrape, closed with it; a body never takes more memory than asked
//! for, on the wire or decoded; credentials go to the host the configuration names and to no host
//! that a redirect names. Not here: TLS, proxies and OAuth 2: a job that needs one is refused, so
//! that nothing goes out in the open or by another way than the one configured.

use std::io;
use std::pin::pin;
use std::sync::Arc;

use async_trait::async_trait;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};
use futures::future::{Either, select};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use ingest::gzip::{self, GzipError};
use ingest::scrape::{Fetch, FetchError, Fetched, ScrapeRequest};
use model::ClusterId;
use model::port::Net;

use crate::config::{Auth, HttpClient, ScrapeConfig, SecretSource, Surroundings};

/// Tells a node of our own cluster who asks: what it would show of pushed groups is in the
/// cluster's history already.
pub const CLUSTER_HEADER: HeaderName = HeaderName::from_static("x-quorate-cluster");

/// Go's http.Client.
const REDIRECTS_MAX: usize = 10;
const USER_AGENT: &str = concat!("quorate/", env!("CARGO_PKG_VERSION"));

/// How a job makes its requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    pub http: HttpClient,
    pub enable_compression: bool,
}

impl Client {
    pub fn new(config: &ScrapeConfig) -> Self {
        Self {
            http: config.http.clone(),
            enable_compression: config.enable_compression,
        }
    }
}

/// Fetches for one job.
pub struct HttpFetch {
    pub net: Arc<dyn Net>,
    pub client: Client,
    /// Where files of credentials are read, anew for each request.
    pub surroundings: Arc<dyn Surroundings + Send + Sync>,
    /// `None` while there is no cluster.
    pub cluster_id: Arc<dyn Fn() -> Option<ClusterId> + Send + Sync>,
}

#[async_trait]
impl Fetch for HttpFetch {
    async fn fetch(&self, request: ScrapeRequest) -> Result<Fetched, FetchError> {
        let fetched = tokio::time::timeout(request.timeout, self.follow(&request)).await;
        fetched.unwrap_or_else(|_| Err(FetchError::Timeout { url: request.url }))
    }
}

/// An answer as it came.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// Why an exchange failed; the URL is added further up.
pub(super) enum Failure {
    BodyTooLarge,
    Transport(String),
}

impl Failure {
    pub(super) fn reason(self) -> String {
        match self {
            Self::BodyTooLarge => FetchError::BodyTooLarge.to_string(),
            Self::Transport(reason) => reason,
        }
    }
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self::Transport(reason)
    }
}

impl HttpFetch {
    async fn follow(&self, request: &ScrapeRequest) -> Result<Fetched, FetchError> {
        self.refuse_unserved()?;
        let named = |url: &Uri, failure| match failure {
            Failure::BodyTooLarge => FetchError::BodyTooLarge,
            Failure::Transport(reason) => FetchError::Transport {
                url: url.to_string(),
                reason,
            },
        };
        let first: Uri = request.url.parse().map_err(|e| FetchError::Transport {
            url: request.url.clone(),
            reason: format!("parse {:?}: {e}", request.url),
        })?;
        let mut url = first.clone();
        for _ in 0..=REDIRECTS_MAX {
            let headers = self.headers(request, url.authority() == first.authority());
            let headers = headers.map_err(|e| named(&url, e))?;
            let answer = self.exchange(&url, headers, request.body_bytes_max).await;
            let answer = answer.map_err(|e| named(&url, e))?;
            let location = answer.headers.get(header::LOCATION);
            match location.filter(|_| self.follows(answer.status)) {
                Some(to) => url = resolve(&url, to).map_err(|e| named(&url, e.into()))?,
                None => return decode(answer, request).map_err(|e| e.at(&url)),
            }
        }
        let reason = format!("stopped after {REDIRECTS_MAX} redirects");
        Err(named(&url, reason.into()))
    }

    pub(super) fn refuse_unserved(&self) -> Result<(), FetchError> {
        let http = &self.client.http;
        let proxied = http.proxy.url.is_some() || http.proxy.from_environment;
        let what = match &http.auth {
            Auth::OAuth2(_) => "oauth2",
            _ if proxied => "scraping through a proxy",
            _ => return Ok(()),
        };
        Err(FetchError::Refused(format!("{what} is not built in yet")))
    }

    fn follows(&self, status: StatusCode) -> bool {
        self.client.http.follow_redirects && matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
    }

    pub(super) fn headers(
        &self,
        request: &ScrapeRequest,
        trusted: bool,
    ) -> Result<HeaderMap, Failure> {
        let encoding = match self.client.enable_compression {
            true => "gzip",
            false => "identity",
        };
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(encoding));
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        if let Some(id) = (self.cluster_id)() {
            headers.insert(CLUSTER_HEADER, value(&id.to_string())?);
        }
        for (name, text) in &request.headers {
            headers.append(self::name(name)?, value(text)?);
        }
        if trusted {
            self.add_configured(&mut headers)?;
        }
        Ok(headers)
    }

    /// What the configuration adds: credentials, and headers that may be some.
    fn add_configured(&self, headers: &mut HeaderMap) -> Result<(), Failure> {
        let http = &self.client.http;
        for (name, header) in &http.headers {
            let name = self::name(name)?;
            let inline = header.values.iter().map(String::as_str);
            for text in inline.chain(header.secrets.iter().map(|s| s.expose())) {
                headers.append(name.clone(), secret_value(text)?);
            }
            for file in &header.files {
                headers.append(name.clone(), secret_value(&self.read(file)?)?);
            }
        }
        if let Some(authorization) = self.authorization()? {
            headers.insert(header::AUTHORIZATION, secret_value(&authorization)?);
        }
        Ok(())
    }

    fn authorization(&self) -> Result<Option<String>, Failure> {
        Ok(match &self.client.http.auth {
            Auth::None | Auth::OAuth2(_) => None,
            Auth::Basic {
                username,
                username_file,
                password,
            } => {
                let username = match username_file {
                    Some(file) => self.read(file)?,
                    None => username.clone(),
                };
                let pair = format!("{username}:{}", self.secret(password)?);
                Some(format!("Basic {}", BASE64_STANDARD.encode(pair)))
            }
            Auth::Authorization {
                scheme,
                credentials,
            } => Some(format!("{scheme} {}", self.secret(credentials)?)),
        })
    }

    fn secret(&self, source: &SecretSource) -> Result<String, Failure> {
        match source {
            SecretSource::None => Ok(String::new()),
            SecretSource::Inline(secret) => Ok(secret.expose().to_owned()),
            SecretSource::File(file) => self.read(file),
        }
    }

    fn read(&self, file: &std::path::Path) -> Result<String, Failure> {
        let text = self.surroundings.read(file);
        let text = text.map_err(|e| format!("unable to read file {}: {e}", file.display()))?;
        Ok(text.trim().to_owned())
    }

    async fn exchange(
        &self,
        url: &Uri,
        headers: HeaderMap,
        bytes_max: usize,
    ) -> Result<Answer, Failure> {
        let address = address(url)?;
        let connected = self.net.connect(&address).await;
        let io = connected.map_err(|e| format!("dial tcp {address}: {}", dial_error(&e)))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(io))
            .await
            .map_err(|e| e.to_string())?;
        let request = request(url, headers)?;
        let exchange = async move {
            let answer = sender.send_request(request).await;
            read(answer.map_err(|e| cause(&e))?, bytes_max).await
        };
        // The connection moves the bytes; when it ends first, what it brought is still to be read.
        match select(pin!(exchange), pin!(connection)).await {
            Either::Left((answer, _connection)) => answer,
            Either::Right((_end, exchange)) => exchange.await,
        }
    }
}

pub(super) fn request(url: &Uri, mut headers: HeaderMap) -> Result<Request<Empty<Bytes>>, Failure> {
    let authority = url.authority().map_or("", |a| a.as_str());
    let host = authority.rsplit('@').next().unwrap_or_default();
    headers.insert(header::HOST, value(host)?);
    let target = url.path_and_query().map_or("/", |p| p.as_str());
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = target
        .parse()
        .map_err(|e| format!("parse {target:?}: {e}"))?;
    *request.headers_mut() = headers;
    Ok(request)
}

/// The answer with its body; that of an error is not read.
async fn read(answer: axum::http::Response<Incoming>, bytes_max: usize) -> Result<Answer, Failure> {
    let (parts, mut incoming) = answer.into_parts();
    let mut body = BytesMut::new();
    while parts.status == StatusCode::OK
        && let Some(frame) = incoming.frame().await
    {
        let frame = frame.map_err(|e| cause(&e))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if body.len() + data.len() > bytes_max {
            return Err(Failure::BodyTooLarge);
        }
        body.extend_from_slice(&data);
    }
    Ok(Answer {
        status: parts.status,
        headers: parts.headers,
        body: body.freeze(),
    })
}

/// Why an answer holds nothing to ingest.
enum Undecoded {
    Known(FetchError),
    Malformed(String),
}

impl Undecoded {
    fn at(self, url: &Uri) -> FetchError {
        match self {
            Self::Known(error) => error,
            Self::Malformed(reason) => FetchError::Transport {
                url: url.to_string(),
                reason,
            },
        }
    }
}

fn decode(answer: Answer, request: &ScrapeRequest) -> Result<Fetched, Undecoded> {
    if answer.status != StatusCode::OK {
        let reason = answer.status.canonical_reason().unwrap_or_default();
        let status = format!("{} {reason}", answer.status.as_u16());
        return Err(Undecoded::Known(FetchError::Status(
            status.trim_end().to_owned(),
        )));
    }
    let text = |name| {
        let value: Option<&HeaderValue> = answer.headers.get(name);
        value.map_or_else(String::new, |v| {
            String::from_utf8_lossy(v.as_bytes()).into_owned()
        })
    };
    let body = match text(header::CONTENT_ENCODING).as_str() {
        "gzip" => match gzip::decompress(&answer.body, request.body_bytes_max) {
            Ok(plain) => plain.into(),
            Err(GzipError::TooLarge { .. }) => {
                return Err(Undecoded::Known(FetchError::BodyTooLarge));
            }
            Err(e @ GzipError::Malformed(_)) => return Err(Undecoded::Malformed(e.to_string())),
        },
        _ => answer.body.clone(),
    };
    Ok(Fetched {
        content_type: text(header::CONTENT_TYPE),
        body,
    })
}

/// `host:port` to connect to.
pub(super) fn address(url: &Uri) -> Result<String, Failure> {
    match url.scheme_str() {
        Some("http") => {}
        Some("https") => return Err("https scraping is not built in yet".to_owned().into()),
        scheme => {
            let scheme = scheme.unwrap_or_default();
            return Err(format!("unsupported protocol scheme {scheme:?}").into());
        }
    }
    let host = url.host().filter(|host| !host.is_empty());
    let host = host.ok_or_else(|| "no Host in request URL".to_owned())?;
    Ok(format!("{host}:{}", url.port_u16().unwrap_or(80)))
}

/// Where a `Location` leads, seen from `base` (RFC 3986, section 5.2, without dot segments).
fn resolve(base: &Uri, location: &HeaderValue) -> Result<Uri, String> {
    let location = location.to_str().map_err(|e| e.to_string())?;
    let location = location.split('#').next().unwrap_or_default();
    let scheme = base.scheme_str().unwrap_or("http");
    let authority = base.authority().map_or("", |a| a.as_str());
    let text = if location.contains("://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let folder = base
            .path()
            .rsplit_once('/')
            .map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    let failed = |e| format!("failed to parse Location header {location:?}: {e}");
    text.parse::<Uri>().map_err(failed)
}

fn name(text: &str) -> Result<HeaderName, Failure> {
    let name = HeaderName::from_bytes(text.as_bytes());
    name.map_err(|_| format!("invalid header name {text:?}").into())
}

fn value(text: &str) -> Result<HeaderValue, Failure> {
    let value = HeaderValue::from_str(text);
    value.map_err(|_| "invalid header value".to_owned().into())
}

fn secret_value(text: &str) -> Result<HeaderValue, Failure> {
    let mut value = value(text)?;
    value.set_sensitive(true);
    Ok(value)
}

/// As Go words the common ones.
pub(super) fn dial_error(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        _ => error.to_string(),
    }
}

/// hyper's words and what lies beneath.
pub(super) fn cause(error: &hyper::Error) -> String {
    use std::error::Error;
    let Some(source) = error.source() else {
        return error.to_string();
    };
    format!("{error}: {source}")
}

#[cfg(test)]
mod tests;
