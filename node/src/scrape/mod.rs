//! Scraping: the configuration's jobs become targets, each with a loop of its own.
//!
//! ```text
//! Config --jobs--> Job --relabel--> Target --pools--> ingest's loop --http--> body --> Sink
//! ```
//!
//! What stays true: every node runs the loop of every target, and a loop asks for the target's
//! lease before each scrape, so a target is scraped by one node; a reload touches only the loops
//! of targets that changed; only a target that is gone gets staleness markers.
//!
//! Not here: what an answer means (`ingest`), who holds a lease (`cluster`).

mod http;
mod jobs;
mod opened;
mod pools;
mod view;

pub use http::{CLUSTER_HEADER, Client, HttpFetch};
pub use jobs::{Features, Job, jobs};
pub use opened::Opened;
pub use pools::{Leases, Pools};
pub use view::{Elsewhere, ExternalUrl, Seen, Told};
