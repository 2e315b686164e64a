//! What people ask: whatever can be parsed prints as itself, and is computed within its budgets.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use model::limits::QUERY_BYTES_MAX;
use model::port::Clock;
use model::regex::Regex;
use model::{Labels, Timestamp};
use promql::{Engine, EngineOptions, ParseOptions, QueryParams, parse_with};

#[allow(dead_code, reason = "the scripts use all of it")]
#[path = "../../promql/tests/scripts/memory.rs"]
mod memory;

use memory::Memory;

const STEP: Duration = Duration::from_secs(60);
/// Milliseconds.
const END: i64 = 3_600_000;

/// Time that stands still: only the budgets end a query.
struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp(END)
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

static DATA: LazyLock<Memory> = LazyLock::new(|| {
    let mut data = Memory::default();
    for (n, name) in ["a", "b", "c_bucket"].into_iter().enumerate() {
        for le in ["0.1", "1", "+Inf"] {
            let labels = Labels::from_pairs([("__name__", name), ("le", le)]);
            for at in (0..=END).step_by(30_000 + 7_000 * n) {
                data.add(&labels, at, (at % 900_000) as f64 / 1e3);
            }
        }
    }
    data
});

pub fn expression(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let all = ParseOptions {
        experimental_functions: true,
        duration_expressions: true,
        ..ParseOptions::default()
    };
    let _ = promql::parse_matchers(text);
    let Ok(expr) = parse_with(text, all) else {
        return;
    };
    let (printed, laid_out) = (expr.to_string(), promql::pretty::pretty(&expr));
    let plain = ParseOptions {
        duration_expressions: false,
        ..all
    };
    // As Prometheus prints a computed offset, `x offset ++1 + 2`, it reads otherwise: `x offset 1 + 2`. And what is
    // no UTF-8, `"\xff"`, is kept as a replacement character, which as such cannot be asked for.
    if parse_with(text, plain).is_ok() && !printed.contains('\u{fffd}') {
        // Laid out, what is deep is long.
        let readable = [&printed, &laid_out]
            .into_iter()
            .filter(|text| text.len() <= QUERY_BYTES_MAX);
        for text in readable {
            let again = parse_with(text, all).map(|expr| expr.to_string());
            assert_eq!(again.map_err(|e| e.to_string()).as_ref(), Ok(&printed));
        }
    }
    let options = EngineOptions {
        samples_max: 100_000,
        bytes_max: 64 << 20,
        experimental_functions: true,
        duration_expressions: true,
        ..EngineOptions::default()
    };
    let engine = Engine::new(options, Arc::new(Still));
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().build().expect("a runtime");
    let params = QueryParams::default();
    let instant = engine.instant(&*DATA, text, Timestamp(END), &params);
    let _ = runtime.block_on(instant);
    let range = engine.range(&*DATA, text, Timestamp(0), Timestamp(END), STEP, &params);
    let _ = runtime.block_on(range);
}

pub fn pattern(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let (pattern, subject) = text.split_once('\n').unwrap_or((text, "aaaa-bbbb"));
    if let Ok(regex) = Regex::anchored(pattern) {
        regex.is_match(subject);
    }
}
