//! Side by side with Prometheus: the same remote-write data into quorate (one node; three nodes,
//! every sample on three disks), into Prometheus and into VictoriaMetrics, on this machine, in one
//! run; one table.
//!
//! One way: [`options`] -> for each round, shape and [`system`] ([`writing`]): [`send`] what [`shape`] makes,
//! [`measure`] the processes, ask [`query`]s -> medians in a [`table`]. [`queries`] is the other half:
//! what answers cost, VictoriaMetrics included; [`bombs`] are queries that must not cost much;
//! [`federate`] is what `/federate` costs, [`pushes`] what pushes do beside Pushgateway,
//! [`restart`] what a killed one does when it is started again, or one whose [`power`] was cut,
//! [`disk`] what is left of it all there; [`all`] is everything in one report.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "an outermost tool: it measures real processes by the real clock"
)]

mod all;
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
mod writing;

use std::process::ExitCode;

use jepsen_tests::process::{BECOME_NODE, become_node};

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
            "all",
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
    let report = match command.as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("all") => all::measure(arguments),
        Some("queries") => queries::measure(arguments),
        Some("federate") => federate::measure(arguments),
        Some("pushes") => pushes::measure(arguments),
        Some("restart") => restart::measure(arguments, End::Killed),
        Some("power-cut") => restart::measure(arguments, End::PowerCut),
        Some("disk") => disk::measure(arguments),
        Some(_) => bombs::measure(arguments),
        None => writing::measure(arguments),
    };
    match report.and_then(|report| report.finish()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
