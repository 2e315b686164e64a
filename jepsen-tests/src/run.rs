//! One run from plan to verdict: start the nodes, let lanes and nemesis loose, heal, wait until
//! all are ready, read everything from every node, kill all, start them again, read everything
//! once more, judge.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::Instant;

use crate::checker::{Ending, Evidence, Results, judge, survival};
use crate::client::{Client, Context, drive, wall_ms};
use crate::cluster::{Cluster, Start, Target, all_ready};
use crate::history::{Call, FaultRecord, Kind, Recorder, read_lines, write_lines};
use crate::nemesis::Nemesis;
use crate::plan::{Plan, Workload};
use crate::report;
use crate::workload::{Scope, series::CHUNK};

const START_DEADLINE: Duration = Duration::from_secs(60);
const CONVERGE_DEADLINE: Duration = Duration::from_secs(60);
/// A final read is tried again until it is answered, for so long.
const FINAL_READ_DEADLINE: Duration = Duration::from_secs(60);
/// One answer of a final read: a chunk of a long load run is large.
const FINAL_ANSWER_DEADLINE: Duration = Duration::from_secs(30);
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// What is run against.
pub enum Backend {
    /// Processes started here.
    Local(Start),
    /// Nodes that somebody else runs; nothing is done to them.
    Remote(Vec<Target>),
}

/// A finished run.
pub struct Outcome {
    pub directory: PathBuf,
    pub results: Results,
}

/// Carries out `plan` and leaves everything about it in a new directory under `runs`.
pub async fn run(plan: Plan, backend: Backend, runs: &Path) -> anyhow::Result<Outcome> {
    let directory = new_directory(runs, plan.settings.seed)?;
    eprintln!("run directory: {}", directory.display());
    write_json(&directory.join("plan.json"), &plan)?;
    std::fs::write(directory.join("repro.sh"), repro(&directory, &backend)?)?;
    let recorder = Recorder::create(&directory.join("history.jsonl"))?;
    let (faults, ending) = match backend {
        Backend::Local(start) => local(&plan, start, &directory, &recorder).await?,
        Backend::Remote(targets) => remote(&plan, &targets, &directory, &recorder).await?,
    };
    let history = recorder.finish()?;
    write_lines(&directory.join("nemesis.jsonl"), &faults)?;
    write_json(&directory.join("ending.json"), &ending)?;
    let evidence = Evidence {
        panics: panics(&directory, plan.settings.nodes)?,
        plan,
        history,
        faults,
        ending,
    };
    finish(directory, &evidence)
}

/// Judges a recorded run again.
pub fn check(directory: &Path) -> anyhow::Result<Outcome> {
    let plan: Plan = read_json(&directory.join("plan.json"))?;
    let evidence = Evidence {
        history: read_lines(&directory.join("history.jsonl"))?,
        faults: read_lines(&directory.join("nemesis.jsonl"))?,
        ending: read_json(&directory.join("ending.json"))?,
        panics: panics(directory, plan.settings.nodes)?,
        plan,
    };
    finish(directory.to_owned(), &evidence)
}

fn finish(directory: PathBuf, evidence: &Evidence) -> anyhow::Result<Outcome> {
    let results = judge(evidence);
    write_json(&directory.join("results.json"), &results)?;
    std::fs::write(
        directory.join("index.html"),
        report::page(evidence, &results),
    )?;
    Ok(Outcome { directory, results })
}

