//! Why a replica did not do what it was asked.

/// What the asker does next: look for the leader, wait, or give up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing was done; this node may lead.
    #[error("not the leader")]
    NotLeader(Option<u64>),
    /// Nothing was done; too much waits.
    #[error("overloaded: {0}")]
    Overloaded(String),
    /// It may or may not happen yet.
    #[error("{0}")]
    Unavailable(String),
    #[error("too much data: {0}")]
    TooLarge(String),
    #[error("{0}")]
    Internal(String),
}

impl Refusal {
    /// Whether it is certain that nothing was or will be done.
    pub fn nothing_done(&self) -> bool {
        matches!(self, Self::NotLeader(_) | Self::Overloaded(_))
    }
}
