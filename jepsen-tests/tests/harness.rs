//! The harness tested on processes: a right store passes, each wrong one is caught for what is
//! wrong with it, and no process outlives its run.
#![allow(
    clippy::disallowed_methods,
    reason = "starts real processes and reads what their runs leave behind"
)]

use std::path::Path;

use jepsen_tests::checker::{Results, Verdict};
use jepsen_tests::cluster::{Cluster, Start, all_ready};
use jepsen_tests::plan::{FaultKind, Settings, Workload, generate};
use jepsen_tests::run::{Backend, check, read_plan, run};

fn start(bug: Option<&str>) -> Start {
    let mut start = Start::new(
        env!("CARGO_BIN_EXE_twin").into(),
        env!("CARGO_BIN_EXE_jepsen-tests").into(),
    );
    let bug = bug.map(|bug| ("TWIN_BUG".to_owned(), bug.to_owned()));
    start.environment.extend(bug);
    start
}

fn settings(seconds: u64, nemeses: &[FaultKind]) -> Settings {
    Settings {
        seconds,
        nemeses: nemeses.to_vec(),
        series: 8,
        ..Settings::default()
    }
}

fn execute(settings: Settings, bug: Option<&str>, runs: &Path) -> (Results, std::path::PathBuf) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let plan = generate(settings).unwrap();
    let outcome = runtime
        .block_on(run(plan, Backend::Local(start(bug)), runs))
        .unwrap();
    (outcome.results, outcome.directory)
}

fn broken(bug: &str, nemeses: &[FaultKind]) -> Results {
    let runs = tempfile::tempdir().unwrap();
    let (results, _) = execute(settings(5, nemeses), Some(bug), runs.path());
    assert_eq!(
        results.verdict,
        Verdict::Invalid,
        "{bug}: {:#?}",
        results.reports
    );
    results
}

fn verdict_of(results: &Results, checker: &str) -> Verdict {
    let report = results.reports.iter().find(|r| r.checker.contains(checker));
    report.unwrap().verdict
}

#[test]
fn a_right_store_passes_under_every_nemesis_and_is_judged_the_same_again() {
    let runs = tempfile::tempdir().unwrap();
    let (results, directory) = execute(settings(14, &FaultKind::PLANNABLE), None, runs.path());
    assert_eq!(results.verdict, Verdict::Valid, "{:#?}", results.reports);
    for name in [
        "plan.json",
        "nemesis.jsonl",
        "results.json",
        "index.html",
        "repro.sh",
    ] {
        assert!(directory.join(name).is_file(), "{name}");
    }
    let again = check(&directory).unwrap();
    assert_eq!(again.results, results);
    let plan = read_plan(&directory.join("plan.json")).unwrap();
    assert_eq!(plan, generate(plan.settings.clone()).unwrap());
}

#[test]
fn a_right_store_passes_the_load() {
    let runs = tempfile::tempdir().unwrap();
    let load = Settings {
        seconds: 8,
        workloads: vec![Workload::Load],
        nemeses: vec![FaultKind::KillLeader],
        series: 120,
        interval_ms: 200,
        fault_every_ms: 2_500,
        ..Settings::default()
    };
    let (results, _) = execute(load, None, runs.path());
    assert_eq!(results.verdict, Verdict::Valid, "{:#?}", results.reports);
    assert!(results.availability.outages.len() >= 2);
}

#[test]
fn lost_writes_are_caught() {
    let results = broken("lose-writes", &[]);
    assert_eq!(verdict_of(&results, "set-full"), Verdict::Invalid);
    assert_eq!(verdict_of(&results, "zones"), Verdict::Invalid);
}

#[test]
fn an_acknowledgement_before_the_store_is_caught_by_a_kill() {
    let results = broken("ack-before-store", &[FaultKind::KillAll]);
    assert_eq!(verdict_of(&results, "set-full"), Verdict::Invalid);
}

#[test]
fn stale_reads_are_caught() {
    let results = broken("stale-reads", &[]);
    assert_eq!(verdict_of(&results, "zones"), Verdict::Invalid);
}

#[test]
fn duplicates_wrong_values_refusals_and_deaths_are_caught() {
    assert_eq!(
        verdict_of(&broken("duplicate", &[]), "set-full"),
        Verdict::Invalid
    );
    let corrupt = broken("corrupt", &[]);
    assert_eq!(verdict_of(&corrupt, "set-full"), Verdict::Invalid);
    assert_eq!(verdict_of(&corrupt, "zones"), Verdict::Invalid);
    assert_eq!(
        verdict_of(&broken("refuse", &[]), "answers"),
        Verdict::Invalid
    );
    assert_eq!(
        verdict_of(&broken("crash", &[]), "processes"),
        Verdict::Invalid
    );
}

#[test]
fn no_process_outlives_its_cluster() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut cluster = Cluster::prepare(&start(None), 3, directory.path()).unwrap();
    cluster.start_all().unwrap();
    let minute = std::time::Duration::from_secs(60);
    assert!(runtime.block_on(all_ready(&cluster.targets(), minute)));
    cluster.process(1).pause().unwrap();
    let pids: Vec<u32> = (0..3).filter_map(|n| cluster.process(n).pid()).collect();
    assert_eq!(pids.len(), 3);
    drop(cluster);
    for pid in pids {
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{pid} lives");
    }
}
