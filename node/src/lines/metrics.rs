//! What receivers of lines count.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

/// What became of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Durable on a majority.
    Stored,
    /// It breaks the format.
    Malformed,
    /// By a rule of the mapping.
    Dropped,
    /// No rule fits, and only what rules name is kept.
    Unmatched,
    /// The store refused its sample: too old, or another value for the same time.
    Refused,
    /// The store did not acknowledge it for too long.
    Lost,
    /// It came faster than it could be stored.
    Overflow,
}

impl Fate {
    const ALL: [Self; 7] = [
        Self::Stored,
        Self::Malformed,
        Self::Dropped,
        Self::Unmatched,
        Self::Refused,
        Self::Lost,
        Self::Overflow,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Malformed => "malformed",
            Self::Dropped => "dropped",
            Self::Unmatched => "unmatched",
            Self::Refused => "refused",
            Self::Lost => "lost",
            Self::Overflow => "overflow",
        }
    }
}

/// Of one protocol. Clones share their figures.
#[derive(Debug, Clone)]
pub struct Lines {
    lines: IntCounterVec,
    /// Tags that were left out of lines that were kept.
    pub bad_tags: IntCounter,
}

impl Lines {
    pub fn new(protocol: &str) -> Self {
        let opts = Opts::new(
            format!("quorate_{protocol}_lines_total"),
            "Lines by what became of them.",
        );
        let lines = IntCounterVec::new(opts, &["result"]).expect("names are constants");
        for fate in Fate::ALL {
            lines.with_label_values(&[fate.as_str()]);
        }
        let bad_tags = IntCounter::new(
            format!("quorate_{protocol}_tag_errors_total"),
            "Tags that were left out because they are no name and value.",
        );
        Self {
            lines,
            bad_tags: bad_tags.expect("names are constants"),
        }
    }

    pub fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.lines.clone()))?;
        registry.register(Box::new(self.bad_tags.clone()))
    }

    pub fn count(&self, fate: Fate, lines: u64) {
        if lines > 0 {
            self.lines.with_label_values(&[fate.as_str()]).inc_by(lines);
        }
    }

    #[cfg(test)]
    pub fn get(&self, fate: Fate) -> u64 {
        self.lines.with_label_values(&[fate.as_str()]).get()
    }
}
