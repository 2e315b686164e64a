//! Scrapes of one target, as a script: bodies in, batches out; then the loop around them on
//! virtual time. Counts and error texts are those prometheus 3.5.3 gave for the same bodies.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use ingest::metrics::{Metrics, Outcome};
use ingest::relabel::{Action, RelabelConfig, Rule};
use ingest::scrape::{
    Fetch, FetchError, Fetched, Health, Ingested, Limits, Loop, MetadataCell, Scrape, ScrapeJob,
    ScrapeRequest, Status, StatusCell, Stop, Target,
};
use model::batch::Fence;
use model::port::Clock;
use model::sample::is_stale;
use model::sink::{Reason, Rejection, Sink, WriteError, Written};
use model::{Batch, Labels, Timestamp, number};
use tokio::sync::watch;

fn target(job: ScrapeJob) -> Arc<Target> {
    let found = Labels::from_pairs([("__address__", "h:1"), ("zone", "z")]);
    Arc::new(Target::from_discovered(&found, &job).unwrap().unwrap())
}

fn job() -> ScrapeJob {
    ScrapeJob::new("j")
}

fn body(text: &str) -> Result<Fetched, FetchError> {
    Ok(Fetched {
        content_type: "text/plain; version=0.0.4".to_owned(),
        body: text.to_owned().into(),
    })
}

fn refused() -> Result<Fetched, FetchError> {
    Err(FetchError::Status("500 Internal Server Error".to_owned()))
}

/// Rows of a batch without the target's own labels, sorted: `name{…} value @timestamp`; the
/// report's rows only when they are `up`.
fn rows(batch: &Batch) -> Vec<String> {
    batch.validate().unwrap();
    let mut rows = Vec::new();
    for i in 0..batch.rows.len() {
        let labels = &batch.series[batch.rows.series[i] as usize];
        let name = labels.metric_name();
        if name.starts_with("scrape_") {
            continue;
        }
        let own = [
            ("instance", "h:1"),
            ("job", "j"),
            ("zone", "z"),
            ("__name__", name),
        ];
        let rest: Vec<String> = labels
            .iter()
            .filter(|pair| !own.contains(pair))
            .map(|(n, v)| format!("{n}={v:?}"))
            .collect();
        let value = batch.rows.values[i];
        let value = if is_stale(value) {
            "gone".to_owned()
        } else {
            number::exposition(value)
        };
        let at = batch.rows.timestamps[i];
        rows.push(format!("{name}{{{}}} {value} @{at}", rest.join(",")));
    }
    rows.sort();
    rows
}

/// Scrapes and stores.
fn scrape(scrape: &mut Scrape, at: i64, body: Result<Fetched, FetchError>) -> Ingested {
    let ingested = scrape.ingest(Timestamp(at), Duration::from_millis(500), body);
    scrape.written();
    ingested
}

fn counts(ingested: &Ingested) -> (usize, usize, usize) {
    (
        ingested.samples_scraped,
        ingested.samples_post_relabeling,
        ingested.series_added,
    )
}

#[test]
fn vanished_series_are_marked_once() {
    let mut state = Scrape::new(target(job()), MetadataCell::default());
    let first = scrape(&mut state, 10, body("a 1\nb 2\nc 3 7\n"));
    assert_eq!(
        rows(&first.batch),
        ["a{} 1 @10", "b{} 2 @10", "c{} 3 @7", "up{} 1 @10"]
    );
    assert_eq!(counts(&first), (3, 3, 3));
    // c had its own timestamp: nobody can say when it ended.
    let second = scrape(&mut state, 20, body("a 1\nd 1\n"));
    assert_eq!(
        rows(&second.batch),
        ["a{} 1 @20", "b{} gone @20", "d{} 1 @20", "up{} 1 @20"]
    );
    assert_eq!(counts(&second), (2, 2, 1));
    let third = scrape(&mut state, 30, body("a 1\n"));
    assert_eq!(
        rows(&third.batch),
        ["a{} 1 @30", "d{} gone @30", "up{} 1 @30"]
    );
    let fourth = scrape(&mut state, 40, body("a 1\nb 5\n"));
    assert_eq!(
        rows(&fourth.batch),
        ["a{} 1 @40", "b{} 5 @40", "up{} 1 @40"]
    );
}

