//! Parameters of a request: a form in the body, then the URL's query, then a form in parts, as Go's
//! `ParseForm` and `ParseMultipartForm` read them, and Prometheus' words for what is wrong with one.
//!
//! Promise: any bytes are a form; bytes that are not UTF-8 become replacement characters, which no
//! parser behind accepts in a name. Not here: what a parameter is for.

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use model::hash::Set;
use model::limits::FORM_BYTES_MAX;
use model::source::Consistency;
use model::time::parse_duration;
use model::{Matcher, Timestamp, number};

use super::errors::ApiError;
use super::media::Media;
use super::moment::Moment;
use super::{Shared, body, multipart};
use crate::queries::log::Origin;

/// What Prometheus takes for "since ever" and "for ever": as far as its calendar goes.
pub const MIN_TIME: Timestamp = Timestamp(-9_223_309_901_257_974_000);
pub const MAX_TIME: Timestamp = Timestamp(9_223_309_901_257_974_999);

/// Of a selector that chooses everything.
const EMPTY: &str = "match[] must contain at least one non-empty matcher";

/// Name and value pairs in order; the body's stand in front of the URL's.
#[derive(Debug, Default)]
pub struct Form {
    pairs: Vec<(String, String)>,
    /// How many of the pairs did not come as `multipart/form-data`.
    plain: usize,
    /// The first thing that was wrong; the pair concerned is left out.
    error: Option<String>,
}

impl Form {
    /// The pairs of a URL's query or of a form.
    pub fn parse(text: &[u8]) -> Self {
        let mut form = Self::default();
        form.add(text);
        form.plain = form.pairs.len();
        form
    }

    /// Without what came as `multipart/form-data`, where Prometheus does not look for that.
    pub fn plain(mut self) -> Self {
        self.pairs.truncate(self.plain);
        self
    }

    fn add(&mut self, text: &[u8]) {
        for pair in text.split(|&b| b == b'&').filter(|p| !p.is_empty()) {
            match parse_pair(pair) {
                Ok(pair) => self.pairs.push(pair),
                Err(e) => drop(self.error.get_or_insert(e)),
            }
        }
    }

    /// The first value of `name`; empty when there is none.
    pub fn first(&self, name: &str) -> &str {
        self.all(name).next().unwrap_or_default()
    }

    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let named = self.pairs.iter().filter(move |(n, _)| n == name);
        named.map(|(_, value)| value.as_str())
    }

    /// Fails if anything in the form was malformed: some endpoints insist.
    pub fn strict(&self) -> Result<&Self, String> {
        match &self.error {
            Some(error) => Err(format!("error parsing form values: {error}")),
            None => Ok(self),
        }
    }

    /// An instant that must be given.
    pub fn moment(&self, name: &str) -> Result<Moment, ApiError> {
        Moment::parse(self.first(name)).map_err(|e| ApiError::bad_parameter(name, e))
    }

    /// An instant that may be left out.
    pub fn moment_or(&self, name: &str, default: Timestamp) -> Result<Moment, ApiError> {
        match self.first(name) {
            "" => Ok(default.into()),
            text => Moment::parse(text).map_err(|e| {
                ApiError::bad_parameter(name, format!("invalid time value for '{name}': {e}"))
            }),
        }
    }

    /// As [`Self::moment_or`], outside queries.
    pub fn time_or(&self, name: &str, default: Timestamp) -> Result<Timestamp, ApiError> {
        self.moment_or(name, default).map(Moment::timestamp)
    }

    /// How many results are wanted; `None` for all.
    pub fn limit(&self) -> Result<Option<usize>, ApiError> {
        let text = self.first("limit");
        if text.is_empty() {
            return Ok(None);
        }
        let bad = |e| ApiError::bad_parameter("limit", e);
        match parse_integer(text) {
            Ok(limit) if limit < 0 => Err(bad("limit must be non-negative".to_owned())),
            Ok(0) => Ok(None),
            Ok(limit) => Ok(Some(usize::try_from(limit).unwrap_or(usize::MAX))),
            Err(why) => Err(bad(format!("strconv.Atoi: parsing {}: {why}", quote(text)))),
        }
    }

    /// How fresh the answer must be: `consistency=` or `X-Read-Consistency`.
    pub fn consistency(&self, headers: &HeaderMap) -> Result<Consistency, String> {
        let header = headers.get("x-read-consistency");
        let asked = match self.first("consistency") {
            "" => header.map_or(Ok(""), |h| h.to_str()).unwrap_or("?"),
            text => text,
        };
        match asked {
            "" | "strong" => Ok(Consistency::Strong),
            "local" => Ok(Consistency::Local),
            other => Err(format!(
                "unknown read consistency {}, known are strong and local",
                quote(other)
            )),
        }
    }

    /// One list of matchers per `match[]`, each of which names something.
    pub fn matchers(&self) -> Result<Vec<Vec<Matcher>>, String> {
        let mut seen = Set::default();
        // What is asked for twice is looked for once.
        let texts = self.all("match[]").filter(|text| seen.insert(*text));
        let lists: Result<Vec<_>, _> = texts.map(promql::parse_matchers).collect();
        let lists = lists.map_err(|e| e.to_string())?;
        match lists.iter().any(|l| l.iter().all(Matcher::matches_empty)) {
            true => Err(EMPTY.to_owned()),
            false => Ok(lists),
        }
    }
}

