//! Many seeds, each in a process of its own, each twice.

use std::fs;
use std::io::{BufRead, BufReader};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Real time one run may take; a run is bounded in virtual time, but not if that stands still.
const RUN_MAX: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_millis(5);

/// How a batch is run.
#[derive(Debug, Clone)]
pub struct Batch {
    pub seeds: RangeInclusive<u64>,
    /// Runs of each seed, whose traces must be equal.
    pub times: usize,
    /// Processes at once.
    pub jobs: usize,
    /// Passed on to each process.
    pub arguments: Vec<String>,
}

/// One process at work.
struct Run {
    seed: u64,
    time: usize,
    child: Child,
    trace: PathBuf,
    polls: u32,
}

/// What one process said.
struct Said {
    passed: bool,
    line: String,
    trace: PathBuf,
}

/// Runs the batch; whether every seed passed.
pub fn run(batch: &Batch) -> Result<bool> {
    let dir = std::env::temp_dir().join(format!("quorate-sim-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let mut queue = batch
        .seeds
        .clone()
        .flat_map(|seed| (0..batch.times).map(move |t| (seed, t)));
    let mut running: Vec<Run> = Vec::new();
    let mut said = std::collections::BTreeMap::<u64, Vec<Said>>::new();
    let (mut passed, mut failed) = (0, 0);
    loop {
        while running.len() < batch.jobs
            && let Some((seed, time)) = queue.next()
        {
            running.push(start(batch, &dir, seed, time)?);
        }
        if running.is_empty() {
            break;
        }
        let Some(index) = finished(&mut running)? else {
            std::thread::sleep(POLL);
            continue;
        };
        let run = running.swap_remove(index);
        let seed = run.seed;
        let all = said.entry(seed).or_default();
        all.push(hear(run)?);
        if all.len() == batch.times {
            match judge(seed, &said.remove(&seed).unwrap_or_default())? {
                true => passed += 1,
                false => failed += 1,
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 {
        fs::remove_dir_all(&dir)?;
    }
    Ok(failed == 0)
}

fn start(batch: &Batch, dir: &Path, seed: u64, time: usize) -> Result<Run> {
    let trace = dir.join(format!("{seed}.{time}.trace"));
    let child = Command::new(std::env::current_exe()?)
        .args(["--seed", &seed.to_string(), "--trace"])
        .arg(&trace)
        .args(&batch.arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting a run")?;
    Ok(Run {
        seed,
        time,
        child,
        trace,
        polls: 0,
    })
}

/// A process that has ended; one that takes too long is ended.
fn finished(running: &mut [Run]) -> Result<Option<usize>> {
    for (index, run) in running.iter_mut().enumerate() {
        if run.child.try_wait()?.is_some() {
            return Ok(Some(index));
        }
        run.polls += 1;
        if POLL * run.polls > RUN_MAX {
            run.child.kill()?;
            run.child.wait()?;
            println!(
                "seed {} run {}: still busy after {RUN_MAX:?}",
                run.seed, run.time
            );
            return Ok(Some(index));
        }
    }
    Ok(None)
}

fn hear(run: Run) -> Result<Said> {
    let output = run.child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = match text.lines().last() {
        Some(line) => line.to_owned(),
        None => {
            let errors = String::from_utf8_lossy(&output.stderr);
            format!(
                "seed {}: no verdict ({}): {}",
                run.seed,
                output.status,
                errors.trim_end()
            )
        }
    };
    Ok(Said {
        passed: output.status.success(),
        line,
        trace: run.trace,
    })
}

fn judge(seed: u64, said: &[Said]) -> Result<bool> {
    let Some(first) = said.first() else {
        bail!("no run of seed {seed}")
    };
    println!("{}", first.line);
    if let Some(other) = said.iter().find(|other| other.line != first.line) {
        println!("  the same seed again: {}", other.line);
        println!("  {}", first_difference(&first.trace, &other.trace)?);
        return Ok(false);
    }
    if !first.passed {
        println!(
            "  replay: cargo run -p sim -- --seed {seed}   trace: {}",
            first.trace.display()
        );
        return Ok(false);
    }
    for run in said {
        fs::remove_file(&run.trace)?;
    }
    Ok(true)
}

/// Where two traces part.
fn first_difference(one: &Path, other: &Path) -> Result<String> {
    let lines = |path: &Path| -> Result<_> { Ok(BufReader::new(fs::File::open(path)?).lines()) };
    let (mut left, mut right) = (lines(one)?, lines(other)?);
    for number in 1.. {
        let (a, b) = (left.next().transpose()?, right.next().transpose()?);
        if a != b {
            let show = |line: Option<String>| line.unwrap_or_else(|| "the end".to_owned());
            return Ok(format!(
                "traces part at line {number}:\n  {}\n  {}\n  in {} and {}",
                show(a),
                show(b),
                one.display(),
                other.display()
            ));
        }
        if a.is_none() {
            break;
        }
    }
    Ok("the traces are equal, the verdicts are not".to_owned())
}
