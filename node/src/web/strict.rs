//! What Go's server refuses before any handler sees it, and hyper lets through: hosts, transfer codings
//! and expectations that are none.
//!
//! Not here: what hyper itself cannot read (see `request_line`).

use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::ext::ReasonPhrase;

/// Answers what is no request to Go's server; the connection ends then.
pub async fn refuse(request: Request, next: Next) -> Response {
    let http1 = request.version() <= Version::HTTP_11;
    match http1.then(|| refusal(&request)).flatten() {
        Some(refusal) => refusal.into_response(),
        None => next.run(request).await,
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    Bad,
    /// The reason stands in the status line too.
    BadBecause(&'static str),
    UnknownCoding,
    UnknownExpectation,
    /// `*`, which only OPTIONS may ask for.
    NoPath,
    Options,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let close = [(header::CONNECTION, "close")];
        let bad = StatusCode::BAD_REQUEST;
        match self {
            Self::Bad => (bad, close, "400 Bad Request").into_response(),
            Self::BadBecause(why) => {
                let mut response = (bad, close, format!("400 Bad Request: {why}")).into_response();
                let reason = format!("Bad Request: {why}");
                if let Ok(reason) = ReasonPhrase::try_from(reason.into_bytes()) {
                    response.extensions_mut().insert(reason);
                }
                response
            }
            Self::UnknownCoding => {
                let code = StatusCode::NOT_IMPLEMENTED;
                (code, close, "Unsupported transfer encoding").into_response()
            }
            Self::UnknownExpectation => (StatusCode::EXPECTATION_FAILED, close).into_response(),
            Self::NoPath => (bad, close).into_response(),
            Self::Options => StatusCode::OK.into_response(),
        }
    }
}

fn refusal(request: &Request) -> Option<Refusal> {
    let headers = request.headers();
    let coded = of_coding(headers).filter(|_| request.version() == Version::HTTP_11);
    coded
        .or_else(|| of_hosts(request))
        .or_else(|| of_expectation(headers))
        .or_else(|| match (request.uri().path(), request.method()) {
            ("*", &Method::OPTIONS) => Some(Refusal::Options),
            ("*", _) => Some(Refusal::NoPath),
            _ => None,
        })
}

fn of_coding(headers: &HeaderMap) -> Option<Refusal> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let coding = codings.next()?;
    let is_chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    (!is_chunked || codings.next().is_some()).then_some(Refusal::UnknownCoding)
}

fn of_hosts(request: &Request) -> Option<Refusal> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => Some(Refusal::Bad),
        (None, None) => {
            let needs_one =
                request.version() == Version::HTTP_11 && request.method() != Method::CONNECT;
            needs_one.then_some(Refusal::BadBecause("missing required Host header"))
        }
        (Some(host), None) => {
            let is_valid = host.as_bytes().iter().all(|&byte| {
                byte.is_ascii_alphanumeric() || b"!$%&'()*+,-.:;=[]_~".contains(&byte)
            });
            (!is_valid).then_some(Refusal::BadBecause("malformed Host header"))
        }
    }
}

fn of_expectation(headers: &HeaderMap) -> Option<Refusal> {
    let expected = headers.get(header::EXPECT)?.as_bytes();
    let mut tokens = expected.split(|byte| *byte == b',' || byte.is_ascii_whitespace());
    let is_known = tokens.any(|token| token.eq_ignore_ascii_case(b"100-continue"));
    (!expected.is_empty() && !is_known).then_some(Refusal::UnknownExpectation)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Prometheus 3.5.3 answered.
    #[test]
    fn what_go_refuses_is_refused() {
        let hosts = |all: &'static [&'static str]| all.iter().map(|host| ("host", *host));
        let of = |uri: &str, headers: &mut dyn Iterator<Item = (&'static str, &'static str)>| {
            let request = headers.fold(Request::get(uri), |all, (name, value)| {
                all.header(name, value)
            });
            refusal(&request.body(axum::body::Body::empty()).unwrap())
        };
        let malformed = || Some(Refusal::BadBecause("malformed Host header"));
        let cases: [(&'static [&'static str], Option<Refusal>); 9] = [
            (&["x"], None),
            (&[""], None),
            (&["[::1"], None),
            (&["a,b"], None),
            (
                &[],
                Some(Refusal::BadBecause("missing required Host header")),
            ),
            (&["a", "a"], Some(Refusal::Bad)),
            (&["a b"], malformed()),
            (&["a/b"], malformed()),
            (&["<x>"], malformed()),
        ];
        for (all, expected) in cases {
            assert_eq!(of("/", &mut hosts(all)), expected, "{all:?}");
        }
        for (name, value, expected) in [
            ("transfer-encoding", "Chunked", None),
            ("transfer-encoding", "gzip", Some(Refusal::UnknownCoding)),
            (
                "transfer-encoding",
                "chunked, chunked",
                Some(Refusal::UnknownCoding),
            ),
            ("expect", "100-Continue", None),
            ("expect", "x", Some(Refusal::UnknownExpectation)),
        ] {
            let mut headers = [("host", "x"), (name, value)].into_iter();
            assert_eq!(of("/", &mut headers), expected, "{name}: {value}");
        }
        assert_eq!(of("*", &mut hosts(&["x"])), Some(Refusal::NoPath));
    }

    #[test]
    fn reasons_stand_in_the_status_line() {
        let response = Refusal::BadBecause("malformed Host header").into_response();
        let reason = response.extensions().get::<ReasonPhrase>().unwrap();
        assert_eq!(reason.as_bytes(), b"Bad Request: malformed Host header");
    }
}