#[test]
fn the_report_tells_of_the_scrape() {
    let mut state = Scrape::new(target(job()), MetadataCell::default());
    let batch = scrape(&mut state, 10, body("a 1\n")).batch;
    let value = |name: &str| {
        let at = |s: &Labels| s.metric_name() == name && s.get("instance") == Some("h:1");
        let series = batch.series.iter().position(at).unwrap() as u32;
        let row = batch.rows.series.iter().position(|s| *s == series).unwrap();
        batch.rows.values[row]
    };
    assert_eq!(value("up"), 1.0);
    assert_eq!(value("scrape_duration_seconds"), 0.5);
    assert_eq!(value("scrape_samples_scraped"), 1.0);
    assert_eq!(value("scrape_samples_post_metric_relabeling"), 1.0);
    assert_eq!(value("scrape_series_added"), 1.0);
}

#[test]
fn a_failed_scrape_marks_everything_and_says_down() {
    for failure in [
        refused(),
        body("a 1\nb x\n"),
        body("a 1\na{l=\"1\",l=\"2\"} 1\n"),
        body("{\"\"} 1\n"),
    ] {
        let mut state = Scrape::new(target(job()), MetadataCell::default());
        scrape(&mut state, 10, body("a 1\nb 2\n"));
        let failed = scrape(&mut state, 20, failure.clone());
        assert!(failed.error.is_some());
        assert_eq!(
            rows(&failed.batch),
            ["a{} gone @20", "b{} gone @20", "up{} 0 @20"]
        );
        let again = scrape(&mut state, 30, failure);
        assert_eq!(rows(&again.batch), ["up{} 0 @30"]);
        let back = scrape(&mut state, 40, body("a 1\n"));
        assert_eq!(rows(&back.batch), ["a{} 1 @40", "up{} 1 @40"]);
    }
}

#[test]
fn a_lost_batch_is_not_believed() {
    let mut state = Scrape::new(target(job()), MetadataCell::default());
    scrape(&mut state, 10, body("a 1\nb 2\n"));
    state.ingest(Timestamp(20), Duration::ZERO, body("a 1\nc 1\n"));
    state.lost();
    // Neither b's marker nor c is known to be stored, so both need one.
    let third = scrape(&mut state, 30, body("a 1\n"));
    assert_eq!(
        rows(&third.batch),
        ["a{} 1 @30", "b{} gone @30", "c{} gone @30", "up{} 1 @30"]
    );
    let fourth = scrape(&mut state, 40, body("a 1\n"));
    assert_eq!(rows(&fourth.batch), ["a{} 1 @40", "up{} 1 @40"]);
}

/// As Prometheus 3.5: one without a time is told once, until another came or it may be lost.
#[test]
fn an_exemplar_without_a_time_is_not_repeated() {
    let mut state = Scrape::new(target(job()), MetadataCell::default());
    let body = |exemplar: &str| {
        Ok(Fetched {
            content_type: "application/openmetrics-text; version=1.0.0".to_owned(),
            body: format!("# TYPE a counter\na_total 1 # {{t=\"{exemplar}\n# EOF\n").into(),
        })
    };
    let mut at = 0;
    let mut times = |scrape: &mut Scrape, fetched, is_written| {
        at += 10;
        let ingested = scrape.ingest(Timestamp(at), Duration::ZERO, fetched);
        assert_eq!(ingested.error, None);
        if is_written {
            scrape.written();
        }
        let exemplars = ingested.batch.exemplars.iter();
        exemplars.map(|(_, e)| e.timestamp.0).collect::<Vec<_>>()
    };
    assert_eq!(times(&mut state, body("x\"} 1"), true), [10]);
    assert_eq!(times(&mut state, body("x\"} 1"), true), [0; 0]);
    assert_eq!(times(&mut state, body("x\"} 2"), true), [30]);
    assert_eq!(times(&mut state, body("y\"} 2"), false), [40]);
    assert_eq!(times(&mut state, body("y\"} 2"), true), [50]);
    scrape(&mut state, 55, refused());
    assert_eq!(times(&mut state, body("y\"} 2"), true), [0; 0]);
    assert_eq!(times(&mut state, body("y\"} 2 1"), true), [1000]);
    assert_eq!(times(&mut state, body("y\"} 2 1"), true), [1000]);
    assert_eq!(times(&mut state, body("y\"} 2"), true), [90]);
}

