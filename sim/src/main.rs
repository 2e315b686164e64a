//! The command: one seed here, or many in processes of their own.

#![allow(
    clippy::disallowed_methods,
    reason = "the outermost loop: it writes the trace of a simulation to a real file"
)]

use std::fs::File;
use std::io::BufWriter;
use std::io::Write;
use std::ops::RangeInclusive;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use lexopt::prelude::*;
use sim::batch::{self, Batch};
use sim::determinism;
use sim::node::Sabotage;
use sim::run::run;
use sim::swarm::Plan;

const USAGE: &str = "\
Brings up a cluster of three, to which another may come, in one thread, breaks it, and checks its promises.

  sim --seed N [--trace FILE] [--log FILTER]   one run; prints its verdict and its trace's hash
  sim --seed N --twice                         the same run in two processes, traces compared
  sim --seeds A..=B [--once] [--jobs J]        a batch; each seed twice unless --once

  --sabotage writes|flushes   a store that is broken on purpose: the run must fail
";

/// As a main thread has.
const STACK_BYTES: usize = 8 << 20;

#[derive(Default)]
struct Arguments {
    seeds: Option<RangeInclusive<u64>>,
    is_batch: bool,
    is_once: bool,
    jobs: Option<usize>,
    trace: Option<std::path::PathBuf>,
    log: Option<String>,
    sabotage: Option<String>,
}

fn main() -> Result<ExitCode> {
    let arguments = parse()?;
    let Some(seeds) = arguments.seeds.clone() else {
        print!("{USAGE}");
        return Ok(ExitCode::from(2));
    };
    let passed = if arguments.is_batch {
        batch::run(&batch_of(seeds, &arguments))?
    } else {
        one(*seeds.start(), &arguments)?
    };
    Ok(if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn parse() -> Result<Arguments> {
    let mut arguments = Arguments::default();
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("seed") => {
                let seed = parser.value()?.parse()?;
                arguments.seeds = Some(seed..=seed);
            }
            Long("seeds") => {
                arguments.seeds = Some(range_of(&parser.value()?.string()?)?);
                arguments.is_batch = true;
            }
            Long("twice") => arguments.is_batch = true,
            Long("once") => arguments.is_once = true,
            Long("jobs") => arguments.jobs = Some(parser.value()?.parse()?),
            Long("trace") => arguments.trace = Some(parser.value()?.into()),
            Long("log") => arguments.log = Some(parser.value()?.string()?),
            Long("sabotage") => arguments.sabotage = Some(parser.value()?.string()?),
            Long("help") | Short('h') => {}
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(arguments)
}

/// `A..=B`, or `A..B` without its end.
fn range_of(text: &str) -> Result<RangeInclusive<u64>> {
    let (start, end) = text.split_once("..").context("seeds are given as A..=B")?;
    let start: u64 = start
        .parse()
        .with_context(|| format!("{start:?} is not a seed"))?;
    let (end, last) = match end.strip_prefix('=') {
        Some(end) => (end, 0),
        None => (end, 1),
    };
    let end: u64 = end
        .parse()
        .with_context(|| format!("{end:?} is not a seed"))?;
    match end.checked_sub(last) {
        Some(end) if end >= start => Ok(start..=end),
        _ => bail!("no seed in {text:?}"),
    }
}

fn batch_of(seeds: RangeInclusive<u64>, arguments: &Arguments) -> Batch {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let sabotage = arguments.sabotage.iter();
    Batch {
        seeds,
        times: if arguments.is_once { 1 } else { 2 },
        jobs: arguments.jobs.unwrap_or_else(cores).max(1),
        arguments: sabotage
            .flat_map(|s| ["--sabotage".to_owned(), s.clone()])
            .collect(),
    }
}

fn one(seed: u64, arguments: &Arguments) -> Result<bool> {
    let sabotage = match arguments.sabotage.as_deref() {
        None => Sabotage::None,
        Some("writes") => Sabotage::ForgottenWrites,
        Some("flushes") => Sabotage::LyingDisks,
        Some(other) => bail!("--sabotage {other:?}: writes or flushes was meant"),
    };
    if let Some(filter) = &arguments.log {
        determinism::log_to_stderr(filter);
    }
    let out: Option<Box<dyn Write + Send>> = match &arguments.trace {
        Some(path) => {
            let file = File::create(path).with_context(|| format!("creating {path:?}"))?;
            Some(Box::new(BufWriter::new(file)))
        }
        None => None,
    };
    let _seal = determinism::seal(seed);
    // Hash maps take their keys once a thread: on this one a log would have taken others.
    let life = std::thread::Builder::new().stack_size(STACK_BYTES);
    let life = life.spawn(move || run(Plan::new(seed), sabotage, out))?;
    let outcome = life
        .join()
        .map_err(|_| anyhow!("the simulation panicked"))?;
    let (verdict, hash) = (&outcome.verdict, outcome.trace);
    match verdict {
        Ok(()) => println!(
            "seed {seed}: passed, trace {hash:016x}, {}",
            outcome.summary
        ),
        Err(violation) => println!(
            "seed {seed}: FAILED, trace {hash:016x}, {}: {}",
            outcome.summary,
            violation.0.replace('\n', " ")
        ),
    }
    Ok(verdict.is_ok())
}
