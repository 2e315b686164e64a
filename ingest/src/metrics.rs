//! What taking data in counts about itself.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

/// How a scrape ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    /// No answer, or not with status 200.
    NotFetched,
    /// An answer that breaks its format.
    Malformed,
    BeyondLimit,
    /// The sink did not acknowledge it.
    NotStored,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NotFetched => "not_fetched",
            Self::Malformed => "malformed",
            Self::BeyondLimit => "beyond_limit",
            Self::NotStored => "not_stored",
        }
    }
}

/// Built once per node. Clones share their figures.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Rows of scrapes that are stored.
    pub samples: IntCounter,
    pub samples_refused: IntCounter,
    scrapes: IntCounterVec,
}

impl Metrics {
    pub fn new() -> Self {
        let counter = |name: &str, help: &str| {
            IntCounter::new(format!("quorate_scrape_{name}"), help).expect("names are constants")
        };
        let scrapes = Opts::new("quorate_scrapes_total", "Scrapes by how they ended.");
        Self {
            samples: counter(
                "samples_stored_total",
                "Samples of scrapes that are stored, staleness markers and up among them.",
            ),
            samples_refused: counter(
                "samples_refused_total",
                "Samples of scrapes that can never be stored, most for their own timestamps.",
            ),
            scrapes: IntCounterVec::new(scrapes, &["outcome"]).expect("names are constants"),
        }
    }

    /// Makes the counters visible on a registry.
    pub fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.samples.clone()))?;
        registry.register(Box::new(self.samples_refused.clone()))?;
        registry.register(Box::new(self.scrapes.clone()))
    }

    /// Counts a scrape.
    pub fn count(&self, outcome: Outcome) {
        self.scrapes.with_label_values(&[outcome.as_str()]).inc();
    }

    /// Scrapes that ended so.
    pub fn scrapes(&self, outcome: Outcome) -> u64 {
        self.scrapes.with_label_values(&[outcome.as_str()]).get()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
