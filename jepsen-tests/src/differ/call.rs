//! A request of any kind, for answers that are compared as a whole.

use bytes::Bytes;
use hyper::Method;
use prost::Message;
use proto::remote;

use super::data::Series;
use super::question::{Asked, escaped};
use super::wire;

type Headers = &'static [(&'static str, &'static str)];

const FORM: Headers = &[("content-type", "application/x-www-form-urlencoded")];
const PROTOBUF: Headers = &[
    ("content-type", "application/x-protobuf"),
    ("content-encoding", "snappy"),
    ("x-prometheus-remote-read-version", "0.1.0"),
];

/// Name, operator and value of each.
pub type Matchers = &'static [(&'static str, &'static str, &'static str)];

#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// For people.
    pub line: String,
    pub method: Method,
    pub path: String,
    pub headers: Headers,
    pub body: Bytes,
}

impl Call {
    /// A query, whatever the server's own lookback.
    pub fn query(asked: &Asked) -> Self {
        let (path, form) = asked.request();
        let form = [&form[..], b"&lookback_delta=300"].concat();
        Self {
            line: asked.line(),
            method: Method::POST,
            path: path.to_owned(),
            headers: FORM,
            body: form.into(),
        }
    }

    /// With the server's own lookback.
    pub fn far_query(asked: &Asked) -> Self {
        let (path, form) = asked.request();
        Self {
            line: format!("{}, looking far back", asked.line()),
            method: Method::POST,
            path: path.to_owned(),
            headers: FORM,
            body: form,
        }
    }

    pub fn get(path: &str, parameters: &[(&str, String)], headers: Headers) -> Self {
        let pairs = parameters.iter();
        let pairs: Vec<String> = pairs
            .map(|(name, value)| format!("{}={}", escaped(name), escaped(value)))
            .collect();
        let shown = parameters.iter().map(|(n, v)| format!(" {n}={v}"));
        Self {
            line: format!("{path}{}", shown.collect::<String>()),
            method: Method::GET,
            path: format!("{path}?{}", pairs.join("&")),
            headers,
            body: Bytes::new(),
        }
    }

    /// An order to the API.
    pub fn order(path: &str, parameters: &[(&str, String)]) -> Self {
        Self {
            method: Method::POST,
            ..Self::get(path, parameters, &[])
        }
    }

    /// A remote read, answered by samples or by chunks.
    pub fn read(matchers: Matchers, start_ms: i64, end_ms: i64, chunks: bool) -> Self {
        use remote::read_request::ResponseType;
        let query = remote::Query {
            start_timestamp_ms: start_ms,
            end_timestamp_ms: end_ms,
            matchers: matchers.iter().copied().map(matcher).collect(),
            hints: None,
        };
        let types = match chunks {
            true => vec![ResponseType::StreamedXorChunks as i32],
            false => Vec::new(),
        };
        let request = remote::ReadRequest {
            queries: vec![query],
            accepted_response_types: types,
        };
        let kind = if chunks { "chunks" } else { "samples" };
        Self {
            line: format!(
                "remote read of {kind} {} {start_ms} to {end_ms}",
                selector(matchers)
            ),
            method: Method::POST,
            path: "/api/v1/read".to_owned(),
            headers: PROTOBUF,
            body: packed(&request.encode_to_vec()),
        }
    }

    /// A remote write.
    pub fn write(series: &[Series]) -> anyhow::Result<Self> {
        Ok(Self {
            line: format!("a write of {} series", series.len()),
            method: Method::POST,
            path: "/api/v1/write".to_owned(),
            headers: &wire::HEADERS,
            body: wire::body(series)?,
        })
    }
}

fn packed(bytes: &[u8]) -> Bytes {
    let packed = snap::raw::Encoder::new().compress_vec(bytes);
    packed.expect("a request is small").into()
}

fn matcher((name, op, value): (&str, &str, &str)) -> remote::LabelMatcher {
    use remote::label_matcher::Type;
    let kind = match op {
        "=" => Type::Eq,
        "!=" => Type::Neq,
        "=~" => Type::Re,
        _ => Type::Nre,
    };
    remote::LabelMatcher {
        r#type: kind as i32,
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

/// Matchers as PromQL writes them.
pub fn selector(matchers: Matchers) -> String {
    let all = matchers.iter();
    let all: Vec<String> = all.map(|(n, op, v)| format!("{n:?}{op}{v:?}")).collect();
    format!("{{{}}}", all.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_escaped_and_shown() {
        let call = Call::get("/x", &[("match[]", "{a=\"é\"}".to_owned())], &[]);
        assert_eq!(call.path, "/x?match%5B%5D=%7Ba%3D%22%C3%A9%22%7D");
        assert_eq!(call.line, "/x match[]={a=\"é\"}");
    }

    #[test]
    fn a_remote_read_carries_its_matchers() {
        let call = Call::read(&[("a", "!~", "b")], 1, 2, true);
        let bytes = snap::raw::Decoder::new()
            .decompress_vec(&call.body)
            .unwrap();
        let request = remote::ReadRequest::decode(&bytes[..]).unwrap();
        let matcher = &request.queries[0].matchers[0];
        assert_eq!(
            (&*matcher.name, matcher.r#type, &*matcher.value),
            ("a", 3, "b")
        );
        assert_eq!(request.accepted_response_types, [1]);
        assert_eq!(selector(&[("a", "!~", "b")]), r#"{"a"!~"b"}"#);
    }
}
