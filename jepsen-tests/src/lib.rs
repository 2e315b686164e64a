//! Real processes, real faults, real checkers.
//!
//! A run goes one way: seed -> [`plan`] (every operation and fault, before anything starts) ->
//! [`run`] (three processes of a [`cluster`], [`client`] lanes, a [`nemesis`]) -> [`history`]
//! (what each operation saw, and when) -> [`checker`]s (pure functions over the history) ->
//! [`report`].
//!
//! Beside it stands [`differ`]: random queries, compared with a real Prometheus or with quorate in
//! another shape; [`outage`]: a parent cluster that is away while its children take data; and
//! [`hostile`]: pushes that are wrong in every way there is.
//!
//! What stays true: a run passes only when every checker says *valid*; *unknown* never passes.
//! Only processes this harness started are signalled, and none outlives it.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "an outermost tool: real processes, files and clocks are its subject"
)]

pub mod splitmix;

pub mod plan;

pub mod http;

pub mod process;

pub mod cluster;

pub mod nemesis;

pub mod history;

pub mod client;

pub mod workload;

pub mod run;

pub mod checker;

pub mod report;

pub mod differ;

pub mod outage;

pub mod import;

pub mod hostile;

pub mod federation;
