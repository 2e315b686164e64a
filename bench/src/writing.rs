//! `bench` without a command: what writing costs.

use std::ffi::OsString;

use anyhow::Context;

use crate::options::Options;
use crate::round;
use crate::table::{self, Report};

/// What writing costs: every system fresh for each shape of requests.
pub fn measure(arguments: impl IntoIterator<Item = OsString>) -> anyhow::Result<Report> {
    let options = Options::parse(arguments)?;

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let directory = &options.directory;
    std::fs::create_dir_all(directory)
        .with_context(|| format!("create {}", directory.display()))?;
    let mut figures = Vec::new();
    for n in 0..options.runs {
        for &shape in &options.shapes {
            for &kind in &options.systems {
                eprintln!(
                    "run {} of {}: {}, {}",
                    n + 1,
                    options.runs,
                    kind.name(),
                    shape.name()
                );
                let figure = runtime
                    .block_on(round::run(&options, kind, shape))
                    .with_context(|| format!("{}, {}", kind.name(), shape.name()))?;
                eprintln!("  {}", figure.line());
                figures.push(figure);
            }
        }
    }
    let facts = table::Facts::gather(&options)?;
    let text = table::markdown(&facts, &figures);
    let json = serde_json::json!({"facts": facts, "figures": figures});
    Ok(Report::new((directory, facts.began_s, ""), text, json))
}