async fn local(
    plan: &Plan,
    start: Start,
    directory: &Path,
    recorder: &Recorder,
) -> anyhow::Result<(Vec<FaultRecord>, Ending)> {
    let nodes = directory.join("nodes");
    let mut cluster = Cluster::prepare(&start, plan.settings.nodes, &nodes)?;
    let targets = cluster.targets();
    cluster.start_all()?;
    first_ready(&mut cluster, &targets).await?;
    let (scope, mut ending) = scope(plan, directory, true);
    let context = context(plan, &scope, &targets, recorder);
    let (begin, end) = span(plan);
    eprintln!(
        "running for {} s, {} faults planned",
        plan.settings.seconds,
        plan.faults.len()
    );
    let nemesis = Nemesis::new(&mut cluster, recorder);
    let (lanes, faults) = futures::future::join(
        drive_all(&context, plan, begin, end),
        nemesis.run(&plan.faults, begin, end),
    )
    .await;
    lanes?;
    let faults = faults?;
    eprintln!("healed; waiting until every node is ready");
    ending.converged = all_ready(&targets, CONVERGE_DEADLINE).await;
    if ending.converged {
        eprintln!("reading everything from every node");
        read_all(&context, plan, "after the faults", &mut ending).await?;
        eprintln!("kill -9 of all nodes, start, and everything once more");
        cluster.kill_all()?;
        cluster.start_all()?;
        ending.restarted = true;
        ending.converged = all_ready(&targets, CONVERGE_DEADLINE).await;
        if ending.converged {
            read_all(&context, plan, "after the restart of all", &mut ending).await?;
        }
    }
    for n in 0..cluster.len() {
        // A node that is stuck is killed by this too; that it was stuck is already in the verdict.
        if let Err(error) = cluster.process(n).stop().await {
            eprintln!("  stop of node {n}: {error:#}");
        }
    }
    Ok((faults, ending))
}

/// Waits until all nodes are ready for the first time; one that ends instead is an error at once.
async fn first_ready(cluster: &mut Cluster, targets: &[Target]) -> anyhow::Result<()> {
    let deadline = Instant::now() + START_DEADLINE;
    while !all_ready(targets, Duration::from_millis(200)).await {
        if let Some((n, status)) = cluster.reap()?.first() {
            let words = cluster.last_words();
            bail!("node {n} ended before it was ready, {status}; last words:\n{words}");
        }
        if Instant::now() > deadline {
            let words = cluster.last_words();
            bail!("not ready after {START_DEADLINE:?}; last words:\n{words}");
        }
    }
    Ok(())
}

async fn remote(
    plan: &Plan,
    targets: &[Target],
    directory: &Path,
    recorder: &Recorder,
) -> anyhow::Result<(Vec<FaultRecord>, Ending)> {
    let (scope, mut ending) = scope(plan, directory, false);
    let context = context(plan, &scope, targets, recorder);
    let (begin, end) = span(plan);
    drive_all(&context, plan, begin, end).await?;
    ending.converged = all_ready(targets, CONVERGE_DEADLINE).await;
    read_all(&context, plan, "at the end", &mut ending).await?;
    Ok((Vec::new(), ending))
}

fn span(plan: &Plan) -> (Instant, Instant) {
    let begin = Instant::now();
    (begin, begin + Duration::from_secs(plan.settings.seconds))
}

fn scope(plan: &Plan, directory: &Path, local: bool) -> (Scope, Ending) {
    let settings = &plan.settings;
    let run = directory
        .file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let base_ms = wall_ms();
    let scope = Scope {
        run: run.clone(),
        seed: settings.seed,
        registers: settings.registers,
        series: settings.series,
        base_ms,
        range_s: (settings.seconds + 1_800).max(3_600),
    };
    let ending = Ending {
        run,
        base_ms,
        local,
        converged: false,
        restarted: false,
        unserved: Vec::new(),
    };
    (scope, ending)
}

fn context<'a>(
    plan: &Plan,
    scope: &'a Scope,
    targets: &'a [Target],
    recorder: &'a Recorder,
) -> Context<'a> {
    Context {
        targets,
        scope,
        recorder,
        deadline: Duration::from_millis(plan.settings.deadline_ms),
        // One lane more: the final reads'.
        lanes: plan.lanes.len() + 1,
    }
}

