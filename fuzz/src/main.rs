//! Whatever reads bytes that somebody else wrote, under libFuzzer.
//!
//! `FUZZ_TARGET` names what is fuzzed: the code is built once. A target fails by a panic, by more memory or time
//! than libFuzzer is told to allow, and where reading back what was written gives something else.
//!
//! In reading order: [`disk`], what stands in files; [`wire`], what clients and scraped targets send; [`query`],
//! what people ask.

#![no_main]

mod disk;
mod query;
mod wire;

use std::sync::LazyLock;

type Target = fn(&[u8]);

/// All targets, by name.
const TARGETS: [(&str, Target); 23] = [
    ("chunk", disk::chunk),
    ("column", disk::column),
    ("page", disk::page),
    ("directory", disk::directory),
    ("index", disk::index),
    ("histograms", disk::histograms),
    ("checkpoint", disk::checkpoint),
    ("command", disk::command),
    ("records", disk::records),
    ("segment", disk::segment),
    ("text", wire::text),
    ("openmetrics", wire::openmetrics),
    ("protobuf", wire::protobuf),
    ("push", wire::push),
    ("remote", wire::remote),
    ("otlp", wire::otlp),
    ("influx", wire::influx),
    ("graphite", wire::graphite),
    ("statsd", wire::statsd),
    ("jsonlines", wire::jsonlines),
    ("read", wire::read),
    ("expression", query::expression),
    ("pattern", query::pattern),
];

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let wanted = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(name, _)| *name == wanted);
    let names = TARGETS.map(|(name, _)| name).join(" ");
    found
        .unwrap_or_else(|| panic!("FUZZ_TARGET is {wanted:?}; there are: {names}"))
        .1
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| TARGET(bytes));
