//! Scraping one target: what to ask, what an answer becomes, and the loop around it.
//!
//! ```text
//! discovered labels + job --relabel--> Target --Fetch--> body --Scrape--> Batch --> Sink
//! ```
//!
//! Promise: the series, names, order of rules and refusals are those of Prometheus 3; a scrape is
//! all or nothing; nothing is taken for stored that the sink did not acknowledge. Not here: HTTP
//! (behind [`Fetch`]), discovery, who owns a target (behind the fence).

mod metadata;
mod protocol;
mod run;
mod state;
mod target;
mod unstamped;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

pub use metadata::{MetadataCell, MetricMetadata};
pub use protocol::{Format, ScrapeProtocol, accept_header, choose_format};
pub use run::{Health, Loop, Status, StatusCell, Stop};
pub use state::{Ingested, Scrape, ScrapeError};
pub use target::{Histograms, Limits, Names, ScrapeJob, Target, TargetError, discovered_labels};

/// A GET to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScrapeRequest {
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub timeout: Duration,
    /// Of the decoded body; a larger one is [`FetchError::BodyTooLarge`].
    pub body_bytes_max: usize,
}

/// The answer to a scrape with status 200, its content encoding undone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Empty when the header is missing.
    pub content_type: String,
    pub body: Bytes,
}

/// Why there is no answer to ingest; texts as Prometheus shows them on its targets page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// Code and reason, like `404 Not Found`.
    #[error("server returned HTTP status {0}")]
    Status(String),
    #[error("body size limit exceeded")]
    BodyTooLarge,
    #[error("Get {url:?}: context deadline exceeded")]
    Timeout { url: String },
    /// No request was made: a limit or a setting forbids it.
    #[error("{0}")]
    Refused(String),
    /// Connecting, TLS, a broken answer.
    #[error("Get {url:?}: {reason}")]
    Transport { url: String, reason: String },
}

/// Makes the request of a scrape; HTTP in production.
#[async_trait]
pub trait Fetch: Send + Sync {
    /// Ends within `request.timeout`.
    async fn fetch(&self, request: ScrapeRequest) -> Result<Fetched, FetchError>;
}