impl FromRequest<Shared> for Form {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Shared) -> Result<Self, ApiError> {
        let (parts, incoming) = request.into_parts();
        let mut form = Self::default();
        let kind = parts.headers.get(header::CONTENT_TYPE);
        let kind = kind.and_then(|k| k.to_str().ok()).unwrap_or_default();
        let boundary = multipart::boundary(kind);
        let mut bytes = None;
        if parts.method == Method::POST && !kind.is_empty() {
            let media = Media::parse(kind);
            form.error = media.error.map(str::to_owned);
            if media.kind == FORM || boundary.is_some() {
                bytes = Some(body::read(incoming, FORM_BYTES_MAX, &api.body_budget).await?);
            }
        }
        if let (Some(bytes), None) = (&bytes, &boundary) {
            form.add(bytes);
        }
        form.add(parts.uri.query().unwrap_or_default().as_bytes());
        form.plain = form.pairs.len();
        if let (Some(bytes), Some(boundary)) = (&bytes, &boundary) {
            let fields = multipart::read(bytes, boundary).into_iter();
            form.pairs.extend(fields.map(|(n, v)| (text(n), text(v))));
        }
        Ok(form)
    }
}

/// The address a request came from; a listener puts it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// Who asks, for the log of queries.
#[derive(Debug)]
pub struct Asker(pub Origin);

impl<S: Sync> FromRequestParts<S> for Asker {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let peer = parts.extensions.get::<Peer>();
        Ok(Self(Origin {
            client: peer.map(|peer| peer.0.ip().to_string()).unwrap_or_default(),
            method: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
        }))
    }
}

const FORM: &str = "application/x-www-form-urlencoded";

fn parse_pair(pair: &[u8]) -> Result<(String, String), String> {
    if pair.contains(&b';') {
        return Err("invalid semicolon separator in query".to_owned());
    }
    let mut halves = pair.splitn(2, |&b| b == b'=');
    let mut half = || unescape(halves.next().unwrap_or_default(), true);
    let (name, value) = (half()?, half()?);
    Ok((text(name), text(value)))
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Undoes percent-encoding, and `+` for a space where `plus` says so.
pub fn unescape(text: &[u8], plus: bool) -> Result<Vec<u8>, String> {
    let hex = |b: &u8| char::from(*b).to_digit(16).map(|d| d as u8);
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'%' => match tail {
                [high, low, tail @ ..] if hex(high).is_some() && hex(low).is_some() => {
                    out.push(hex(high).unwrap_or(0) << 4 | hex(low).unwrap_or(0));
                    rest = tail;
                }
                _ => {
                    let shown: Vec<u8> = [b'%'].iter().chain(tail).take(3).copied().collect();
                    return Err(format!("invalid URL escape {}", quote_bytes(&shown)));
                }
            },
            b'+' if plus => out.push(b' '),
            _ => out.push(byte),
        }
    }
    Ok(out)
}

/// Seconds as a float, or `5m`; in nanoseconds, and possibly below zero.
pub fn parse_nanos(text: &str) -> Result<i64, String> {
    let cannot = || format!("cannot parse {} to a valid duration", quote(text));
    if let Some(seconds) = number::parse_literal(text) {
        let nanos = seconds * 1e9;
        if nanos.abs() > NANOS_END {
            return Err(cannot() + ". It overflows int64");
        }
        // What Prometheus makes of the first value too large for it, and of no number at all.
        let is_number = nanos < NANOS_END;
        return Ok(if is_number { nanos as i64 } else { i64::MIN });
    }
    let duration = parse_duration(text).map_err(|_| cannot())?;
    i64::try_from(duration.as_nanos()).map_err(|_| cannot())
}

/// The first count of nanoseconds that is too large.
const NANOS_END: f64 = 9_223_372_036_854_775_808.0;

/// A whole number, or why not in Go's words.
pub fn parse_integer(text: &str) -> Result<i64, &'static str> {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    text.parse::<i64>().map_err(|e| match e.kind() {
        PosOverflow | NegOverflow => "value out of range",
        _ => "invalid syntax",
    })
}

