//! What wraps the handlers: compression as asked for, cross-origin headers, the date, clean paths.
//!
//! Promise: of gzip and deflate the first that `Accept-Encoding` names, as Prometheus picks; a
//! body in pieces is compressed in pieces. Not here: compressed requests (see `body`).

use std::io::{self, Write};

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use futures::{Stream, StreamExt, stream};

use super::params::unescape;
use super::{Shared, instant};

/// What Prometheus adds for any origin, allowed or not.
const CORS: [(HeaderName, &str); 3] = [
    (
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        "Accept, Authorization, Content-Type, Origin",
    ),
    (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS"),
    (header::ACCESS_CONTROL_EXPOSE_HEADERS, "Date"),
];

/// Adds `Date` by our own clock: hyper would ask the system's, which no seed can replay.
pub async fn date(State(api): State<Shared>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let now = instant::format_http(api.clock.now());
    let now = HeaderValue::from_str(&now).expect("letters and digits");
    response.headers_mut().insert(header::DATE, now);
    response
}

/// A request with the escapes in its path that are needed, and no others: whatever Go escapes is
/// routed alike. Stands before the router.
pub fn escape_anew(mut request: Request) -> Request {
    if let Ok(path) = unescape(request.uri().path().as_bytes(), false) {
        let path = escaped(&path);
        if path != request.uri().path() {
            put_path(&mut request, path);
        }
    }
    request
}

/// Leads paths with empty or dotted parts to what they mean, as Go's server does.
pub async fn clean_path(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if unescape(path.as_bytes(), false).is_err() {
        let close = [(header::CONNECTION, "close")];
        return (StatusCode::BAD_REQUEST, close, "400 Bad Request").into_response();
    }
    let clean = cleaned(path);
    let method = request.method();
    let clean = match without_slash(&clean, method) {
        Some(shorter) if *method == Method::HEAD => {
            return redirect(
                StatusCode::TEMPORARY_REDIRECT,
                "Temporary Redirect",
                shorter,
            );
        }
        Some(shorter) => shorter.to_owned(),
        None => clean,
    };
    if clean == path || request.method() == Method::CONNECT {
        return next.run(request).await;
    }
    let query = request.uri().query().filter(|query| !query.is_empty());
    let location = clean + &query.map(|query| format!("?{query}")).unwrap_or_default();
    let moved = StatusCode::MOVED_PERMANENTLY;
    match *request.method() {
        Method::GET | Method::HEAD => redirect(moved, "Moved Permanently", &location),
        _ => (moved, [(header::LOCATION, location)]).into_response(),
    }
}

/// Escapes of a path that need not be there are gone, those that are needed stand there.
fn escaped(path: &[u8]) -> String {
    let mut out = String::with_capacity(path.len());
    for &byte in path {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => out.push(char::from(byte)),
            _ if b"-_.~$&+,/:;=@".contains(&byte) => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn put_path(request: &mut Request, path: String) {
    let query = request.uri().query().map(|query| format!("?{query}"));
    let target = path + &query.unwrap_or_default();
    // One that has become too long for a target stays what it was.
    if let Ok(target) = target.parse::<PathAndQuery>() {
        let mut parts = request.uri().clone().into_parts();
        parts.path_and_query = Some(target);
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
}

/// Paths outside the API that are also found with a slash behind them, by GET, and by HEAD where that
/// is served.
const SLASHED: [&str; 6] = [
    "/-/healthy",
    "/-/ready",
    "/federate",
    "/graph",
    "/metrics",
    "/version",
];

fn without_slash<'a>(path: &'a str, method: &Method) -> Option<&'a str> {
    let shorter = path.strip_suffix('/')?;
    let is_served = match *method {
        Method::GET => SLASHED.contains(&shorter),
        Method::HEAD => SLASHED[..2].contains(&shorter),
        _ => false,
    };
    is_served.then_some(shorter)
}

/// Without `//`, `.` and `..`; a slash at the end stays, and the API's is put there.
fn cleaned(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let is_api = parts == ["api", "v1"];
    let ends = is_api || path.ends_with('/') && !parts.is_empty();
    format!("/{}{}", parts.join("/"), if ends { "/" } else { "" })
}

/// As Go's `http.Redirect` writes it.
pub fn redirect(code: StatusCode, reason: &str, location: &str) -> Response {
    let mut safe = String::with_capacity(location.len());
    for c in location.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&#34;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::LOCATION, location),
    ];
    let body = format!("<a href=\"{safe}\">{reason}</a>.\n\n");
    (code, headers, body).into_response()
}

/// Answers OPTIONS for whatever path of the API, as Prometheus does.
pub async fn preflight(State(api): State<Shared>, request: Request, next: Next) -> Response {
    if request.method() != Method::OPTIONS || !request.uri().path().starts_with("/api/v1/") {
        return next.run(request).await;
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    let origin = request.headers().get(header::ORIGIN).cloned();
    allow(&api, origin, response.headers_mut());
    response
}

/// Adds what browsers want to see.
pub async fn cross_origin(State(api): State<Shared>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let mut response = next.run(request).await;
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        return response;
    }
    allow(&api, origin, response.headers_mut());
    response
}

fn allow(api: &Shared, origin: Option<HeaderValue>, headers: &mut HeaderMap) {
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = origin.filter(|origin| !origin.is_empty()) {
        for (name, value) in CORS {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let allowed = &api.settings.cors_origin;
        if origin.to_str().is_ok_and(|origin| allowed.is_match(origin)) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        }
    }
}

/// Answers that never are compressed.
const BARE: [StatusCode; 2] = [StatusCode::NO_CONTENT, StatusCode::METHOD_NOT_ALLOWED];

/// Compresses the answer if the request asks for it.
pub async fn compress(request: Request, next: Next) -> Response {
    let encoder = Encoder::asked_by(request.headers());
    let response = next.run(request).await;
    match encoder {
        // Prometheus' router refuses methods outside of what compresses.
        Some(encoder) if !BARE.contains(&response.status()) => encode(response, encoder).await,
        _ => response,
    }
}

/// As [`compress`], but an error leaves as it is: so does client_golang's handler.
pub async fn compress_success(request: Request, next: Next) -> Response {
    let encoder = Encoder::asked_by(request.headers());
    let response = next.run(request).await;
    match encoder {
        Some(encoder) if response.status().is_success() => encode(response, encoder).await,
        _ => response,
    }
}

async fn encode(response: Response, mut encoder: Encoder) -> Response {
    let (mut parts, body) = response.into_parts();
    let name = HeaderValue::from_static(encoder.name());
    parts.headers.insert(header::CONTENT_ENCODING, name);
    parts.headers.remove(header::CONTENT_LENGTH);
    let whole = body.size_hint().exact().is_some();
    let mut pieces = body.into_data_stream();
    if !whole {
        let body = Body::from_stream(encoded(pieces, encoder));
        return Response::from_parts(parts, body);
    }
    // A body that stands in memory already leaves as one, with its length.
    while let Some(piece) = pieces.next().await {
        let written = piece.map_err(io::Error::other);
        if written.and_then(|piece| encoder.write(&piece)).is_err() {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    }
    match encoder.finish() {
        Ok(bytes) => Response::from_parts(parts, Body::from(bytes)),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The same pieces, compressed; one more for what was held back.
fn encoded<E: Into<axum::BoxError> + Send + 'static>(
    pieces: impl Stream<Item = Result<Bytes, E>> + Send + Unpin + 'static,
    encoder: Encoder,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::unfold((pieces, Some(encoder)), |(mut pieces, encoder)| async {
        let mut encoder = encoder?;
        loop {
            let piece = match pieces.next().await {
                None => return Some((encoder.finish(), (pieces, None))),
                Some(Err(e)) => return Some((Err(io::Error::other(e)), (pieces, None))),
                Some(Ok(piece)) => piece,
            };
            match encoder.write(&piece) {
                Err(e) => return Some((Err(e), (pieces, None))),
                Ok(()) if encoder.waiting().is_empty() => {}
                Ok(()) => {
                    let ready = std::mem::take(encoder.waiting());
                    return Some((Ok(ready.into()), (pieces, Some(encoder))));
                }
            }
        }
    })
}

enum Encoder {
    Gzip(GzEncoder<Vec<u8>>),
    /// `deflate` is zlib's format (RFC 9110, 8.4.1.2).
    Deflate(ZlibEncoder<Vec<u8>>),
}

impl Encoder {
    fn asked_by(headers: &HeaderMap) -> Option<Self> {
        let accepted = headers.get(header::ACCEPT_ENCODING)?.to_str().ok()?;
        accepted.split(',').find_map(|name| match name.trim() {
            "gzip" => Some(Self::Gzip(GzEncoder::new(
                Vec::new(),
                Compression::default(),
            ))),
            "deflate" => Some(Self::Deflate(ZlibEncoder::new(
                Vec::new(),
                Compression::default(),
            ))),
            _ => None,
        })
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Gzip(_) => "gzip",
            Self::Deflate(_) => "deflate",
        }
    }

    fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.write_all(piece),
            Self::Deflate(encoder) => encoder.write_all(piece),
        }
    }

    /// Compressed bytes that nobody took yet.
    fn waiting(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Deflate(encoder) => encoder.get_mut(),
        }
    }

    fn finish(self) -> io::Result<Bytes> {
        match self {
            Self::Gzip(encoder) => encoder.finish(),
            Self::Deflate(encoder) => encoder.finish(),
        }
        .map(Bytes::from)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::io::Read;

    use axum::http::HeaderValue;

    use super::*;

    fn asked(accept: &'static str) -> Option<Encoder> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(accept));
        Encoder::asked_by(&headers)
    }

    #[test]
    fn paths_are_cleaned_as_go_does() {
        for (path, clean) in [
            ("/", "/"),
            ("//", "/"),
            ("/a//b/", "/a/b/"),
            ("/a/./b/../c", "/a/c"),
            ("/../a", "/a"),
            ("/api/v1", "/api/v1/"),
            ("/api/v1/x/..", "/api/v1/"),
            ("/api/v1/label/a/values", "/api/v1/label/a/values"),
        ] {
            assert_eq!(cleaned(path), clean);
        }
    }

    /// Prometheus 3.5.3.
    #[test]
    fn some_paths_are_found_with_a_slash_behind_them() {
        let found = |path, method| without_slash(path, &method);
        assert_eq!(found("/metrics/", Method::GET), Some("/metrics"));
        assert_eq!(found("/-/ready/", Method::HEAD), Some("/-/ready"));
        for (path, method) in [
            ("/metrics/", Method::HEAD),
            ("/metrics/", Method::POST),
            ("/", Method::GET),
            ("/x/", Method::GET),
        ] {
            assert_eq!(found(path, method), None, "{path}");
        }
    }

    #[test]
    fn only_needed_escapes_stay_in_a_path() {
        for (path, seen) in [
            ("/api/v1/%71uery?a=%71", "/api/v1/query?a=%71"),
            ("/a%2fb%20c", "/a/b%20c"),
            ("/a{b|\"", "/a%7Bb%7C%22"),
            ("/%c3%a9%ff", "/%C3%A9%FF"),
            ("/%2e%2E/a%3f", "/../a%3F"),
            ("/a%zz", "/a%zz"),
            ("*", "*"),
        ] {
            let request = Request::builder().uri(path).body(Body::empty()).unwrap();
            assert_eq!(escape_anew(request).uri(), seen);
        }
    }

    #[test]
    fn the_first_that_is_known_is_taken() {
        let name = |accept| asked(accept).map(|e| e.name());
        assert_eq!(name("deflate, gzip, br, zstd"), Some("deflate"));
        assert_eq!(name("br, gzip"), Some("gzip"));
        assert_eq!(name("identity"), None);
        assert_eq!(name("gzip;q=0"), None);
    }

    #[tokio::test]
    async fn pieces_come_back_whole() {
        let plain: Vec<Bytes> = (0..100u8)
            .map(|i| Bytes::from(vec![i.wrapping_mul(151); 7000]))
            .collect();
        let pieces = stream::iter(plain.clone().into_iter().map(Ok::<_, Infallible>));
        let encoder = asked("gzip").expect("gzip is known");
        let compressed: Vec<_> = encoded(pieces, encoder).collect().await;
        let compressed: Vec<u8> = compressed.into_iter().flat_map(|p| p.unwrap()).collect();
        let mut back = Vec::new();
        let mut decoder = flate2::read::GzDecoder::new(&compressed[..]);
        decoder.read_to_end(&mut back).unwrap();
        assert_eq!(back, plain.concat());
    }
}
