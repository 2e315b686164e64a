//! Every error's HTTP code, in one place.
//!
//! Prometheus answers errors in two shapes: JSON below `/api/v1` ([`ApiError`]) and plain text
//! everywhere else ([`TextError`]); Pushgateway knows the text only. Texts of errors are made
//! where they arise, not here.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use federation::read::{ReadError, TooManySamples};
use ingest::push::PushError;
use ingest::push::path::PathError;
use ingest::remote::RemoteError;
use model::sink::WriteError;
use model::source::SourceError;
use promql::QueryError;

use super::body::BodyError;
use super::json;
use crate::queries::Failure;
use crate::queries::memory::Full;

/// Prometheus' kinds of API errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorType {
    Timeout,
    Canceled,
    Execution,
    BadData,
    Internal,
    Unavailable,
    /// Not served, by the operator's choice. Prometheus calls it unavailable, with another code.
    Disabled,
}

impl ErrorType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Canceled => "canceled",
            Self::Execution => "execution",
            Self::BadData => "bad_data",
            Self::Internal => "internal",
            Self::Unavailable | Self::Disabled => "unavailable",
        }
    }

    pub fn status(self) -> StatusCode {
        match self {
            Self::Timeout | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            // nginx' "client closed request", which Prometheus borrows.
            Self::Canceled => StatusCode::from_u16(499).expect("a code of three digits"),
            Self::Execution => StatusCode::UNPROCESSABLE_ENTITY,
            Self::BadData => StatusCode::BAD_REQUEST,
            Self::Internal | Self::Disabled => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// An error below `/api/v1`: `{"status":"error","errorType":…,"error":…}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    pub kind: ErrorType,
    pub message: String,
}

impl ApiError {
    pub fn new(kind: ErrorType, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { kind, message }
    }

    pub fn bad_data(message: impl Into<String>) -> Self {
        Self::new(ErrorType::BadData, message)
    }

    /// `invalid parameter "name": …`.
    pub fn bad_parameter(name: &str, error: impl std::fmt::Display) -> Self {
        Self::bad_data(format!("invalid parameter \"{name}\": {error}"))
    }
}

impl From<SourceError> for ApiError {
    fn from(error: SourceError) -> Self {
        let kind = match &error {
            SourceError::Unavailable(_) | SourceError::Busy(_) => ErrorType::Unavailable,
            SourceError::TooLarge(_) => ErrorType::Execution,
            SourceError::Internal(_) => ErrorType::Internal,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        let kind = match error {
            QueryError::Parse(_) | QueryError::Invalid(_) => {
                return Self::bad_parameter("query", error);
            }
            QueryError::Source(source) => return source.into(),
            QueryError::Execution(_) | QueryError::TooManySamples => ErrorType::Execution,
            QueryError::Timeout => ErrorType::Timeout,
            QueryError::Canceled => ErrorType::Canceled,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        let kind = match failure {
            Failure::Query(error) => return error.into(),
            // Prometheus' own code for a query that waited too long: 422.
            Failure::Queue | Failure::Memory(Full::TooLarge { .. }) => ErrorType::Execution,
            Failure::Memory(Full::Busy { .. }) => ErrorType::Unavailable,
            Failure::Timeout => ErrorType::Timeout,
        };
        Self::new(kind, failure.to_string())
    }
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        let kind = match error {
            BodyError::TooLarge(_)
            | BodyError::LineTooLong(_)
            | BodyError::Broken(_)
            | BodyError::TooSlow => ErrorType::BadData,
            BodyError::Overloaded => ErrorType::Unavailable,
        };
        Self::new(kind, format!("error parsing form values: {error}"))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let kind = [(header::CONTENT_TYPE, "application/json")];
        (self.kind.status(), kind, json::error(&self)).into_response()
    }
}

/// An error as Go's `http.Error` writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextError {
    pub status: StatusCode,
    pub message: String,
}

impl TextError {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { status, message }
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }
}

/// Says after how many seconds a request may succeed that is refused for now: whoever answers with
/// 429 or 503 tells it, and so none can forget it.
pub fn tell_when(response: &mut Response) {
    let codes = [
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::SERVICE_UNAVAILABLE,
    ];
    if codes.contains(&response.status()) {
        let one_second = HeaderValue::from_static("1");
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, one_second);
    }
}