#[test]
fn the_end_marks_the_report_too() {
    let mut state = Scrape::new(target(job()), MetadataCell::default());
    assert!(state.end(Timestamp(5)).is_empty());
    scrape(&mut state, 10, body("a 1\n"));
    let end = state.end(Timestamp(20));
    assert_eq!(rows(&end), ["a{} gone @20", "up{} gone @20"]);
    assert_eq!(end.rows.len(), 6);
    assert!(state.end(Timestamp(30)).is_empty());
}

#[test]
fn conflicting_labels_move_aside() {
    let text = "a{job=\"own\",exported_job=\"first\",zone=\"\"} 1\n";
    let mut state = Scrape::new(target(job()), MetadataCell::default());
    let batch = scrape(&mut state, 1, body(text)).batch;
    assert_eq!(
        rows(&batch)[0],
        r#"a{exported_exported_job="own",exported_job="first"} 1 @1"#
    );
    let mut honoring = job();
    honoring.honor_labels = true;
    let mut state = Scrape::new(target(honoring), MetadataCell::default());
    let batch = scrape(&mut state, 1, body(text)).batch;
    let expected = Labels::from_pairs([
        ("__name__", "a"),
        ("exported_job", "first"),
        ("instance", "h:1"),
        ("job", "own"),
    ]);
    assert_eq!(batch.series[0], expected, "an exposed empty zone counts");
}

#[test]
fn timestamps_are_honored_tracked_or_not() {
    let mut deaf = job();
    deaf.honor_timestamps = false;
    let mut state = Scrape::new(target(deaf), MetadataCell::default());
    assert_eq!(
        rows(&scrape(&mut state, 10, body("a 1 7\n")).batch)[0],
        "a{} 1 @10"
    );
    assert_eq!(
        rows(&scrape(&mut state, 20, body("")).batch)[0],
        "a{} gone @20"
    );

    let mut tracking = job();
    tracking.track_timestamps_staleness = true;
    let mut state = Scrape::new(target(tracking), MetadataCell::default());
    assert_eq!(
        rows(&scrape(&mut state, 10, body("a 1 7\n")).batch)[0],
        "a{} 1 @7"
    );
    assert_eq!(
        rows(&scrape(&mut state, 20, body("")).batch)[0],
        "a{} gone @20"
    );
}

