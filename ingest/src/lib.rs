//! Bytes to batches: exposition text, OpenMetrics, remote write, OTLP, push bodies; relabelling and the
//! scrape loop.
//!
//! What stays true: bytes from outside are answered by an error that names the place, never by a
//! panic; nothing here knows disk, Raft or HTTP servers; what a real Prometheus or Pushgateway
//! accepts is accepted, and what it refuses is refused.
//!
//! In reading order:
//! - [`exposition`]: what the exposition formats have in common
//! - [`text`], [`openmetrics`], [`protobuf`]: a scraped body, entry by entry
//! - [`push`]: a Pushgateway's URLs, bodies and page
//! - [`remote`]: remote write
//! - [`otlp`]: metrics of the OpenTelemetry protocol
//! - [`lines`], [`names`]: what the line protocols have in common; [`mapping`]: rules that name
//!   dotted metrics; [`influx`], [`graphite`], [`statsd`]: three of them;
//!   [`jsonlines`]: series as lines of JSON; [`textlines`]: exposition text as an import
//! - [`histogram`], [`exemplar`]: native histograms and exemplars, whichever way they came
//! - [`metadata`]: what write requests say of their metrics
//! - [`relabel`]: rules that rewrite label sets; `typed`: type and unit as labels
//! - [`scrape`]: targets, and the loop that scrapes one
//! - [`gzip`], [`metrics`]: bodies undone within a bound; what is counted

pub mod exemplar;
pub mod exposition;
pub mod graphite;
pub mod gzip;
pub mod histogram;
pub mod influx;
pub mod jsonlines;
pub mod lines;
pub mod mapping;
pub mod metadata;
pub mod metrics;
pub mod names;
pub mod openmetrics;
pub mod otlp;
pub mod protobuf;
pub mod push;
pub mod relabel;
pub mod remote;
pub mod scrape;
pub mod statsd;
pub mod text;
pub mod textlines;
mod typed;