async fn drive_all(
    context: &Context<'_>,
    plan: &Plan,
    begin: Instant,
    end: Instant,
) -> anyhow::Result<()> {
    let lanes = plan
        .lanes
        .iter()
        .enumerate()
        .map(|(n, lane)| drive(context, n, lane, begin, end));
    let mut lanes = std::pin::pin!(futures::future::try_join_all(lanes));
    loop {
        tokio::select! {
            done = &mut lanes => return done.map(|_| ()),
            () = tokio::time::sleep(PROGRESS_INTERVAL) => {
                let tally = context.recorder.tally();
                eprintln!(
                    "t={:>4}s ok={} fail={} info={}",
                    begin.elapsed().as_secs(), tally.ok, tally.fail, tally.info
                );
            }
        }
    }
}

/// Reads every register and every series from every node, each until it is answered.
async fn read_all(
    context: &Context<'_>,
    plan: &Plan,
    when: &str,
    ending: &mut Ending,
) -> anyhow::Result<()> {
    let context = Context {
        deadline: FINAL_ANSWER_DEADLINE,
        ..*context
    };
    let mut client = Client::new(&context, context.lanes - 1);
    let mut calls = Vec::new();
    for workload in &plan.settings.workloads {
        match workload {
            Workload::Register => calls.push(Call::Read),
            Workload::Append | Workload::Load => {
                calls.extend(
                    (0..plan.settings.series)
                        .step_by(CHUNK as usize)
                        .map(|first| {
                            let count = CHUNK;
                            Call::Scan { first, count }
                        }),
                );
            }
        }
    }
    for node in 0..context.targets.len() {
        for call in &calls {
            let deadline = Instant::now() + FINAL_READ_DEADLINE;
            while client.perform(call, node, true).await? != Kind::Ok {
                if Instant::now() > deadline {
                    let name = call.name();
                    ending
                        .unserved
                        .push(format!("{name} on node {node} {when}"));
                    break;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
    Ok(())
}

fn panics(directory: &Path, nodes: usize) -> anyhow::Result<Vec<(usize, String)>> {
    let mut found = Vec::new();
    for n in 0..nodes {
        let path = directory.join(format!("nodes/node-{n}/log"));
        if !path.exists() {
            continue;
        }
        let log = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let log = String::from_utf8_lossy(&log);
        found.extend(survival::panics(&log).into_iter().map(|line| (n, line)));
    }
    Ok(found)
}

fn new_directory(runs: &Path, seed: u64) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(runs).with_context(|| format!("create {}", runs.display()))?;
    let runs = runs.canonicalize()?;
    let seconds = wall_ms() / 1000;
    for attempt in 0..100 {
        let name = match attempt {
            0 => format!("{seed}-{seconds}"),
            n => format!("{seed}-{seconds}-{n}"),
        };
        let directory = runs.join(name);
        match std::fs::create_dir(&directory) {
            Ok(()) => return Ok(directory),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).context("create the run's directory"),
        }
    }
    bail!("100 runs of seed {seed} began in this second")
}

fn repro(directory: &Path, backend: &Backend) -> anyhow::Result<String> {
    let harness = std::env::current_exe()?;
    let against = match backend {
        Backend::Local(start) => format!("--bin '{}'", start.binary.display()),
        Backend::Remote(targets) => {
            let urls: Vec<String> = targets
                .iter()
                .map(|t| format!("http://{}", t.api))
                .collect();
            format!("--targets {}", urls.join(","))
        }
    };
    Ok(format!(
        "#!/bin/sh\n# The same operations and faults again; the timing is the machine's.\n\
         exec '{}' replay '{}' {against} \"$@\"\n",
        harness.display(),
        directory.join("plan.json").display()
    ))
}

fn write_json<T: serde::Serialize>(path: &Path, value: &T) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("parse {}", path.display()))
}

/// Reads a plan written by an earlier run.
pub fn read_plan(path: &Path) -> anyhow::Result<Plan> {
    read_json(path)
}
