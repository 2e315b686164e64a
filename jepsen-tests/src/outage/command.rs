//! The command line of `federation-outage`, and its course.

use std::cell::RefCell;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::time::Instant;

use super::METRIC;
use super::check::{Difference, compare, samples};
use super::feed::{Acknowledged, feed};
use crate::client::wall_ms;
use crate::cluster::{Cluster, Start, Target, all_ready, most_leading};

pub const USAGE: &str = "\
jepsen-tests federation-outage [--outage-seconds 6] [--bin PATH] [--dir RUNS]
    two child clusters take data, one loses a leader, while their parent is away; --outage-seconds
    1800 is the half hour that is promised";

const READY: Duration = Duration::from_secs(40);
/// How long the parent may take to have everything once the last sample was written.
const CATCH_UP: Duration = Duration::from_secs(60);
const PULL_EVERY: &str = "500ms";

/// Runs it; success only when nothing is missing and nothing is there twice.
pub fn outage(
    arguments: Vec<OsString>,
    programs: fn(Option<PathBuf>) -> anyhow::Result<(PathBuf, PathBuf)>,
) -> anyhow::Result<ExitCode> {
    let (mut binary, mut runs, mut away_s) = (None, PathBuf::from("jepsen-tests/runs"), 6u64);
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next()? {
        match argument {
            lexopt::Arg::Long("bin") => binary = Some(parser.value()?.into()),
            lexopt::Arg::Long("dir") => runs = parser.value()?.into(),
            lexopt::Arg::Long("outage-seconds") => {
                away_s = parser.value()?.to_string_lossy().parse()?;
            }
            other => bail!("{}\n{USAGE}", other.unexpected()),
        }
    }
    let (launcher, binary) = programs(binary)?;
    let directory = runs.join(format!("{}-federation-outage", wall_ms() / 1000));
    std::fs::create_dir_all(&directory)?;
    let directory = directory.canonicalize()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut tree = Tree::prepare(&binary, &launcher, &directory)?;
    let outcome = runtime.block_on(course(&mut tree, Duration::from_secs(away_s)));
    let differences =
        outcome.with_context(|| format!("{}\n{}", directory.display(), tree.last_words()))?;
    let mut whole = true;
    for (child, difference) in &differences {
        println!("{child}: {difference:?}");
        whole &= difference.is_none();
    }
    println!("{}", if whole { "VALID" } else { "INVALID" });
    Ok(ExitCode::from(u8::from(!whole)))
}

/// The clusters.
struct Tree {
    /// By name.
    children: Vec<(&'static str, Cluster)>,
    parent: Cluster,
}

impl Tree {
    fn prepare(binary: &Path, launcher: &Path, directory: &Path) -> anyhow::Result<Self> {
        let mut start = Start::new(binary.to_owned(), launcher.to_owned());
        start.arguments = vec!["--cluster.shards=3".to_owned()];
        let mut children = Vec::new();
        for (name, nodes) in [("many", 3), ("one", 1)] {
            let cluster = Cluster::prepare(&start, nodes, &directory.join(name))?;
            children.push((name, cluster));
        }
        let mut configuration =
            "global:\n  scrape_interval: 15s\nfederation:\n  children:\n".to_owned();
        for (name, cluster) in &children {
            let nodes: Vec<String> = cluster
                .targets()
                .iter()
                .map(|t| t.api.to_string())
                .collect();
            configuration += &format!(
                "    - name: {name}\n      targets: {nodes:?}\n      match: ['{METRIC}']\n      \
                 interval: {PULL_EVERY}\n"
            );
        }
        start.configuration = configuration;
        let parent = Cluster::prepare(&start, 3, &directory.join("parent"))?;
        Ok(Self { children, parent })
    }

    fn last_words(&mut self) -> String {
        let children = self.children.iter_mut();
        let words = children.map(|(name, cluster)| format!("{name}: {}", cluster.last_words()));
        words.collect::<String>() + &format!("parent: {}", self.parent.last_words())
    }
}

async fn course(
    tree: &mut Tree,
    away: Duration,
) -> anyhow::Result<Vec<(&'static str, Difference)>> {
    let began_ms = wall_ms();
    for (_, child) in &mut tree.children {
        child.start_all()?;
    }
    tree.parent.start_all()?;
    for cluster in tree.children.iter().map(|(_, c)| c).chain([&tree.parent]) {
        ensure!(
            all_ready(&cluster.targets(), READY).await,
            "a cluster is not ready"
        );
    }
    let until = RefCell::new(None);
    let acked = [RefCell::default(), RefCell::default()];
    let targets: Vec<Vec<Target>> = tree.children.iter().map(|(_, c)| c.targets()).collect();
    let feeds = async {
        tokio::try_join!(
            feed(&targets[0], &until, &acked[0]),
            feed(&targets[1], &until, &acked[1])
        )
    };
    let names: Vec<&'static str> = tree.children.iter().map(|(name, _)| *name).collect();
    let faults = async {
        let faults = faults(tree, &acked, away).await;
        *until.borrow_mut() = Some(Instant::now());
        faults
    };
    let (fed, faulted) = tokio::join!(feeds, faults);
    fed?;
    faulted?;
    settle(tree, &names, &acked, began_ms).await
}

async fn faults(
    tree: &mut Tree,
    acked: &[RefCell<Acknowledged>],
    away: Duration,
) -> anyhow::Result<()> {
    // The parent reads the children a few times before it goes.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before: Vec<usize> = acked.iter().map(|acked| acked.borrow().len()).collect();
    tree.parent.kill_all()?;
    eprintln!("parent away");
    tokio::time::sleep(away / 3).await;
    let child = &mut tree.children[0].1;
    let leader = most_leading(&child.targets()).await.context("no leader")?;
    child.process(leader).kill()?;
    eprintln!("child without its leader, node {leader}");
    tokio::time::sleep(away / 3).await;
    child.process(leader).start()?;
    tokio::time::sleep(away / 3).await;
    for (before, acked) in before.iter().zip(acked) {
        let during = acked.borrow().len() - before;
        ensure!(during > 0, "nothing was written while the parent was away");
        eprintln!("{during} samples while the parent was away");
    }
    tree.parent.start_all()?;
    ensure!(
        all_ready(&tree.parent.targets(), READY).await,
        "the parent is not back"
    );
    eprintln!("parent back");
    // Whoever pulls, a node less moves a third of the leases and of the leaders.
    let leader = most_leading(&tree.parent.targets())
        .await
        .context("no leader")?;
    tree.parent.process(leader).kill()?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    tree.parent.process(leader).start()?;
    eprintln!("parent lost node {leader} for 2 s");
    Ok(())
}

/// Waits until every node of the parent has everything, and says what is missing when it has not.
async fn settle(
    tree: &mut Tree,
    names: &[&'static str],
    acked: &[RefCell<Acknowledged>],
    began_ms: i64,
) -> anyhow::Result<Vec<(&'static str, Difference)>> {
    let targets = tree.parent.targets();
    ensure!(all_ready(&targets, READY).await, "the parent is not back");
    let end = Instant::now() + CATCH_UP;
    loop {
        let end_ms = wall_ms() + 1000;
        // Late samples lie before the beginning.
        let span_s = (end_ms - began_ms) / 1000 + 60;
        let mut differences = Vec::new();
        for (name, acked) in names.iter().zip(acked) {
            for target in &targets {
                let found = samples(*target, name, end_ms, span_s).await?;
                differences.push((*name, compare(&acked.borrow(), &found)));
            }
        }
        if differences.iter().all(|(_, d)| d.is_none()) || Instant::now() > end {
            return Ok(differences);
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}
