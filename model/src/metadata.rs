//! What metrics mean: type, help and unit of a family, and where such words are kept.
//!
//! A family is what an exposition puts under one `# TYPE` line. What its series are called follows
//! from its type: [`family_of`] leads from a series to it.

use async_trait::async_trait;

use crate::sink::WriteError;
use crate::source::SourceError;

/// The type of a family, as OpenMetrics has it. The order is that of remote write's numbers.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MetricKind {
    #[default]
    Unknown,
    Counter,
    Gauge,
    Histogram,
    GaugeHistogram,
    Summary,
    Info,
    StateSet,
}

impl MetricKind {
    const ALL: [Self; 8] = [
        Self::Unknown,
        Self::Counter,
        Self::Gauge,
        Self::Histogram,
        Self::GaugeHistogram,
        Self::Summary,
        Self::Info,
        Self::StateSet,
    ];

    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::GaugeHistogram => "gaugehistogram",
            Self::Summary => "summary",
            Self::Info => "info",
            Self::StateSet => "stateset",
            Self::Unknown => "unknown",
        }
    }

    /// The inverse of [`MetricKind::as_str`].
    pub fn of_str(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// Its number in remote write, in our formats, and between nodes.
    pub fn number(self) -> u8 {
        self as u8
    }

    pub fn of_number(number: u64) -> Option<Self> {
        let place = usize::try_from(number).ok()?;
        Self::ALL.get(place).copied()
    }
}

/// What somebody said of one family. Ordered by name first.
#[derive(Debug, Default, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FamilyMetadata {
    pub name: String,
    pub kind: MetricKind,
    pub help: String,
    pub unit: String,
}

impl FamilyMetadata {
    /// Bytes of its texts.
    pub fn text_bytes(&self) -> usize {
        self.name.len() + self.help.len() + self.unit.len()
    }
}

/// What the name of a series says of the family, once the family's type is known: `x_bucket` of a
/// histogram belongs to `x`. A counter's `_total` stays, as the text format has it.
pub fn family_of(series: &str, kind: MetricKind) -> &str {
    let suffixes: &[&str] = match kind {
        MetricKind::Histogram => &["_bucket", "_count", "_sum", "_created"],
        MetricKind::GaugeHistogram => &["_bucket", "_gcount", "_gsum", "_count", "_sum"],
        MetricKind::Summary => &["_count", "_sum", "_created"],
        _ => &[],
    };
    let base = suffixes.iter().find_map(|end| series.strip_suffix(end));
    base.filter(|base| !base.is_empty()).unwrap_or(series)
}

/// Keeps what senders say of their metrics, for every node.
#[async_trait]
pub trait MetadataStore: Send + Sync {
    /// Stores what is new of it. `Ok` means durable on a majority; repeating it is safe. Of what is
    /// told of one family the newest few stay, and of all families those told last.
    async fn describe(&self, told: Vec<FamilyMetadata>) -> Result<(), WriteError>;

    /// What is stored, and what pushed groups say, of all families or of one; in order, each once.
    /// Contains all that was acknowledged before the call.
    async fn described(&self, family: Option<&str>) -> Result<Vec<FamilyMetadata>, SourceError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_come_back_from_numbers_and_words() {
        for (number, kind) in MetricKind::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(kind.number()), number);
            assert_eq!(MetricKind::of_number(number as u64), Some(kind));
            assert_eq!(MetricKind::of_str(kind.as_str()), Some(kind));
        }
        assert_eq!(MetricKind::of_number(8), None);
        assert_eq!(MetricKind::of_str("untyped"), None);
    }

    #[test]
    fn a_series_leads_to_its_family() {
        for (series, kind, family) in [
            ("x_bucket", MetricKind::Histogram, "x"),
            ("x_sum", MetricKind::Summary, "x"),
            ("x_bucket", MetricKind::Summary, "x_bucket"),
            ("x_gsum", MetricKind::GaugeHistogram, "x"),
            ("x_total", MetricKind::Counter, "x_total"),
            ("x_sum", MetricKind::Gauge, "x_sum"),
            ("_sum", MetricKind::Histogram, "_sum"),
        ] {
            assert_eq!(family_of(series, kind), family);
        }
    }
}
