//! Which exposition formats a scrape asks for, and which one an answer is.
//!
//! As Prometheus 3: a blank or unknown `Content-Type` fails the scrape unless the job names a
//! fallback.

/// A format as `scrape_protocols` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScrapeProtocol {
    PrometheusProto,
    OpenMetricsText1_0_0,
    OpenMetricsText0_0_1,
    PrometheusText1_0_0,
    PrometheusText0_0_4,
}

/// How a body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    OpenMetrics,
    Protobuf,
}

impl ScrapeProtocol {
    /// Those asked for by default, best first.
    pub const DEFAULT: [Self; 4] = [
        Self::OpenMetricsText1_0_0,
        Self::OpenMetricsText0_0_1,
        Self::PrometheusText1_0_0,
        Self::PrometheusText0_0_4,
    ];

    /// All, and the order asked for where native histograms are wanted: no text has them.
    pub const ALL: [Self; 5] = [
        Self::PrometheusProto,
        Self::OpenMetricsText1_0_0,
        Self::OpenMetricsText0_0_1,
        Self::PrometheusText1_0_0,
        Self::PrometheusText0_0_4,
    ];

    /// As the configuration writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PrometheusProto => "PrometheusProto",
            Self::OpenMetricsText1_0_0 => "OpenMetricsText1.0.0",
            Self::OpenMetricsText0_0_1 => "OpenMetricsText0.0.1",
            Self::PrometheusText1_0_0 => "PrometheusText1.0.0",
            Self::PrometheusText0_0_4 => "PrometheusText0.0.4",
        }
    }

    /// The protocol a configuration names.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.as_str() == name)
    }

    fn format(self) -> Format {
        match self {
            Self::PrometheusProto => Format::Protobuf,
            Self::OpenMetricsText1_0_0 | Self::OpenMetricsText0_0_1 => Format::OpenMetrics,
            Self::PrometheusText1_0_0 | Self::PrometheusText0_0_4 => Format::Text,
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::PrometheusProto => {
                "application/vnd.google.protobuf;\
                 proto=io.prometheus.client.MetricFamily;encoding=delimited"
            }
            Self::OpenMetricsText1_0_0 => "application/openmetrics-text;version=1.0.0",
            Self::OpenMetricsText0_0_1 => "application/openmetrics-text;version=0.0.1",
            Self::PrometheusText1_0_0 => "text/plain;version=1.0.0",
            Self::PrometheusText0_0_4 => "text/plain;version=0.0.4",
        }
    }

    /// Whether a request for it says how names are to be escaped.
    fn names_escaping(self) -> bool {
        matches!(self, Self::OpenMetricsText1_0_0 | Self::PrometheusText1_0_0)
    }
}

/// The `Accept` header: the protocols in order of preference, then anything. `escaping` is what
/// becomes of names that are not plain, as `metric_name_escaping_scheme` writes it.
pub fn accept_header(protocols: &[ScrapeProtocol], escaping: &str) -> String {
    // Prometheus counts down from the number of formats it knows, plus one.
    let mut weight = ScrapeProtocol::ALL.len() + 1;
    let mut header = String::new();
    for protocol in protocols {
        header.push_str(protocol.media_type());
        if protocol.names_escaping() {
            header.push_str(&format!(";escaping={escaping}"));
        }
        header.push_str(&format!(";q=0.{weight},"));
        weight -= 1;
    }
    header + &format!("*/*;q=0.{weight}")
}

