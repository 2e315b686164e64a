//! `hostile`: a node that takes whatever anybody sends.
//!
//! One node, or several of one cluster, get pushes and writes that a seed makes wrong in every way
//! there is: labels of groups, names, bodies in text and protobuf, bombs of gzip and snappy, chunks
//! and lengths that lie, requests that break off; remote write, OTLP, InfluxDB's lines, imports, and
//! where there is one node Graphite and StatsD. Several connections send them, each from its own dice.
//! All the while the processes must live, answer nothing with 5xx, take well-formed pushes on one node
//! and show them on the next, and keep their memory. The page of the push port must parse: by the strict
//! reader here, by `prometheus_client` and `promtool check metrics` where these are, and as protobuf.
//!
//! - [`shot`]: one request
//! - [`words`]: names, values and numbers
//! - [`text`], [`protobuf`], [`packed`]: bodies
//! - [`wire`], [`sockets`]: what is odd about HTTP, and what comes without it
//! - [`page`]: the strict reader; [`readers`]: those of others
//! - [`course`]: senders and checks

pub mod course;
pub mod packed;
pub mod page;
pub mod protobuf;
pub mod readers;
pub mod shot;
pub mod sockets;
pub mod text;
pub mod wire;
pub mod words;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use lexopt::ValueExt;

use crate::differ::command::Find;

pub const USAGE: &str = "\
jepsen-tests hostile [--pushes 20000] [--seed 1] [--senders 32] [--nodes 1] [--rss-mib 1536]
                     [--promtool PATH] [--bin PATH]
    pushes and writes that are wrong in every way there is; promtool, PROMTOOL_BIN, reads the page too";

/// What a run is asked to do.
#[derive(Debug, Clone)]
pub struct Settings {
    pub pushes: u64,
    pub seed: u64,
    pub senders: u64,
    pub nodes: usize,
    /// A second opinion on the page.
    pub promtool: Option<PathBuf>,
    /// What a node may take of memory, seen at any check.
    pub rss_mib: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            pushes: 20_000,
            seed: 1,
            // Most of their time is the disk's.
            senders: 32,
            nodes: 1,
            promtool: std::env::var_os("PROMTOOL_BIN").map(PathBuf::from),
            // Some bodies of 64 MiB at once, each with what it is decoded to.
            rss_mib: 1536,
        }
    }
}

/// Runs it; success only when nothing is wrong.
pub fn hostile(arguments: Vec<OsString>, quorate: Find) -> anyhow::Result<ExitCode> {
    let mut settings = Settings::default();
    let mut binary: Option<PathBuf> = None;
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next()? {
        match argument {
            lexopt::Arg::Long("pushes") => settings.pushes = parser.value()?.parse()?,
            lexopt::Arg::Long("seed") => settings.seed = parser.value()?.parse()?,
            lexopt::Arg::Long("senders") => settings.senders = parser.value()?.parse()?,
            lexopt::Arg::Long("nodes") => settings.nodes = parser.value()?.parse()?,
            lexopt::Arg::Long("promtool") => settings.promtool = Some(parser.value()?.into()),
            lexopt::Arg::Long("rss-mib") => settings.rss_mib = parser.value()?.parse()?,
            lexopt::Arg::Long("bin") => binary = Some(parser.value()?.into()),
            other => bail!("{}\n{USAGE}", other.unexpected()),
        }
    }
    let (launcher, binary) = quorate(binary)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let told = runtime.block_on(course::run(&settings, launcher, binary))?;
    println!("{told}");
    for problem in &told.problems {
        println!("PROBLEM {problem}");
    }
    let valid = told.problems.is_empty();
    println!("{}", if valid { "VALID" } else { "INVALID" });
    Ok(ExitCode::from(u8::from(!valid)))
}
