//! Log lines as Prometheus 3 writes them, on standard error:
//!
//! ```text
//! time=2026-01-02T03:04:05.678Z level=INFO source=scrape/pool.rs:41 msg="target added" job=node
//! ```
//!
//! or the same as one JSON object a line. A line never breaks in two: control characters are
//! escaped. Other people's crates speak one level quieter than ours.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use model::Timestamp;
use model::port::Clock;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::flags::{LogFormat, LogLevel};

/// Our crates, whose events are shown from the chosen level on.
const OURS: [&str; 11] = [
    "quorate",
    "node",
    "cluster",
    "federation",
    "host",
    "ingest",
    "model",
    "promql",
    "proto",
    "tsdb",
    "wal",
];

/// Sends every event of this process to standard error. An error when that was done before.
pub fn init(
    level: LogLevel,
    format: LogFormat,
    clock: Arc<dyn Clock>,
) -> Result<(), tracing_subscriber::util::TryInitError> {
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .event_format(Lines { format, clock });
    tracing_subscriber::registry()
        .with(layer)
        .with(targets(level))
        .try_init()
}

fn targets(level: LogLevel) -> Targets {
    let (ours, others) = match level {
        LogLevel::Debug => (LevelFilter::DEBUG, LevelFilter::INFO),
        LogLevel::Info => (LevelFilter::INFO, LevelFilter::WARN),
        LogLevel::Warn => (LevelFilter::WARN, LevelFilter::ERROR),
        LogLevel::Error => (LevelFilter::ERROR, LevelFilter::ERROR),
    };
    // While a peer is away it warns of every heartbeat; `cluster` says once that the peer is gone.
    let raft = match level {
        LogLevel::Debug => LevelFilter::WARN,
        _ => LevelFilter::ERROR,
    };
    let ours = OURS.into_iter().map(|name| (name, ours));
    Targets::new()
        .with_default(others)
        .with_target("openraft", raft)
        .with_targets(ours)
}

/// Formats events as lines.
pub struct Lines {
    pub format: LogFormat,
    pub clock: Arc<dyn Clock>,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let time = rfc3339(self.clock.now());
        let head = [
            ("time", Value::Text(time)),
            ("level", Value::Text(metadata.level().to_string())),
            ("source", Value::Text(source(metadata))),
            ("msg", Value::Text(fields.message)),
        ];
        let all = head.into_iter().chain(fields.others);
        let line = match self.format {
            LogFormat::Logfmt => logfmt(all),
            LogFormat::Json => json(all),
        };
        writer.write_str(&line)
    }
}

/// An event's fields.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