/// How to read a body of this `Content-Type`; the error is Prometheus' text.
pub fn choose_format(
    content_type: &str,
    fallback: Option<ScrapeProtocol>,
) -> Result<Format, String> {
    let fallback = fallback.map(ScrapeProtocol::format);
    if content_type.is_empty() {
        return fallback.ok_or_else(|| {
            "non-compliant scrape target sending blank Content-Type and no \
             fallback_scrape_protocol specified for target"
                .to_owned()
        });
    }
    let Some(media_type) = media_type(content_type) else {
        return fallback.ok_or_else(|| {
            format!(
                "cannot parse Content-Type {content_type:?} and no fallback_scrape_protocol for \
                 target"
            )
        });
    };
    match media_type.as_str() {
        "text/plain" => Ok(Format::Text),
        "application/openmetrics-text" => Ok(Format::OpenMetrics),
        "application/vnd.google.protobuf" => Ok(Format::Protobuf),
        _ => fallback.ok_or_else(|| {
            format!(
                "received unsupported Content-Type {content_type:?} and no \
                 fallback_scrape_protocol specified for target"
            )
        }),
    }
}

/// The media type in lower case; `None` when the header or its parameters are malformed.
fn media_type(header: &str) -> Option<String> {
    let (media_type, mut rest) = header.split_once(';').unwrap_or((header, ""));
    let media_type = media_type.trim();
    let token = |text: &str| !text.is_empty() && text.bytes().all(is_token);
    let whole = match media_type.split_once('/') {
        Some((a, b)) => token(a) && token(b),
        None => token(media_type),
    };
    if !whole {
        return None;
    }
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Some(media_type.to_ascii_lowercase());
        }
        let (name, value) = rest.split_once('=')?;
        if !token(name.trim_end()) {
            return None;
        }
        let value = value.trim_start();
        rest = match value.strip_prefix('"') {
            Some(quoted) => after_quoted(quoted)?,
            None => value.trim_start_matches(|c: char| c.is_ascii() && is_token(c as u8)),
        };
        if rest.len() == value.len() {
            return None;
        }
        rest = rest.trim_start();
        match rest.strip_prefix(';') {
            Some(next) => rest = next,
            None if rest.is_empty() => {}
            None => return None,
        }
    }
}

/// What follows a quoted string whose opening quote is taken.
fn after_quoted(text: &str) -> Option<&str> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return text.get(at + 1..),
            _ => {}
        }
    }
    None
}

/// RFC 2045's token characters.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As prometheus 3.5.3 sends it.
    #[test]
    fn accept_prefers_openmetrics() {
        assert_eq!(
            accept_header(&ScrapeProtocol::DEFAULT, "allow-utf-8"),
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,\
             text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
             text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
        );
        // With --enable-feature=native-histograms and metric_name_escaping_scheme: underscores.
        assert_eq!(
            accept_header(&ScrapeProtocol::ALL, "underscores"),
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
             encoding=delimited;q=0.6,\
             application/openmetrics-text;version=1.0.0;escaping=underscores;q=0.5,\
             application/openmetrics-text;version=0.0.1;q=0.4,\
             text/plain;version=1.0.0;escaping=underscores;q=0.3,\
             text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
        );
    }

    #[test]
    fn content_types_are_judged_strictly() {
        let fallback = Some(ScrapeProtocol::PrometheusText0_0_4);
        for (header, format) in [
            ("text/plain", Some(Format::Text)),
            (
                "Text/Plain; version=0.0.4; charset=utf-8",
                Some(Format::Text),
            ),
            ("text/plain;a=\"x;\\\"y\" ; b=c;", Some(Format::Text)),
            (
                "application/openmetrics-text; version=1.0.0",
                Some(Format::OpenMetrics),
            ),
            ("", None),
            ("text/html", None),
            ("text", None),
            ("text/plain; version", None),
            ("text/plain; version=", None),
            ("text/plain; v=\"x", None),
            ("text /plain", None),
            (
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily",
                Some(Format::Protobuf),
            ),
        ] {
            assert_eq!(choose_format(header, None).ok(), format, "{header}");
            let or_text = format.unwrap_or(Format::Text);
            assert_eq!(choose_format(header, fallback), Ok(or_text), "{header}");
        }
    }

    #[test]
    fn names_are_those_of_the_configuration() {
        for protocol in ScrapeProtocol::ALL {
            assert_eq!(ScrapeProtocol::from_name(protocol.as_str()), Some(protocol));
        }
        assert_eq!(ScrapeProtocol::from_name("PrometheusText"), None);
    }
}