#[test]
fn relabelling_drops_and_renames_before_the_limits() {
    let mut job = job();
    job.limits.samples = 2;
    let rule = |regex: &str, action| {
        Rule::new(RelabelConfig {
            source_labels: vec!["__name__".to_owned()],
            regex: regex.to_owned(),
            target_label: "kind".to_owned(),
            replacement: "$0".to_owned(),
            action,
            ..RelabelConfig::default()
        })
    };
    let drop = RelabelConfig {
        source_labels: vec!["__name__".to_owned()],
        regex: "go_.*".to_owned(),
        action: Action::Drop,
        ..RelabelConfig::default()
    };
    job.metric_relabel = vec![
        Rule::new(drop).unwrap(),
        rule("a", Action::Replace).unwrap(),
    ];
    let mut state = Scrape::new(target(job), MetadataCell::default());
    // The second b is no new series: counted, but not against the limit.
    let twice = scrape(&mut state, 10, body("a 1\ngo_x 1\ngo_y 1\nb 2\nb 3\n"));
    assert_eq!((counts(&twice), twice.error), ((5, 3, 2), None));
    let good = scrape(&mut state, 20, body("a 1\ngo_x 1\ngo_y 1\nb 2\n"));
    assert_eq!(
        rows(&good.batch),
        [r#"a{kind="a"} 1 @20"#, "b{} 2 @20", "up{} 1 @20"]
    );
    assert_eq!((good.samples_scraped, good.samples_post_relabeling), (4, 2));
    let over = scrape(&mut state, 30, body("a 1\nb 2\nc 3\nd 4\n"));
    assert_eq!(
        over.error.as_ref().unwrap().to_string(),
        "sample limit exceeded"
    );
    assert_eq!(counts(&over), (4, 4, 0));
    let fewer = scrape(&mut state, 40, body("c 1\n"));
    assert_eq!(counts(&fewer), (1, 1, 1));
    assert_eq!(
        rows(&over.batch),
        [r#"a{kind="a"} gone @30"#, "b{} gone @30", "up{} 0 @30"]
    );
}

#[test]
fn limits_fail_the_whole_scrape() {
    let limited = |limits| {
        let mut job = job();
        job.limits = limits;
        let mut state = Scrape::new(target(job), MetadataCell::default());
        let error = scrape(&mut state, 1, body("ok 1\nmetric{label=\"value\"} 1\n")).error;
        error.map(|e| e.to_string()).unwrap_or_default()
    };
    assert_eq!(limited(Limits::default()), "");
    assert_eq!(
        limited(Limits {
            labels: 4,
            ..Limits::default()
        }),
        "label_limit exceeded (metric: metric, number of labels: 5, limit: 4)"
    );
    assert_eq!(
        limited(Limits {
            label_name_bytes: 7,
            ..Limits::default()
        }),
        "label_name_length_limit exceeded (metric: ok, label name: __name__, length: 8, limit: 7)"
    );
    assert_eq!(
        limited(Limits {
            label_value_bytes: 5,
            ..Limits::default()
        }),
        "label_value_length_limit exceeded (metric: metric, label name: __name__, \
         value: \"metric\", length: 6, limit: 5)"
    );
}

#[test]
fn the_content_type_decides_and_blank_is_refused() {
    let mut state = Scrape::new(target(job()), MetadataCell::default());
    let openmetrics = Fetched {
        content_type: "application/openmetrics-text; version=1.0.0".to_owned(),
        body: "a 1 2.5\n# EOF\n".into(),
    };
    let good = scrape(&mut state, 10, Ok(openmetrics.clone()));
    assert_eq!(rows(&good.batch)[0], "a{} 1 @2500");
    let blank = Fetched {
        content_type: String::new(),
        ..openmetrics
    };
    let error = scrape(&mut state, 20, Ok(blank)).error.unwrap().to_string();
    assert!(error.starts_with("non-compliant scrape target sending blank Content-Type"));
}

// --- the loop ---

/// Wall and monotonic time from tokio's paused clock, starting at an odd instant.
struct VirtualClock(tokio::time::Instant);

const START_MS: i64 = 1_700_000_000_123;

#[allow(
    clippy::disallowed_methods,
    reason = "the runtime's paused clock is the virtual one"
)]
impl VirtualClock {
    fn new() -> Arc<Self> {
        Arc::new(Self(tokio::time::Instant::now()))
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the runtime's paused clock is the virtual one"
)]
impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        Timestamp(START_MS + self.monotonic().as_millis() as i64)
    }

    fn monotonic(&self) -> Duration {
        tokio::time::Instant::now() - self.0
    }
}

/// Answers with `n 1`, `n 2`, …; or never.
#[derive(Default)]
struct Numbers {
    asked: Mutex<u32>,
    hangs: bool,
}

#[async_trait]
impl Fetch for Numbers {
    async fn fetch(&self, request: ScrapeRequest) -> Result<Fetched, FetchError> {
        assert_eq!(request.url, "http://h:1/metrics");
        if self.hangs {
            std::future::pending::<()>().await;
        }
        let mut asked = self.asked.lock().unwrap();
        *asked += 1;
        body(&format!("n {asked}\n"))
    }
}

/// Keeps batches; answers from a list, then with success.
#[derive(Default)]
struct Recorder {
    batches: Mutex<Vec<Batch>>,
    answers: Mutex<VecDeque<Result<Written, WriteError>>>,
}

#[async_trait]
impl Sink for Recorder {
    async fn write(&self, batch: Batch) -> Result<Written, WriteError> {
        self.batches.lock().unwrap().push(batch);
        let answer = self.answers.lock().unwrap().pop_front();
        answer.unwrap_or_else(|| Ok(Written::default()))
    }
}

struct Running {
    sink: Arc<Recorder>,
    status: StatusCell,
    metrics: Metrics,
}

