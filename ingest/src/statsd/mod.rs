//! StatsD's lines, and what they come to over an interval.
//!
//! Lines are read as statsd_exporter reads them: counters with sample rates, gauges, timers,
//! histograms and distributions, several values in a line, tags in the styles of Datadog, InfluxDB,
//! Librato and SignalFX. Sets are refused, as there. [`fold`] adds the events up into families that
//! can be added to those of another node.

pub mod fold;
mod line;
mod tags;
#[cfg(test)]
mod tests;

pub use line::{Event, Kind, Tally, parse};
