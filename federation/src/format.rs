//! Which form of an exposition a reader asked for.
//!
//! As prometheus/common's `expfmt.Negotiate`: text, or protobuf in one of three encodings. Not
//! here: OpenMetrics, which `/federate` of Prometheus 3.5 does not speak either; a reader that asks
//! for it gets text.

use crate::escaping::{Escaping, by_preference};

/// How families are written.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    #[default]
    Text,
    /// Each family behind its length.
    Delimited,
    /// Protobuf's text form, over lines.
    ProtoText,
    /// The same, a family a line.
    CompactText,
}

/// A form and what becomes of names that are not plain.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    pub encoding: Encoding,
    pub escaping: Escaping,
}

const PROTOBUF: &str = "application/vnd.google.protobuf";
const FAMILY: &str = "io.prometheus.client.MetricFamily";

impl Format {
    /// The first form we have by falling preference; the escaping is the last known one named up
    /// to there.
    pub fn negotiate(accept: &str) -> Self {
        let mut format = Self::default();
        for range in by_preference(accept) {
            let asked = range.parameter("escaping").and_then(Escaping::of_name);
            format.escaping = asked.unwrap_or(format.escaping);
            let version = range.parameter("version").unwrap_or_default();
            if range.kind == PROTOBUF && range.parameter("proto") == Some(FAMILY) {
                format.encoding = match range.parameter("encoding") {
                    Some("delimited") => Encoding::Delimited,
                    Some("text") => Encoding::ProtoText,
                    Some("compact-text") => Encoding::CompactText,
                    _ => continue,
                };
                break;
            }
            if range.kind == "text/plain" && matches!(version, "" | "0.0.4") {
                break;
            }
        }
        format
    }

    pub fn content_type(self) -> String {
        let encoding = match self.encoding {
            Encoding::Text => return self.escaping.content_type().to_owned(),
            Encoding::Delimited => "delimited",
            Encoding::ProtoText => "text",
            Encoding::CompactText => "compact-text",
        };
        let escaping = self.escaping.as_str();
        format!("{PROTOBUF}; proto={FAMILY}; encoding={encoding}; escaping={escaping}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen at Prometheus 3.5.3, by the Content-Type that came back.
    #[test]
    fn the_form_is_negotiated_as_prometheus_does() {
        let text = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";
        let family = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily";
        let proto = |encoding, escaping| {
            format!(
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; \
                 encoding={encoding}; escaping={escaping}"
            )
        };
        for (accept, kind) in [
            (
                format!(
                    "{family};encoding=delimited;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
                ),
                proto("delimited", "underscores"),
            ),
            (
                format!("{family};encoding=text;escaping=allow-utf-8"),
                proto("text", "allow-utf-8"),
            ),
            (
                format!("{family};encoding=compact-text"),
                proto("compact-text", "underscores"),
            ),
            (
                format!("text/plain,{family};encoding=delimited;q=0.5"),
                text.to_owned(),
            ),
            (format!("{family};encoding=other"), text.to_owned()),
            (
                "application/vnd.google.protobuf;encoding=delimited".to_owned(),
                text.to_owned(),
            ),
            (
                "application/openmetrics-text;version=1.0.0".to_owned(),
                text.to_owned(),
            ),
        ] {
            assert_eq!(Format::negotiate(&accept).content_type(), kind, "{accept}");
        }
    }
}