/// Runs the loop for `run_for` of virtual time, then ends it so and waits for it.
fn run(
    fetch: Numbers,
    answers: Vec<Result<Written, WriteError>>,
    has_lease: bool,
    run_for: Duration,
    end: Stop,
) -> (Running, Status) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async move {
        let mut job = job();
        (job.interval, job.timeout) = (Duration::from_secs(10), Duration::from_secs(4));
        let running = Running {
            sink: Arc::new(Recorder {
                answers: Mutex::new(answers.into()),
                ..Recorder::default()
            }),
            status: StatusCell::default(),
            metrics: Metrics::new(),
        };
        let scrape_loop = Loop {
            target: target(job),
            fetch: Arc::new(fetch),
            sink: running.sink.clone(),
            clock: VirtualClock::new(),
            offset: Duration::from_millis(2_000),
            fence: Box::new(move || {
                has_lease.then_some(Fence {
                    target: 7,
                    epoch: 3,
                })
            }),
            status: running.status.clone(),
            metadata: MetadataCell::default(),
            metrics: running.metrics.clone(),
        };
        let (stop, stopped) = watch::channel(Stop::Run);
        let ending = async {
            tokio::time::sleep(run_for).await;
            let before = running.status.get();
            stop.send_replace(end);
            before
        };
        let ((), before) = tokio::join!(scrape_loop.run(stopped), ending);
        (running, before)
    })
}

fn written(running: &Running) -> Vec<Vec<String>> {
    let batches = running.sink.batches.lock().unwrap();
    assert!(
        batches.iter().all(|b| b.fence
            == Some(Fence {
                target: 7,
                epoch: 3
            })),
        "every batch carries the lease"
    );
    batches.iter().map(rows).collect()
}

#[test]
fn scrapes_fall_on_the_targets_grid_and_end_with_markers() {
    let (running, status) = run(
        Numbers::default(),
        vec![],
        true,
        Duration::from_secs(25),
        Stop::TargetGone,
    );
    let end = START_MS + 25_000;
    assert_eq!(
        written(&running),
        [
            vec![
                "n{} 1 @1700000002000".to_owned(),
                "up{} 1 @1700000002000".to_owned()
            ],
            vec![
                "n{} 2 @1700000012000".to_owned(),
                "up{} 1 @1700000012000".to_owned()
            ],
            vec![
                "n{} 3 @1700000022000".to_owned(),
                "up{} 1 @1700000022000".to_owned()
            ],
            vec![format!("n{{}} gone @{end}"), format!("up{{}} gone @{end}")],
        ]
    );
    assert_eq!(status.health, Health::Up);
    assert_eq!(status.last_scrape, Some(Timestamp(1_700_000_022_000)));
    assert_eq!(status.samples_scraped, 1);
    assert_eq!(running.metrics.scrapes(Outcome::Ok), 3);
    assert_eq!(running.metrics.samples.get(), 18);
}

#[test]
fn a_moved_lease_leaves_no_marker() {
    let (running, _) = run(
        Numbers::default(),
        vec![],
        true,
        Duration::from_secs(5),
        Stop::LeaseMoved,
    );
    assert_eq!(written(&running).len(), 1);
}

#[test]
fn without_a_lease_nothing_is_scraped() {
    let (running, status) = run(
        Numbers::default(),
        vec![],
        false,
        Duration::from_secs(60),
        Stop::TargetGone,
    );
    assert_eq!(written(&running).len(), 0);
    assert_eq!(status, Status::default());
}

#[test]
fn a_write_that_fails_is_a_failed_scrape_and_the_next_goes_on() {
    let fenced = Written {
        rejected: vec![Rejection {
            row: 0,
            reason: Reason::Fenced,
        }],
    };
    let answers = vec![
        Err(WriteError::Unavailable(vec![model::ShardId(3)])),
        Ok(fenced),
    ];
    let (running, status) = run(
        Numbers::default(),
        answers.clone(),
        true,
        Duration::from_secs(15),
        Stop::LeaseMoved,
    );
    assert_eq!(status.health, Health::Down);
    assert_eq!(status.last_error.as_deref(), Some(Reason::Fenced.as_str()));
    assert_eq!(running.metrics.scrapes(Outcome::NotStored), 2);
    let (running, status) = run(
        Numbers::default(),
        answers,
        true,
        Duration::from_secs(25),
        Stop::LeaseMoved,
    );
    assert_eq!((status.health, status.last_error), (Health::Up, None));
    assert_eq!(written(&running).len(), 3);
}

