//! The log of all queries, `query_log_file` of the configuration: a line of JSON for each that ended,
//! with the fields of Prometheus 3.5.
//!
//! Promise: a query never waits for the log. What the file does not take in time is lost and
//! counted; a file that cannot be opened is told and leaves the log off.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use model::Timestamp;
use model::limits::QUERY_LOG_LINES_MAX;
use model::port::{Clock, Spawn, Task};
use prometheus::{IntCounter, IntGauge, Registry};
use promql::Stats;
use tokio::sync::mpsc;
use tracing::warn;

use super::{Query, Timings, write_samples};
use crate::config::Surroundings;
use crate::web::instant;
use crate::web::json::Json;

/// Who asked, as the log shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub client: String,
    pub method: String,
    pub path: String,
}

/// How a query ended and what it took.
#[derive(Debug, Clone, Copy)]
pub struct Took<'a> {
    pub failure: Option<&'a str>,
    pub timings: Timings,
    pub stats: &'a Stats,
}

/// Where lines go.
pub struct QueryLog {
    spawn: Arc<dyn Spawn>,
    surroundings: Arc<dyn Surroundings + Send + Sync>,
    open: Mutex<Option<Open>>,
    enabled: IntGauge,
    failures: IntCounter,
}

struct Open {
    lines: mpsc::Sender<String>,
    _task: Task,
}

impl QueryLog {
    /// Off until [`QueryLog::write_to`].
    pub fn new(spawn: Arc<dyn Spawn>, surroundings: Arc<dyn Surroundings + Send + Sync>) -> Self {
        let enabled = IntGauge::new(
            "prometheus_engine_query_log_enabled",
            "State of the query log.",
        );
        let failures = IntCounter::new(
            "prometheus_engine_query_log_failures_total",
            "The number of query log failures.",
        );
        Self {
            spawn,
            surroundings,
            open: Mutex::default(),
            enabled: enabled.expect("names are constants"),
            failures: failures.expect("names are constants"),
        }
    }

    pub fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.enabled.clone()))?;
        registry.register(Box::new(self.failures.clone()))
    }

    /// Opens the file anew, so that one that was moved away is left alone; `None` turns it off.
    pub fn write_to(&self, file: Option<&Path>) {
        let opened = file.and_then(|file| match self.surroundings.append_to(file) {
            Ok(opened) => Some(opened),
            Err(error) => {
                warn!(%error, file = %file.display(), "the query log cannot be written");
                self.failures.inc();
                None
            }
        });
        self.enabled.set(i64::from(opened.is_some()));
        let open = opened.map(|file| {
            let (lines, waiting) = mpsc::channel(QUERY_LOG_LINES_MAX);
            let writing = write(file, waiting, self.failures.clone());
            Open {
                lines,
                _task: self.spawn.spawn("query log", Box::pin(writing)),
            }
        });
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = open;
    }

    /// Notes a query that ended.
    pub fn note(&self, clock: &dyn Clock, query: &Query<'_>, took: Took<'_>) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = &*open {
            let line = line(clock.now(), query, took);
            if open.lines.try_send(line).is_err() {
                self.failures.inc();
            }
        }
    }
}

async fn write(
    mut file: Box<dyn Write + Send>,
    mut lines: mpsc::Receiver<String>,
    failures: IntCounter,
) {
    while let Some(line) = lines.recv().await {
        if let Err(error) = file.write_all(line.as_bytes()) {
            failures.inc();
            warn!(%error, "a line of the query log is lost");
        }
    }
}

fn line(at: Timestamp, query: &Query<'_>, took: Took<'_>) -> String {
    let (start, end, step) = query.span.ends();
    let mut json = Json::default();
    json.raw("{\"time\":").text(&instant::format(at));
    json.raw(",\"level\":\"INFO\",\"source\":\"queries/log.rs\",\"msg\":\"promql query logged\"");
    json.raw(",\"params\":{\"end\":")
        .text(&instant::format_millis(end));
    json.raw(",\"query\":").text(query.text);
    json.raw(",\"start\":").text(&instant::format_millis(start));
    json.raw(",\"step\":").value(&step.as_secs()).raw("}");
    if let Some(failure) = took.failure {
        json.raw(",\"error\":").text(failure);
    }
    json.raw(",\"stats\":{");
    took.timings.write(&mut json);
    json.raw(",");
    write_samples(&mut json, took.stats, false);
    json.raw("},\"spanID\":\"0000000000000000\"");
    if let Some(origin) = &query.origin {
        json.raw(",\"httpRequest\":{\"clientIP\":")
            .text(&origin.client);
        json.raw(",\"method\":").text(&origin.method);
        json.raw(",\"path\":").text(&origin.path).raw("}");
    }
    json.raw("}\n");
    json.into_string()
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use super::super::Span;
    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Surroundings for Kept {
        fn read(&self, _file: &Path) -> io::Result<String> {
            Err(io::ErrorKind::NotFound.into())
        }

        fn append_to(&self, file: &Path) -> io::Result<Box<dyn Write + Send>> {
            match file.to_str() {
                Some("good") => Ok(Box::new(self.clone())),
                _ => Err(io::ErrorKind::PermissionDenied.into()),
            }
        }
    }

    /// Prometheus 3.5.3's line for `query=1/<` on GET; the timings and the source are ours.
    #[tokio::test]
    async fn every_query_that_ended_is_a_line() {
        let root = tempfile::tempdir().unwrap();
        let world = host::world(root.path()).unwrap();
        let kept = Kept::default();
        let log = QueryLog::new(world.spawn.clone(), Arc::new(kept.clone()));
        let query = Query {
            text: "1 < 2",
            span: Span::Range {
                start: Timestamp(0),
                end: Timestamp(3_000_500),
                step: Duration::from_secs(1),
            },
            params: promql::QueryParams::default(),
            time_max: Duration::from_secs(1),
            trail: None,
            origin: Some(Origin {
                client: "127.0.0.1".to_owned(),
                method: "GET".to_owned(),
                path: "/api/v1/query_range".to_owned(),
            }),
        };
        let timings = Timings {
            queue: Duration::from_micros(20),
            evaluation: Duration::from_millis(3),
            total: Duration::from_millis(4),
            engine: promql::Timings::default(),
        };
        let stats = Stats {
            samples_read: 7,
            ..Stats::default()
        };
        let took = |failure| Took {
            failure,
            timings,
            stats: &stats,
        };
        log.write_to(Some(Path::new("bad")));
        log.note(&*world.clock, &query, took(None));
        assert_eq!((log.enabled.get(), log.failures.get()), (0, 1));
        log.write_to(Some(Path::new("good")));
        log.note(&*world.clock, &query, took(Some("too bad")));
        let seen = || String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        while seen().is_empty() {
            tokio::task::yield_now().await;
        }
        let text = seen();
        let expected = concat!(
            r#","level":"INFO","source":"queries/log.rs","msg":"promql query logged","#,
            r#""params":{"end":"1970-01-01T00:50:00.500Z","query":"1 \u003c 2","#,
            r#""start":"1970-01-01T00:00:00.000Z","step":1},"error":"too bad","stats":{"timings":"#,
        );
        assert!(text.contains(expected), "{text}");
        let samples = r#"},"samples":{"totalQueryableSamples":7,"peakSamples":0}},"spanID""#;
        assert!(text.contains(samples), "{text}");
        let origin = r#","httpRequest":{"clientIP":"127.0.0.1","method":"GET","path":"/api/v1/query_range"}}"#;
        assert!(text.ends_with(&format!("{origin}\n")), "{text}");
        log.write_to(None);
        assert_eq!(log.enabled.get(), 0);
    }
}
