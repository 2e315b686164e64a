//! `quorate tsdb export-blocks`: what snapshots hold, as blocks that Prometheus and promtool read.
//!
//! One way: shards of snapshots, opened by the engine → series of one window of time → the chunks that
//! remote read sends → a [`block`] with its [`index`]. The format is that of Prometheus'
//! `tsdb/docs/format`, index version 2.

#![allow(
    clippy::disallowed_methods,
    reason = "an outermost tool: it reads and writes files that no node uses"
)]

mod block;
pub(crate) mod index;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use futures::StreamExt;
use model::Timestamp;
use model::source::{Consistency, Selection, Source, Take};
use tsdb::{Metrics, Shard};

use block::Block;

/// A block holds one such stretch of time, as Prometheus' own do after some compactions.
const WINDOW_MS: i64 = 24 * 3_600_000;

/// So many are looked at together, as they may all hold nothing.
const WINDOWS_AT_ONCE: i64 = 64;

/// From the oldest to the newest sample: some thousand years.
const WINDOWS_MAX: i64 = 1_000_000;

const HELP: &str = "\
usage: quorate tsdb export-blocks <snapshot>... <output>

Writes what snapshots hold as blocks of Prometheus into the directory <output>, which is made, or is empty.

A <snapshot> is what the TSDB admin API's snapshot leaves below <data>/snapshots/ of a node. Where
not every node holds every shard, name the snapshots of as many nodes as together do; a shard that
several hold is written once. Each block holds a day (UTC).
";

/// Runs the words behind `tsdb`; what to print.
pub fn run(words: &[String]) -> anyhow::Result<String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["export-blocks", ref snapshots @ .., output]
            if !snapshots.is_empty() && !words.iter().any(|w| w.starts_with('-')) =>
        {
            let snapshots: Vec<PathBuf> = snapshots.iter().map(PathBuf::from).collect();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(export(&snapshots, Path::new(output)))
        }
        [command, ..] if command.starts_with("import-") => {
            let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
            crate::import::run(&words)
        }
        [] | ["--help" | "-h" | "help", ..] | ["export-blocks", "--help" | "-h"] => {
            Ok(format!("{HELP}\n{}", crate::import::HELP))
        }
        _ => bail!(
            "unknown arguments of 'tsdb'\n\n{HELP}\n{}",
            crate::import::HELP
        ),
    }
}

async fn export(snapshots: &[PathBuf], output: &Path) -> anyhow::Result<String> {
    let shards = open_all(snapshots).await?;
    if shards.is_empty() {
        bail!("no shard in {snapshots:?}: a snapshot has a folder for each, of five digits");
    }
    if std::fs::read_dir(output).is_ok_and(|mut entries| entries.next().is_some()) {
        bail!(
            "{} is not empty: blocks in it would be read together with those that are written",
            output.display()
        );
    }
    // promtool opens no directory without a log, even an empty one.
    let log = output.join("wal");
    std::fs::create_dir_all(&log).with_context(|| format!("make {}", log.display()))?;
    let mut text = String::new();
    if let Some((from, to)) = range_of(&shards) {
        let (mut window, last) = (from.0.div_euclid(WINDOW_MS), to.0.div_euclid(WINDOW_MS));
        if last - window > WINDOWS_MAX {
            bail!("samples from {} to {} are too far apart", from.0, to.0);
        }
        while window <= last {
            // Samples of 1970 may stand beside those of today.
            if window % WINDOWS_AT_ONCE == 0 && is_empty(&shards, window).await? {
                window += WINDOWS_AT_ONCE;
                continue;
            }
            let mut block = Block::create(output)?;
            for shard in shards.values() {
                copy(shard, window, &mut block).await?;
            }
            if let Some(written) = block.finish()? {
                text += &format!("{written}\n");
            }
            window += 1;
        }
    }
    Ok(text)
}

/// Whether the shards hold nothing of some windows from this one on.
async fn is_empty(shards: &BTreeMap<String, Shard>, window: i64) -> anyhow::Result<bool> {
    let selection = selection(window, WINDOWS_AT_ONCE);
    for shard in shards.values() {
        let mut pieces = shard.stream(&selection);
        while let Some(piece) = pieces.next().await {
            if piece?.iter().any(|series| !series.samples.is_empty()) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// The shards of all snapshots by number, each once.
async fn open_all(snapshots: &[PathBuf]) -> anyhow::Result<BTreeMap<String, Shard>> {
    let (mut shards, tables) = (BTreeMap::new(), Arc::default());
    for snapshot in snapshots {
        let attempt = || format!("read {}", snapshot.display());
        let world = host::world(snapshot).with_context(attempt)?;
        for entry in std::fs::read_dir(snapshot).with_context(attempt)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let is_shard = name.len() == 5 && name.bytes().all(|b| b.is_ascii_digit());
            if !is_shard || shards.contains_key(&name) {
                continue;
            }
            // Opening makes what is not there; a snapshot without its head has no manifest.
            let whole = snapshot.join(&name).join(tsdb::manifest::NAME).exists();
            if !whole {
                bail!(
                    "{}: the snapshot was made without its head",
                    snapshot.display()
                );
            }
            let (dir, metrics) = (PathBuf::from(&name), Arc::new(Metrics::new()));
            let opened = Shard::open(&world, dir, metrics, Arc::clone(&tables)).await;
            let shard = opened.with_context(|| format!("open shard {name}"))?;
            shards.insert(name, shard);
        }
    }
    Ok(shards)
}

/// From the oldest to the newest sample.
fn range_of(shards: &BTreeMap<String, Shard>) -> Option<(Timestamp, Timestamp)> {
    let ranges = shards.values().flat_map(|shard| {
        let blocks = shard.block_ranges().into_iter().map(|b| (b.min, b.max));
        blocks.chain(shard.head_range()).collect::<Vec<_>>()
    });
    ranges.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
}

/// All samples of so many windows.
fn selection(window: i64, windows: i64) -> Selection {
    let start = window.saturating_mul(WINDOW_MS);
    Selection {
        matchers: Vec::new(),
        start: Timestamp(start),
        end: Timestamp(start.saturating_add(windows.saturating_mul(WINDOW_MS) - 1)),
        take: Take::All,
        consistency: Consistency::Local,
    }
}

/// Adds what a shard holds of a window.
async fn copy(shard: &Shard, window: i64, block: &mut Block) -> anyhow::Result<()> {
    let selection = selection(window, 1);
    let mut pieces = shard.stream(&selection);
    while let Some(piece) = pieces.next().await {
        for series in piece? {
            block.add(series.labels, &series.samples)?;
        }
    }
    Ok(())
}