/// What a field holds, as far as JSON tells things apart.
enum Value {
    Text(String),
    /// A number or a truth value.
    Bare(String),
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::Text(text) | Value::Bare(text)) => self.message = text,
            (name, value) => self.others.push((name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, Value::Text(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, Value::Text(value.to_owned()));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        self.put(field, Value::Text(text));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Value::Bare(value.to_string()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, Value::Bare(value.to_string()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Value::Bare(value.to_string()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        let text = value.to_string();
        self.put(
            field,
            match value.is_finite() {
                true => Value::Bare(text),
                false => Value::Text(text),
            },
        );
    }
}

fn logfmt(fields: impl Iterator<Item = (&'static str, Value)>) -> String {
    let mut line = String::with_capacity(256);
    for (name, value) in fields {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(name);
        line.push('=');
        match value {
            Value::Bare(text) => line.push_str(&text),
            Value::Text(text) if needs_quotes(&text) => quote(&text, &mut line),
            Value::Text(text) => line.push_str(&text),
        }
    }
    line.push('\n');
    line
}

fn json(fields: impl Iterator<Item = (&'static str, Value)>) -> String {
    let mut line = String::from("{");
    for (name, value) in fields {
        if line.len() > 1 {
            line.push(',');
        }
        let text = match value {
            Value::Bare(text) => text,
            Value::Text(text) => serde_json::Value::String(text).to_string(),
        };
        line.push_str(&format!("\"{name}\":{text}"));
    }
    line.push_str("}\n");
    line
}

/// As Go's slog decides.
fn needs_quotes(text: &str) -> bool {
    let plain = |c: char| match c {
        ' ' | '=' | '"' => false,
        c => !c.is_control() && !c.is_whitespace() && c != char::REPLACEMENT_CHARACTER,
    };
    text.is_empty() || !text.chars().all(plain)
}

/// As Go's `strconv.Quote` writes.
fn quote(text: &str, line: &mut String) {
    line.push('"');
    for c in text.chars() {
        match c {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            c if c.is_ascii_control() => {
                write!(line, "\\x{:02x}", u32::from(c)).expect("a string takes all text");
            }
            c if c.is_control() => {
                write!(line, "\\u{:04x}", u32::from(c)).expect("a string takes all text");
            }
            c => line.push(c),
        }
    }
    line.push('"');
}

/// The file and line, short but telling: `pool.rs` says enough, `mod.rs` needs its folder.
fn source(metadata: &Metadata<'_>) -> String {
    let file = metadata.file().unwrap_or("unknown");
    let mut parts = file.rsplit(['/', '\\']);
    let name = parts.next().unwrap_or_default();
    let folder = parts.find(|part| *part != "src").unwrap_or_default();
    let line = metadata.line().unwrap_or(0);
    match matches!(name, "mod.rs" | "lib.rs" | "main.rs") && !folder.is_empty() {
        true => format!("{folder}/{name}:{line}"),
        false => format!("{name}:{line}"),
    }
}

/// `2026-01-02T03:04:05.678Z`. Days to a date by the civil calendar (H. Hinnant,
/// "chrono-Compatible Low-Level Date Algorithms").
pub fn rfc3339(time: Timestamp) -> String {
    let (days, ms) = (time.0.div_euclid(86_400_000), time.0.rem_euclid(86_400_000));
    let shifted = i128::from(days) + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = match month_from_march {
        0..=9 => month_from_march + 3,
        _ => month_from_march - 9,
    };
    let year = year_of_era + era * 400 + i128::from(month <= 2);
    let (hour, minute) = (ms / 3_600_000, ms / 60_000 % 60);
    let (second, ms) = (ms / 1000 % 60, ms % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;
    use std::time::Duration;

    use proptest::prelude::*;
    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    struct Stopped;

    impl Clock for Stopped {
        fn now(&self) -> Timestamp {
            Timestamp(1_767_323_045_678)
        }

        fn monotonic(&self) -> Duration {
            Duration::ZERO
        }
    }

    /// Keeps what is written.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Kept {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    fn written(format: LogFormat, level: LogLevel, say: impl FnOnce()) -> String {
        let kept = Kept::default();
        let clock = Arc::new(Stopped);
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(kept.clone())
            .event_format(Lines { format, clock });
        let subscriber = tracing_subscriber::registry()
            .with(layer)
            .with(targets(level));
        tracing::subscriber::with_default(subscriber, say);
        String::from_utf8(kept.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn lines_look_like_prometheus() {
        let line = written(LogFormat::Logfmt, LogLevel::Info, || {
            tracing::info!(
                file = "/etc/p.yml",
                shards = 16,
                ok = true,
                err = "a \"b\"\nc",
                empty = "",
                "Loading configuration file"
            );
        });
        let (head, rest) = line.split_once(" source=logging.rs:").unwrap();
        assert_eq!(head, "time=2026-01-02T03:04:05.678Z level=INFO");
        let (_, rest) = rest.split_once(' ').unwrap();
        assert_eq!(
            rest,
            "msg=\"Loading configuration file\" file=/etc/p.yml shards=16 ok=true err=\"a \\\"b\\\"\\nc\" empty=\"\"\n"
        );
    }

    #[test]
    fn json_lines_are_json() {
        let line = written(LogFormat::Json, LogLevel::Info, || {
            tracing::warn!(shard = 3, ratio = 0.5, err = %"x\ny", "follower behind");
        });
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["level"], "WARN");
        assert_eq!(value["msg"], "follower behind");
        assert_eq!((&value["shard"], &value["ratio"]), (&3.into(), &0.5.into()));
        assert_eq!(value["err"], "x\ny");
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn levels_hold_and_others_are_quieter() {
        let lines = written(LogFormat::Logfmt, LogLevel::Info, || {
            tracing::debug!("hidden");
            tracing::info!(target: "openraft::engine", "hidden too");
            tracing::warn!(target: "openraft::engine", "hidden as well");
            tracing::error!(target: "openraft::engine", "shown");
            tracing::warn!(target: "hyper", "shown");
            tracing::info!(target: "cluster::meta", "shown");
        });
        assert_eq!(lines.lines().count(), 3, "{lines}");
        assert!(!lines.contains("hidden"), "{lines}");
    }

    #[test]
    fn dates_are_right() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (4_102_444_799_999, "2099-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(rfc3339(Timestamp(ms)), text);
        }
        rfc3339(Timestamp::MIN);
        rfc3339(Timestamp::MAX);
    }

    proptest! {
        #[test]
        fn a_line_stays_one_line(text in "\\PC{0,20}[\\n\\r\\t\"\u{1}=]{0,3}") {
            let line = logfmt([("msg", Value::Text(text))].into_iter());
            prop_assert!(line.ends_with('\n'));
            prop_assert!(!line[..line.len() - 1].contains(|c: char| c.is_control()), "{:?}", line);
        }
    }
}
