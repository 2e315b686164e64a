//! What an exporter is told: how much was rejected, or why nothing was taken.
//!
//! Formats: `ExportMetricsServiceResponse`, and `google.rpc.Status` where the code is not 200, each
//! in the encoding of the request (opentelemetry.io/docs/specs/otlp, "Success" and "Failures").

use prost::Message;
use proto::otlp as wire;
use serde_json::json;

/// How a request and its answer are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Protobuf,
    Json,
}

impl Encoding {
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }
}

/// The answer when everything is decided: `rejected` data points were not stored, the text says why.
pub fn decided(encoding: Encoding, rejected: u64, text: &str) -> Vec<u8> {
    let is_whole = rejected == 0 && text.is_empty();
    match encoding {
        Encoding::Protobuf => {
            let partial = wire::ExportMetricsPartialSuccess {
                rejected_data_points: i64::try_from(rejected).unwrap_or(i64::MAX),
                error_message: text.to_owned(),
            };
            wire::ExportMetricsServiceResponse {
                partial_success: (!is_whole).then_some(partial),
            }
            .encode_to_vec()
        }
        Encoding::Json if is_whole => b"{}".to_vec(),
        Encoding::Json => {
            let partial = json!({
                "rejectedDataPoints": rejected.to_string(),
                "errorMessage": text,
            });
            json!({ "partialSuccess": partial })
                .to_string()
                .into_bytes()
        }
    }
}

/// The answer when nothing was taken; `code` is gRPC's.
pub fn failed(encoding: Encoding, code: i32, text: &str) -> Vec<u8> {
    match encoding {
        Encoding::Protobuf => wire::Status {
            code,
            message: text.to_owned(),
        }
        .encode_to_vec(),
        Encoding::Json => json!({ "code": code, "message": text })
            .to_string()
            .into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_protocol() {
        let whole = |encoding| decided(encoding, 0, "");
        assert_eq!(whole(Encoding::Protobuf), b"");
        assert_eq!(whole(Encoding::Json), b"{}");
        assert_eq!(
            decided(Encoding::Protobuf, 3, "x"),
            b"\x0a\x05\x08\x03\x12\x01x"
        );
        assert_eq!(
            decided(Encoding::Json, 3, "x"),
            br#"{"partialSuccess":{"errorMessage":"x","rejectedDataPoints":"3"}}"#
        );
        assert_eq!(failed(Encoding::Protobuf, 3, "x"), b"\x08\x03\x12\x01x");
        assert_eq!(
            failed(Encoding::Json, 14, "x"),
            br#"{"code":14,"message":"x"}"#
        );
    }
}