#[test]
fn a_target_that_hangs_is_down_after_its_timeout() {
    let fetch = Numbers {
        hangs: true,
        ..Numbers::default()
    };
    let (running, status) = run(
        fetch,
        vec![],
        true,
        Duration::from_secs(9),
        Stop::LeaseMoved,
    );
    assert_eq!(written(&running), [["up{} 0 @1700000002000"]]);
    assert_eq!(
        status.last_error.as_deref(),
        Some("Get \"http://h:1/metrics\": context deadline exceeded")
    );
    assert_eq!(status.last_duration, Duration::from_secs(4));
    assert_eq!(running.metrics.scrapes(Outcome::NotFetched), 1);
}

mod histograms {
    use ingest::exposition::MetricKind;
    use ingest::scrape::Histograms;
    use model::Histogram;
    use prost::Message;
    use proto::exposition as wire;

    use super::*;

    /// `h` of schema 3 with three buckets of 1, 2 and 1 and one more in `c_total`.
    fn families(count: u64) -> Vec<wire::MetricFamily> {
        let span = |offset, length| wire::BucketSpan {
            offset: Some(offset),
            length: Some(length),
        };
        let exemplar = |seconds: Option<i64>| wire::Exemplar {
            label: vec![wire::LabelPair {
                name: Some("trace_id".to_owned()),
                value: Some("x".to_owned()),
            }],
            value: Some(0.5),
            timestamp: seconds.map(|seconds| wire::Timestamp {
                seconds: Some(seconds),
                nanos: None,
            }),
        };
        let native = wire::Histogram {
            sample_count: Some(count),
            sample_sum: Some(12.5),
            schema: Some(3),
            zero_threshold: Some(0.001),
            zero_count: Some(1),
            positive_span: vec![span(0, 2), span(3, 1)],
            positive_delta: vec![1, 1, -1],
            exemplars: vec![exemplar(Some(7)), exemplar(None)],
            ..Default::default()
        };
        let counter = wire::Counter {
            value: Some(5.0),
            exemplar: Some(exemplar(None)),
            ..Default::default()
        };
        let family =
            |name: &str, kind: wire::MetricType, metric: wire::Metric| wire::MetricFamily {
                name: Some(name.to_owned()),
                help: Some(format!("help of {name}")),
                r#type: Some(kind as i32),
                metric: vec![metric],
                unit: None,
            };
        vec![
            family(
                "h",
                wire::MetricType::Histogram,
                wire::Metric {
                    histogram: Some(native),
                    ..Default::default()
                },
            ),
            family(
                "c_total",
                wire::MetricType::Counter,
                wire::Metric {
                    counter: Some(counter),
                    ..Default::default()
                },
            ),
        ]
    }

    fn protobuf(families: &[wire::MetricFamily]) -> Result<Fetched, FetchError> {
        let bytes = families
            .iter()
            .flat_map(Message::encode_length_delimited_to_vec);
        Ok(Fetched {
            content_type: "application/vnd.google.protobuf; \
                           proto=io.prometheus.client.MetricFamily; encoding=delimited"
                .to_owned(),
            body: bytes.collect::<Vec<u8>>().into(),
        })
    }

    fn native() -> Histograms {
        Histograms {
            native: true,
            ..Histograms::default()
        }
    }

    fn state(histograms: Histograms) -> Scrape {
        let job = ScrapeJob {
            histograms,
            ..job()
        };
        Scrape::new(target(job), MetadataCell::default())
    }

    fn stored(batch: &Batch, name: &str) -> Option<Arc<Histogram>> {
        let series = batch.series.iter().position(|s| s.metric_name() == name)? as u32;
        let row = batch.rows.series.iter().position(|s| *s == series)?;
        batch.rows.histogram(row).cloned()
    }

    #[test]
    fn they_are_stored_where_they_are_wanted() {
        let mut with = state(native());
        let scraped = scrape(&mut with, 10, protobuf(&families(5)));
        assert_eq!(scraped.error, None);
        let histogram = stored(&scraped.batch, "h").unwrap();
        assert_eq!(histogram.positive_buckets, [1.0, 2.0, 1.0]);
        assert_eq!(counts(&scraped), (2, 2, 2));
        // As Prometheus 3.5.3 without the feature: scraped, but nothing more.
        let mut without = state(Histograms::default());
        let scraped = scrape(&mut without, 10, protobuf(&families(5)));
        assert_eq!(stored(&scraped.batch, "h"), None);
        assert_eq!(counts(&scraped), (2, 1, 1));
    }