impl From<WriteError> for TextError {
    fn from(error: WriteError) -> Self {
        let text = error.to_string();
        match error {
            WriteError::Unavailable(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, text),
            WriteError::Overloaded(_) => Self::new(StatusCode::TOO_MANY_REQUESTS, text),
            WriteError::Failed(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, text),
            WriteError::Invalid(_) | WriteError::Inconsistent(_) => Self::bad_request(text),
        }
    }
}

impl From<SourceError> for TextError {
    fn from(error: SourceError) -> Self {
        let text = error.to_string();
        match error {
            SourceError::Unavailable(_) | SourceError::Busy(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, text)
            }
            SourceError::TooLarge(_) => Self::bad_request(text),
            SourceError::Internal(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, text),
        }
    }
}

impl From<RemoteError> for TextError {
    fn from(error: RemoteError) -> Self {
        match error {
            // Prometheus gives 400 for a request that unpacks to too much, too: the same one can
            // never pass.
            RemoteError::TooLarge { .. }
            | RemoteError::TooMuch { .. }
            | RemoteError::TooManySymbols
            | RemoteError::Snappy(_)
            | RemoteError::Protobuf(_) => Self::bad_request(error.to_string()),
        }
    }
}

impl From<ReadError> for TextError {
    fn from(error: ReadError) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<Full> for TextError {
    fn from(full: Full) -> Self {
        let status = match full {
            Full::TooLarge { .. } => StatusCode::BAD_REQUEST,
            Full::Busy { .. } => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, full.to_string())
    }
}

impl From<TooManySamples> for TextError {
    fn from(error: TooManySamples) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<PathError> for TextError {
    fn from(error: PathError) -> Self {
        let status = match error {
            PathError::NotFound => StatusCode::NOT_FOUND,
            PathError::Invalid(_) => StatusCode::BAD_REQUEST,
        };
        Self::new(status, error.to_string())
    }
}

impl From<PushError> for TextError {
    fn from(error: PushError) -> Self {
        match error {
            PushError::Format { .. }
            | PushError::Protobuf(_)
            | PushError::Timestamps
            | PushError::Inconsistent(_) => Self::bad_request(error.to_string()),
        }
    }
}

impl From<BodyError> for TextError {
    fn from(error: BodyError) -> Self {
        let text = error.to_string();
        match error {
            BodyError::TooLarge(_) => Self::new(StatusCode::PAYLOAD_TOO_LARGE, text),
            BodyError::Broken(_) | BodyError::LineTooLong(_) => Self::bad_request(text),
            BodyError::TooSlow => Self::new(StatusCode::REQUEST_TIMEOUT, text),
            BodyError::Overloaded => Self::new(StatusCode::TOO_MANY_REQUESTS, text),
        }
    }
}

impl IntoResponse for TextError {
    fn into_response(self) -> Response {
        let headers = [
            (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        let mut response = (self.status, headers, self.message + "\n").into_response();
        tell_when(&mut response);
        response
    }
}

/// 404, for every path nobody serves.
pub async fn not_found() -> TextError {
    TextError::new(StatusCode::NOT_FOUND, "404 page not found")
}

/// 405, with the methods there are.
pub fn method_not_allowed(allow: &'static str) -> Response {
    let error = TextError::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    ([(header::ALLOW, allow)], error).into_response()
}

#[cfg(test)]
mod tests {
    use model::ShardId;

    use super::*;

    #[test]
    fn writes_say_whether_to_come_again() {
        let codes = [
            WriteError::Unavailable(vec![ShardId(1)]),
            WriteError::Overloaded("x".into()),
            WriteError::Invalid("x".into()),
        ]
        .map(|e| {
            let response = TextError::from(e).into_response();
            let retry = response.headers().get(header::RETRY_AFTER).cloned();
            (response.status().as_u16(), retry.is_some())
        });
        assert_eq!(codes, [(503, true), (429, true), (400, false)]);
    }

    #[test]
    fn queries_fail_with_prometheus_codes() {
        let source = |e| ApiError::from(QueryError::Source(e));
        for (error, code, kind) in [
            (source(SourceError::Unavailable(vec![])), 503, "unavailable"),
            (source(SourceError::TooLarge("x".into())), 422, "execution"),
            (source(SourceError::Internal("x".into())), 500, "internal"),
            (QueryError::Timeout.into(), 503, "timeout"),
            (QueryError::Canceled.into(), 499, "canceled"),
            (QueryError::TooManySamples.into(), 422, "execution"),
            (QueryError::Invalid("x".into()).into(), 400, "bad_data"),
        ] {
            assert_eq!(error.kind.as_str(), kind);
            assert_eq!(error.into_response().status().as_u16(), code);
        }
    }
}
