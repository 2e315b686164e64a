//! Side by side with Prometheus: the same remote-write data into quorate (one node; three nodes,
//! every sample on three disks), into Prometheus and into VictoriaMetrics, on this machine, in one
//! run; one table.
//!
//! One way: [`options`] -> for each round, shape and [`system`]: [`send`] what [`shape`] makes,
//! [`measure`] the processes, ask [`query`]s -> medians in a [`table`]. [`queries`] is the other half:
//! what answers cost, VictoriaMetrics included; [`bombs`] are queries that must not cost much;
//! [`federate`] is what `/federate` costs, [`pushes`] what pushes do beside Pushgateway,
//! [`restart`] what a killed one does when it is started again, or one whose [`power`] was cut,
//! [`disk`] what is left of it all there.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "an outermost tool: it measures real processes by the real clock"
)]

mod bombs;
mod disk;
mod federate;
mod measure;
mod options;
mod power;
mod pushes;
mod queries;
mod query;
mod restart;
mod round;
mod send;
mod shape;
mod system;
mod table;
mod values;

use std::process::ExitCode;

use anyhow::Context;
use jepsen_tests::process::{BECOME_NODE, become_node};

use options::Options;
use restart::End;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.next_if(|first| first == BECOME_NODE).is_some() {
        let command: Vec<_> = arguments.collect();
        eprintln!("bench: {:#}", become_node(&command));
        return ExitCode::FAILURE;
    }
    let command = arguments.next_if(|first| {
        [
            "queries",
            "bombs",
            "federate",
            "pushes",
            "restart",
            "power-cut",
            "disk",
        ]
        .iter()
        .any(|known| first == known)
    });
    let done = match command.as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("queries") => queries::main(arguments),
        Some("federate") => federate::main(arguments),
        Some("pushes") => pushes::main(arguments),
        Some("restart") => restart::main(arguments, End::Killed),
        Some("power-cut") => restart::main(arguments, End::PowerCut),
        Some("disk") => disk::main(arguments),
        Some(_) => bombs::main(arguments),
        None => Options::parse(arguments).and_then(|options| bench(&options)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench(options: &Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let directory = &options.directory;
    std::fs::create_dir_all(directory)
        .with_context(|| format!("create {}", directory.display()))?;
    let mut figures = Vec::new();
    for n in 0..options.runs {
        for shape in options.shapes() {
            for &kind in &options.systems {
                eprintln!(
                    "run {} of {}: {}, {}",
                    n + 1,
                    options.runs,
                    kind.name(),
                    shape.name()
                );
                let figure = runtime
                    .block_on(round::run(options, kind, shape))
                    .with_context(|| format!("{}, {}", kind.name(), shape.name()))?;
                eprintln!("  {}", figure.line());
                figures.push(figure);
            }
        }
    }
    let facts = table::Facts::gather(options)?;
    let text = table::markdown(&facts, &figures);
    let stem = directory.join(facts.began_s.to_string());
    let json = serde_json::json!({"facts": facts, "figures": figures});
    table::write(&stem, &text, &json)
}