    #[test]
    fn a_series_ends_as_what_it_was() {
        let mut state = state(native());
        scrape(&mut state, 10, protobuf(&families(5)));
        let gone = scrape(&mut state, 20, protobuf(&families(5)[1..]));
        let marker = stored(&gone.batch, "h").unwrap();
        assert!(marker.is_stale() && marker.is_integer);
        assert!(marker.positive_buckets.is_empty());
        let end = state.end(Timestamp(30));
        assert!(rows(&end).contains(&"c_total{} gone @30".to_owned()));
        assert_eq!(stored(&end, "c_total"), None);
    }

    /// The texts are those of Prometheus 3.5.3's targets page.
    #[test]
    fn one_that_is_wrong_or_too_large_fails_the_scrape() {
        let wrong = scrape(&mut state(native()), 10, protobuf(&families(9)));
        assert_eq!(counts(&wrong), (1, 0, 0));
        assert_eq!(
            wrong.error.unwrap().to_string(),
            "5 observations found in buckets, but the Count field is 9: histogram's observation \
             count should equal the number of observations found in the buckets (in absence of NaN)"
        );
        assert_eq!(rows(&wrong.batch), ["up{} 0 @10"]);
        let limited = |buckets_max, schema_max| {
            let histograms = Histograms {
                buckets_max,
                schema_max,
                ..native()
            };
            scrape(&mut state(histograms), 10, protobuf(&families(5)))
        };
        let lowered = stored(&limited(2, 8).batch, "h").unwrap();
        assert_eq!((lowered.schema, lowered.positive_buckets.len()), (0, 2));
        assert_eq!(stored(&limited(0, 1).batch, "h").unwrap().schema, 1);
        // Bucket 0 and those above it do not merge at any schema.
        let refused = limited(1, 8);
        assert_eq!(
            refused.error.unwrap().to_string(),
            "histogram bucket limit exceeded"
        );
        assert_eq!(refused.samples_post_relabeling, 2);
    }

    #[test]
    fn classic_ones_are_converted_only_if_they_can_be_stored() {
        let text = "# TYPE c histogram\nc_bucket{le=\"1\"} 2\nc_bucket{le=\"+Inf\"} 3\nc_count 3\n\
                    c_sum 4\n";
        let convert = Histograms {
            convert_classic: true,
            ..native()
        };
        let converted = scrape(&mut state(convert), 10, body(text));
        assert_eq!(rows(&converted.batch), ["c{} 4 @10", "up{} 1 @10"]);
        assert_eq!(counts(&converted), (1, 1, 1));
        let both = Histograms {
            keep_classic: true,
            ..convert
        };
        assert_eq!(counts(&scrape(&mut state(both), 10, body(text))), (5, 5, 5));
        let unable = Histograms {
            native: false,
            ..convert
        };
        let kept = scrape(&mut state(unable), 10, body(text));
        assert_eq!(counts(&kept), (4, 4, 4));
    }

    #[test]
    fn exemplars_and_metadata_are_kept() {
        let metadata = MetadataCell::default();
        let job = ScrapeJob {
            histograms: native(),
            ..job()
        };
        let mut state = Scrape::new(target(job), metadata.clone());
        let batch = scrape(&mut state, 10, protobuf(&families(5))).batch;
        batch.validate().unwrap();
        let exemplars = batch.exemplars.iter().map(|(series, e)| {
            let name = batch.series[*series as usize].metric_name();
            (name, e.labels.to_string(), e.timestamp.0)
        });
        let trace = || r#"{trace_id="x"}"#.to_owned();
        assert_eq!(
            exemplars.collect::<Vec<_>>(),
            [("h", trace(), 7000), ("c_total", trace(), 10)]
        );
        let known = metadata.get("h").unwrap();
        assert_eq!(
            (known.kind, known.help.as_str()),
            (MetricKind::Histogram, "help of h")
        );
        scrape(&mut state, 20, refused());
        assert!(metadata.get("c_total").is_some());
    }

    #[test]
    fn names_may_be_held_to_the_old_rules() {
        let mut legacy = job();
        legacy.names.legacy = true;
        let mut state = Scrape::new(target(legacy), MetadataCell::default());
        let refused = scrape(&mut state, 10, body("{\"a.b\"} 1\n"));
        let error = refused.error.unwrap().to_string();
        assert!(
            error.starts_with("invalid metric name or label names: {__name__=\"a.b\""),
            "{error}"
        );
    }
}