/// What Go takes for a truth value.
pub fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!(
            "strconv.ParseBool: parsing {}: invalid syntax",
            quote(text)
        )),
    }
}

/// `text` as Go's `%q` shows it in messages.
pub fn quote(text: &str) -> String {
    quote_bytes(text.as_bytes())
}

/// As `quote`, for bytes that need not be UTF-8.
pub fn quote_bytes(bytes: &[u8]) -> String {
    let mut quoted = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => quoted.extend(['\\', c]),
                '\n' => quoted.push_str("\\n"),
                '\r' => quoted.push_str("\\r"),
                '\t' => quoted.push_str("\\t"),
                '\0'..='\u{1f}' | '\u{7f}' => quoted.push_str(&format!("\\x{:02x}", c as u32)),
                _ => quoted.push(c),
            }
        }
        for byte in chunk.invalid() {
            quoted.push_str(&format!("\\x{byte:02x}"));
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn forms_read_as_go_reads_them() {
        let form = Form::parse(b"a=1&b=x+y%2B&a=2&&empty&%ff=%ff&=v");
        assert_eq!(form.first("a"), "1");
        assert_eq!(form.all("a").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(form.first("b"), "x y+");
        assert_eq!(form.first("empty"), "");
        assert_eq!(form.first("\u{fffd}"), "\u{fffd}");
        assert!(form.strict().is_ok());
    }

    /// `curl ':9090/api/v1/series?match[]=up&x=%zz'` at Prometheus 3.5.3.
    #[test]
    fn malformed_pairs_are_left_out_and_named() {
        let form = Form::parse(b"x=%zz&a=1;b=2&c=%1&d=4");
        assert_eq!(form.first("d"), "4");
        assert_eq!(form.pairs.len(), 1);
        assert_eq!(
            form.strict().unwrap_err(),
            "error parsing form values: invalid URL escape \"%zz\""
        );
    }

    #[test]
    fn durations_are_seconds_or_units() {
        assert_eq!(parse_nanos("2s"), Ok(2_000_000_000));
        assert_eq!(parse_nanos("0.0001"), Ok(100_000));
        assert_eq!(parse_nanos("-1"), Ok(-1_000_000_000));
        // Both are no duration longer than nothing, so no step and no lookback.
        assert_eq!(parse_nanos("NaN"), Ok(i64::MIN));
        assert_eq!(parse_nanos("9223372036.854775807"), Ok(i64::MIN));
        assert_eq!(parse_nanos("1_0"), Ok(10_000_000_000));
        assert_eq!(parse_nanos("0x1p-1"), Ok(500_000_000));
        assert_eq!(
            parse_nanos("1e300"),
            Err("cannot parse \"1e300\" to a valid duration. It overflows int64".to_owned())
        );
        assert_eq!(
            parse_nanos("1ns"),
            Err("cannot parse \"1ns\" to a valid duration".to_owned())
        );
    }

    #[test]
    fn limits_are_words_of_go() {
        let limit = |text: &str| Form::parse(format!("limit={text}").as_bytes()).limit();
        assert_eq!(limit("7"), Ok(Some(7)));
        assert_eq!(limit("0"), Ok(None));
        let error = |text| limit(text).unwrap_err().message;
        assert_eq!(
            error("x"),
            "invalid parameter \"limit\": strconv.Atoi: parsing \"x\": invalid syntax"
        );
        assert_eq!(
            error("-1"),
            "invalid parameter \"limit\": limit must be non-negative"
        );
        assert!(error("99999999999999999999").ends_with("value out of range"));
    }

    #[test]
    fn consistency_is_a_parameter_or_a_header() {
        let mut headers = HeaderMap::new();
        let none = Form::default();
        assert_eq!(none.consistency(&headers), Ok(Consistency::Strong));
        let local = Form::parse(b"consistency=local");
        assert_eq!(local.consistency(&headers), Ok(Consistency::Local));
        headers.insert("x-read-consistency", "local".parse().unwrap());
        assert_eq!(none.consistency(&headers), Ok(Consistency::Local));
        headers.insert("x-read-consistency", "lokal".parse().unwrap());
        assert!(none.consistency(&headers).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_form(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let form = Form::parse(&bytes);
            form.first("a");
        }

        #[test]
        fn any_text_is_a_time_or_an_error(text in "\\PC{0,30}|[0-9.eE+-]{0,30}") {
            if let Ok(moment) = Moment::parse(&text) {
                prop_assert!((MIN_TIME..=MAX_TIME).contains(&moment.timestamp()));
                prop_assert!(moment.of_query().0.abs() <= i64::MAX / 1_000_000);
            }
            let _ = parse_nanos(&text);
        }
    }
}
