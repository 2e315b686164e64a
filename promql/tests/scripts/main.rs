//! Scripts of `load` and `eval`, run against the engine over series in memory.
//!
//! The scripts beside this file are ours; what they expect was computed by Prometheus 3.5.3 and is
//! compared bit for bit. With `QUORATE_PROMQLTEST` pointing at a copy of Prometheus' own scripts
//! (github.com/prometheus/prometheus, promql/promqltest/testdata), those run too, and what passes
//! is told by file.

#![allow(
    clippy::disallowed_methods,
    reason = "a test may read its scripts from the disk"
)]

mod histogram;
mod limits;
mod memory;
mod run;
mod script;
mod sharded;
mod spread;

use std::path::{Path, PathBuf};

use promql::EngineOptions;
use run::{Outcome, Tolerance};

fn scripts(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "test"));
    paths.sort();
    paths
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn our_scripts_hold() {
    let paths = scripts(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts"));
    assert!(paths.len() >= 10, "only {} scripts", paths.len());
    let mut failures = Vec::new();
    for path in paths {
        let outcomes = run::run(&read(&path), EngineOptions::default(), Tolerance::None);
        assert!(
            outcomes.len() >= 5,
            "{} evaluates next to nothing",
            path.display()
        );
        for (line, outcome) in outcomes {
            match outcome {
                Outcome::Passed => {}
                Outcome::Failed(why) => failures.push(format!("{}:{line}: {why}", path.display())),
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Every eval of every file must hold.
#[test]
fn scripts_of_prometheus() {
    let Ok(dir) = std::env::var("QUORATE_PROMQLTEST") else {
        println!("SKIPPED: QUORATE_PROMQLTEST does not name a directory of Prometheus' scripts");
        return;
    };
    let options = EngineOptions {
        experimental_functions: true,
        duration_expressions: true,
        delayed_name_removal: true,
        ..EngineOptions::default()
    };
    let mut short = Vec::new();
    let is_verbose = std::env::var("QUORATE_PROMQLTEST_VERBOSE").is_ok();
    for path in scripts(Path::new(&dir)) {
        let options = EngineOptions {
            // The only file that needs it to be on; the others do without such labels.
            type_and_unit_labels: path.ends_with("type_and_unit.test"),
            ..options.clone()
        };
        let outcomes = run::run(&read(&path), options, Tolerance::Millionth);
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let mut failed = 0;
        for (line, outcome) in &outcomes {
            if let Outcome::Failed(why) = outcome {
                failed += 1;
                if is_verbose {
                    println!("{name}:{line}: {why}");
                }
            }
        }
        let total = outcomes.len();
        println!("{name}: {} of {total} pass", total - failed);
        if failed > 0 {
            short.push(name);
        }
    }
    assert!(short.is_empty(), "not whole: {short:?}");
}
