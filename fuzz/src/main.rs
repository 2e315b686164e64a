//! Whatever reads bytes that somebody else wrote, under libFuzzer.
//!
//! `FUZZ_TARGET` names what is fuzzed: the code is built once. A target fails by a panic, by more memory or time
//! than libFuzzer is told to allow, and where reading back what was written gives something else.
//!
//! In reading order: [`disk`], what stands in files; [`import`], what stands in Prometheus'; [`settings`], what people
//! write into files; [`wire`], what clients and scraped targets send; [`query`], what people ask. [`seeds`] are places
//! to begin, [`memory`] counts what is allocated, [`files`] are a disk.

#![no_main]

mod disk;
mod files;
mod import;
mod memory;
mod query;
mod seeds;
mod settings;
mod wire;

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

type Target = fn(&[u8]);

/// All targets, by name.
const TARGETS: [(&str, Target); 44] = [
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
    ("manifest", disk::manifest),
    ("block", disk::block),
    ("summary", disk::summary),
    ("recovery", disk::recovery),
    ("identity", disk::identity),
    ("mark", disk::mark),
    ("payload", disk::payload),
    ("meta", disk::meta),
    ("view", disk::view),
    ("left", disk::left),
    ("active", disk::active),
    ("import-meta", import::meta),
    ("import-index", import::index),
    ("import-chunk", import::chunk),
    ("import-block", import::block),
    ("import-head", import::head),
    ("import-log", import::log),
    ("import-record", import::record),
    ("configuration", settings::configuration),
    ("access", settings::access),
    ("mapping", settings::mapping),
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
    if let Some(dir) = std::env::var_os("FUZZ_SEEDS") {
        write_seeds(&wanted, Path::new(&dir));
    }
    let found = TARGETS.iter().find(|(name, _)| *name == wanted);
    let names = TARGETS.map(|(name, _)| name).join(" ");
    found
        .unwrap_or_else(|| panic!("FUZZ_TARGET is {wanted:?}; there are: {names}"))
        .1
});

/// Writes a target's places to begin, beside what stands there.
fn write_seeds(target: &str, dir: &Path) {
    for (n, seed) in seeds::of(target).iter().enumerate() {
        std::fs::write(dir.join(format!("seed-{n}")), seed).expect("a directory of the fuzzer's");
    }
}

/// A directory of this process, for what is read from files.
fn scratch() -> &'static Path {
    static DIR: LazyLock<PathBuf> = LazyLock::new(|| {
        let dir = std::env::temp_dir().join(format!("fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("room for temporary files");
        dir
    });
    &DIR
}

/// Carries out what waits for nothing.
fn in_turn<T>(work: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.build().expect("a runtime").block_on(work)
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| TARGET(bytes));
