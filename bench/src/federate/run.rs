//! Loads every system, then asks them in turns.

use std::ffi::OsString;
use std::time::Duration;

use anyhow::ensure;
use jepsen_tests::client::wall_ms;

use super::fetch::fetch;
use super::options::Options;
use super::report::{self, Figure};
use crate::queries::load;
use crate::round::Work;
use crate::system::System;
use crate::table::Report;

/// Longer than any system waits before it does what can wait.
const BEFORE_REST: Duration = Duration::from_secs(40);
/// How long it is looked at, how often, and what share of a core each of its processes may take when
/// it rests.
const LOOK: Duration = Duration::from_secs(3);
const LOOKS_MAX: usize = 20;
const IDLE: f64 = 0.08;

/// Carries out `bench federate`.
pub fn measure(arguments: impl IntoIterator<Item = OsString>) -> anyhow::Result<Report> {
    let options = Options::parse(arguments)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::fs::create_dir_all(options.directory())?;
    let began_s = wall_ms() / 1000;
    let figures = runtime.block_on(fetch_all(&options))?;
    report::report(&options, began_s, &figures)
}

/// Each system alone: the newest samples must not grow old while others are loaded.
async fn fetch_all(options: &Options) -> anyhow::Result<Vec<Figure>> {
    let work = Work::create(options.directory())?;
    let mut figures = Vec::new();
    for kind in options.systems() {
        // Whole seconds: the check asks for them.
        let end_ms = wall_ms() / 1000 * 1000;
        let mut system = load(&options.load, *kind, options.shape, end_ms, &work).await?;
        // Once unmeasured: caches, and the order of series.
        for target in system.targets() {
            fetch(target.api, options.gzip)?;
        }
        rest(&mut system).await?;
        figures.push(ask(options, &mut system)?);
        system.stop().await?;
    }
    Ok(figures)
}

/// Until it is done with what loading left to do: a checkpoint of quorate's comes when nothing was
/// applied for half a minute, and its memory would be taken for that of the answers.
async fn rest(system: &mut System) -> anyhow::Result<()> {
    tokio::time::sleep(BEFORE_REST).await;
    let idle_s = IDLE * system.targets().len() as f64 * LOOK.as_secs_f64();
    for _ in 0..LOOKS_MAX {
        let before = system.cpu_seconds()?;
        tokio::time::sleep(LOOK).await;
        if system.cpu_seconds()? - before < idle_s {
            return Ok(());
        }
    }
    eprintln!("  {} did not come to rest", system.kind().name());
    Ok(())
}

fn ask(options: &Options, system: &mut System) -> anyhow::Result<Figure> {
    let targets = system.targets().to_vec();
    system.forget_peak_memory()?;
    let held = system.peak_memory_bytes()?;
    let cpu_before = system.cpu_seconds()?;
    let mut figure = Figure {
        kind: system.kind(),
        first_byte_ms: Vec::new(),
        total_ms: Vec::new(),
        cpu_ms: 0.0,
        bytes: 0,
        extra_memory_bytes: 0,
    };
    for n in 0..options.load.rounds as usize {
        let fetched = fetch(targets[n % targets.len()].api, options.gzip)?;
        let wanted = options.shape.series as usize;
        ensure!(
            fetched.series.is_none_or(|found| found == wanted),
            "{} gave {:?} of {wanted} series",
            figure.kind.name(),
            fetched.series
        );
        figure
            .first_byte_ms
            .push(fetched.first_byte.as_secs_f64() * 1e3);
        figure.total_ms.push(fetched.total.as_secs_f64() * 1e3);
        figure.bytes = fetched.bytes;
    }
    let cpu_s = system.cpu_seconds()? - cpu_before;
    figure.cpu_ms = cpu_s * 1e3 / f64::from(options.load.rounds);
    figure.extra_memory_bytes = system.peak_memory_bytes()?.saturating_sub(held);
    eprintln!("  {figure:?}");
    Ok(figure)
}
