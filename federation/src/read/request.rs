//! A remote read request: snappy's block format around a `ReadRequest`.

use model::limits;
use model::{MatchOp, Matcher, Timestamp};
use prost::Message;
use proto::remote::label_matcher::Type;
use proto::remote::read_request::ResponseType;
use proto::remote::{self as wire, ReadRequest};

/// A decoded request.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub queries: Vec<Query>,
    pub answer: Answer,
}

/// Samples with `start <= t <= end` of series that match every matcher; without a matcher, of none.
/// Where the reader gives hints their times count, as in Prometheus.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    pub start: Timestamp,
    pub end: Timestamp,
    pub matchers: Vec<Matcher>,
    /// Only which series there are is asked.
    pub labels_only: bool,
}

/// The form the reader asked for first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Samples,
    Chunks,
}

/// Why a request is not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("request of {bytes} bytes, the limit is {bytes_max}")]
    TooLarge { bytes: usize, bytes_max: usize },
    #[error("snappy: corrupt input")]
    Snappy(#[source] snap::Error),
    #[error("read request: {0}")]
    Protobuf(String),
    #[error("more than {0} queries in one request")]
    TooManyQueries(usize),
    #[error(
        "server does not support any of the requested response types: {0:?}; \
         supported: map[SAMPLES:{{}} STREAMED_XOR_CHUNKS:{{}}]"
    )]
    Answer(Vec<i32>),
    #[error("invalid matcher type")]
    MatcherType,
    #[error("{0}")]
    Matcher(String),
}

/// Decodes a body. Nothing is allocated for what it only claims to hold.
pub fn decode(body: &[u8]) -> Result<Request, ReadError> {
    let snappy = ReadError::Snappy;
    let declared = snap::raw::decompress_len(body).map_err(snappy)?;
    for bytes in [body.len(), declared] {
        let bytes_max = limits::READ_REQUEST_BYTES_MAX;
        if bytes > bytes_max {
            return Err(ReadError::TooLarge { bytes, bytes_max });
        }
    }
    let message = snap::raw::Decoder::new().decompress_vec(body);
    let message = ReadRequest::decode(&*message.map_err(snappy)?);
    let message = message.map_err(|e| ReadError::Protobuf(e.to_string()))?;
    if message.queries.len() > limits::READ_QUERIES_MAX {
        return Err(ReadError::TooManyQueries(limits::READ_QUERIES_MAX));
    }
    let queries = message.queries.iter().map(query);
    Ok(Request {
        answer: answer(&message.accepted_response_types)?,
        queries: queries.collect::<Result<_, _>>()?,
    })
}

/// The first form we know; a reader that names none wants samples.
fn answer(accepted: &[i32]) -> Result<Answer, ReadError> {
    let known = accepted.iter().find_map(|kind| {
        Some(match ResponseType::try_from(*kind).ok()? {
            ResponseType::Samples => Answer::Samples,
            ResponseType::StreamedXorChunks => Answer::Chunks,
        })
    });
    match known {
        None if accepted.is_empty() => Ok(Answer::Samples),
        known => known.ok_or_else(|| ReadError::Answer(accepted.to_vec())),
    }
}

fn query(query: &wire::Query) -> Result<Query, ReadError> {
    let matchers = query.matchers.iter().map(matcher);
    let (start, end) = match &query.hints {
        Some(hints) => (hints.start_ms, hints.end_ms),
        None => (query.start_timestamp_ms, query.end_timestamp_ms),
    };
    Ok(Query {
        start: Timestamp(start),
        end: Timestamp(end),
        matchers: matchers.collect::<Result<_, _>>()?,
        labels_only: query
            .hints
            .as_ref()
            .is_some_and(|hints| hints.func == "series"),
    })
}

fn matcher(matcher: &wire::LabelMatcher) -> Result<Matcher, ReadError> {
    let op = match Type::try_from(matcher.r#type) {
        Ok(Type::Eq) => MatchOp::Equal,
        Ok(Type::Neq) => MatchOp::NotEqual,
        Ok(Type::Re) => MatchOp::Regex,
        Ok(Type::Nre) => MatchOp::NotRegex,
        Err(_) => return Err(ReadError::MatcherType),
    };
    let matcher = Matcher::new(op, &matcher.name, &matcher.value);
    matcher.map_err(|e| ReadError::Matcher(e.to_string()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn body(request: &ReadRequest) -> Vec<u8> {
        let message = request.encode_to_vec();
        snap::raw::Encoder::new().compress_vec(&message).unwrap()
    }

    fn request(accepted: &[i32], kind: i32, value: &str) -> ReadRequest {
        ReadRequest {
            queries: vec![wire::Query {
                start_timestamp_ms: -5,
                end_timestamp_ms: 7,
                matchers: vec![wire::LabelMatcher {
                    r#type: kind,
                    name: "job".to_owned(),
                    value: value.to_owned(),
                }],
                hints: None,
            }],
            accepted_response_types: accepted.to_vec(),
        }
    }

    #[test]
    fn queries_and_the_first_known_form_are_read() {
        for (accepted, answer) in [
            (&[][..], Answer::Samples),
            (&[1, 0], Answer::Chunks),
            (&[9, 0, 1], Answer::Samples),
        ] {
            let decoded = decode(&body(&request(accepted, 2, "a.*"))).unwrap();
            assert_eq!(decoded.answer, answer);
            let query = &decoded.queries[0];
            assert_eq!((query.start, query.end), (Timestamp(-5), Timestamp(7)));
            let matcher = Matcher::new(MatchOp::Regex, "job", "a.*").unwrap();
            assert_eq!(query.matchers, [matcher]);
        }
    }

    /// Prometheus 3.5.3.
    #[test]
    fn times_of_hints_count() {
        let mut asked = request(&[], 0, "a");
        let hints = |func: &str| wire::ReadHints {
            func: func.to_owned(),
            start_ms: 1,
            end_ms: 2,
        };
        for (func, labels_only) in [("rate", false), ("series", true)] {
            asked.queries[0].hints = Some(hints(func));
            let decoded = decode(&body(&asked)).unwrap();
            let query = &decoded.queries[0];
            assert_eq!((query.start, query.end), (Timestamp(1), Timestamp(2)));
            assert_eq!(query.labels_only, labels_only);
        }
    }

    #[test]
    fn what_cannot_be_answered_is_named() {
        assert_eq!(
            decode(&body(&request(&[9], 0, ""))),
            Err(ReadError::Answer(vec![9]))
        );
        assert_eq!(
            decode(&body(&request(&[], 4, ""))),
            Err(ReadError::MatcherType)
        );
        assert!(matches!(
            decode(&body(&request(&[], 2, "("))),
            Err(ReadError::Matcher(_))
        ));
        assert!(matches!(
            decode(b"\xff\xff\xff\xff\x0f\x00"),
            Err(ReadError::TooLarge { .. })
        ));
        assert!(matches!(decode(b"\x05ab"), Err(ReadError::Snappy(_))));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
            let _ = decode(&snap::raw::Encoder::new().compress_vec(&bytes).unwrap());
        }
    }
}
