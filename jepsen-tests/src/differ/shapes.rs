//! What kinds of series there are: the tables of names and labels, and how their values run.

use std::sync::Arc;

use model::sample::STALE_NAN;
use model::{Histogram, Value};

use super::data::{BEGIN_MS, END_MS, Point, Series};
use super::natives::{Kind, Run};
use crate::splitmix::SplitMix64;

/// Label values that try readers, writers and regular expressions.
const ODD_VALUES: [&str; 9] = [
    "температура",
    "日本語",
    "a\"b\\c",
    "line\nbreak",
    "💡",
    " space ",
    "ſ",
    "a.b*c",
    "é",
];

const SPECIAL: [f64; 12] = [
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::NAN,
    -0.0,
    0.0,
    1e308,
    -1e308,
    5e-324,
    1.0,
    -1.0,
    0.5,
    9_007_199_254_740_993.0,
];

/// A metric: its name, the label sets it has, and how its values run.
type Family = (
    &'static str,
    &'static [&'static [(&'static str, &'static str)]],
    Course,
);

#[derive(Clone, Copy)]
enum Course {
    Counter,
    Walk,
    Special,
    Flapping,
    One,
}

const FAMILIES: [Family; 10] = [
    (
        "requests_total",
        &[
            &[("job", "api"), ("instance", "a"), ("code", "200")],
            &[("job", "api"), ("instance", "a"), ("code", "500")],
            &[("job", "api"), ("instance", "b"), ("code", "200")],
            &[("job", "api"), ("instance", "b"), ("code", "404")],
            &[("job", "web"), ("instance", "a"), ("code", "200")],
            &[("job", "web"), ("instance", "c"), ("code", "200")],
            &[("job", "web"), ("instance", "c"), ("code", "500")],
        ],
        Course::Counter,
    ),
    (
        "cpu_seconds_total",
        &[
            &[("job", "api"), ("instance", "a"), ("mode", "idle")],
            &[("job", "api"), ("instance", "a"), ("mode", "user")],
            &[("job", "api"), ("instance", "b"), ("mode", "idle")],
            &[("job", "web"), ("instance", "c"), ("mode", "idle")],
            &[("job", "web"), ("instance", "c"), ("mode", "user")],
        ],
        Course::Counter,
    ),
    ("temp", PLACES, Course::Walk),
    ("mem_bytes", PLACES, Course::Walk),
    (
        "special",
        &[
            &[("job", "api"), ("instance", "a")],
            &[("job", "api"), ("instance", "b")],
            &[("job", "web"), ("instance", "a")],
            &[("job", "web")],
        ],
        Course::Special,
    ),
    (
        "flap",
        &[
            &[("job", "api"), ("instance", "a"), ("zone", "x")],
            &[("job", "api"), ("instance", "b"), ("zone", "y")],
            &[("job", "web"), ("instance", "a"), ("zone", "x")],
            &[("job", "web"), ("instance", "c"), ("zone", "")],
        ],
        Course::Flapping,
    ),
    (
        "build_info",
        &[
            &[("job", "api"), ("instance", "a"), ("version", "1.0")],
            &[("job", "api"), ("instance", "b"), ("version", "1.1")],
            &[("job", "web"), ("instance", "c"), ("version", "2.0")],
        ],
        Course::One,
    ),
    (
        "target_info",
        &[
            &[("job", "api"), ("instance", "a"), ("region", "eu")],
            &[("job", "api"), ("instance", "b"), ("region", "us")],
            &[("job", "web"), ("instance", "c"), ("region", "eu")],
        ],
        Course::One,
    ),
    (
        // Comes and goes, and two of one target may be there at once.
        "deploy_info",
        &[
            &[
                ("job", "api"),
                ("instance", "a"),
                ("region", "eu"),
                ("v", "1"),
            ],
            &[
                ("job", "api"),
                ("instance", "a"),
                ("region", "eu"),
                ("v", "2"),
            ],
            &[
                ("job", "web"),
                ("instance", "c"),
                ("region", "us"),
                ("v", "1"),
            ],
        ],
        Course::Flapping,
    ),
    (
        "http.requests",
        &[
            &[("job", "api"), ("http.method", "GET")],
            &[("job", "api"), ("http.method", "PUT")],
            &[("job", "web"), ("http.method", "GET")],
        ],
        Course::Counter,
    ),
];

const PLACES: &[&[(&str, &str)]] = &[
    &[("job", "api"), ("instance", "a")],
    &[("job", "api"), ("instance", "b")],
    &[("job", "web"), ("instance", "a")],
    &[("job", "web"), ("instance", "c")],
];

/// Upper bounds of the classic histograms: as a client library writes them, and odd ones.
const BOUNDS: [&str; 6] = ["0.1", "0.5", "1", "2.5", "10", "+Inf"];

/// All series of floats.
pub fn floats(dice: &mut SplitMix64) -> Vec<Series> {
    let mut all = Vec::new();
    for (name, label_sets, course) in FAMILIES {
        for labels in label_sets {
            all.push(series(dice, name, labels, course));
        }
    }
    for value in ODD_VALUES {
        all.push(series(
            dice,
            "odd",
            &[("job", "api"), ("v", value)],
            Course::Walk,
        ));
    }
    for (job, instance) in [("api", "a"), ("api", "b"), ("web", "c")] {
        all.extend(classic(dice, "dur", job, instance));
    }
    all.extend(broken(dice));
    all
}

/// All series with native histograms in them.
pub fn natives(dice: &mut SplitMix64) -> Vec<Series> {
    const SETS: [(&str, &str, &str, Kind); 11] = [
        ("lat", "api", "a", Kind::Integer),
        ("lat", "api", "b", Kind::Integer),
        ("lat", "web", "c", Kind::Integer),
        ("latf", "api", "a", Kind::Float),
        ("latf", "web", "c", Kind::Float),
        ("latg", "api", "a", Kind::Gauge),
        ("latg", "web", "c", Kind::Gauge),
        ("latc", "api", "a", Kind::Custom),
        ("latc", "api", "b", Kind::Custom),
        ("latc", "web", "c", Kind::CustomOther),
        ("mixed", "api", "a", Kind::Integer),
    ];
    SETS.iter()
        .map(|(name, job, instance, kind)| {
            let mut run = Run::new(dice, *kind);
            let mixed = *name == "mixed";
            let points = points(dice, |dice, n| match mixed && n / 25 % 2 == 1 {
                true => Some(Value::Float(n as f64)),
                false => Some(Value::Histogram(Arc::new(run.next(dice)))),
            });
            labelled(name, &[("job", job), ("instance", instance)], points)
        })
        .collect()
}

fn series(dice: &mut SplitMix64, name: &str, labels: &[(&str, &str)], course: Course) -> Series {
    let size = 10f64.powi(dice.between(0, 6) as i32 - 2);
    let mut level = dice.between(0, 1000) as f64 * size;
    let mut down = 0;
    let values = |dice: &mut SplitMix64, n: u64| {
        let value = match course {
            Course::One => 1.0,
            Course::Special => SPECIAL[dice.between(0, SPECIAL.len() as u64) as usize],
            Course::Counter => {
                level = match dice.between(0, 100) {
                    0 => 0.0,
                    1..15 => level,
                    _ => level + dice.between(0, 50) as f64 * size,
                };
                level
            }
            Course::Walk => {
                level += (dice.between(0, 201) as f64 - 100.0) * size;
                (level * 100.0).round() / 100.0
            }
            Course::Flapping => return flapping(dice, n, &mut down),
        };
        Some(Value::Float(value))
    };
    let points = points(dice, values);
    labelled(name, labels, points)
}

/// Up for a while, then gone: with a marker or without, for less or more than the lookback.
fn flapping(dice: &mut SplitMix64, n: u64, down: &mut u64) -> Option<Value> {
    if *down > 0 {
        *down -= 1;
        return None;
    }
    if dice.chance(6) {
        *down = dice.between(1, 40);
        return dice.chance(60).then_some(Value::Float(STALE_NAN));
    }
    Some(Value::Float(n as f64))
}

/// Points at some interval, exactly or with jitter; `next` may leave one out.
fn points(
    dice: &mut SplitMix64,
    mut next: impl FnMut(&mut SplitMix64, u64) -> Option<Value>,
) -> Vec<Point> {
    // The longest fills the bits that Prometheus' encodings have for it.
    let interval_ms = [15_000, 30_000, 60_000, 150_000][dice.between(0, 4) as usize];
    let jitter_ms = [0, 0, 1, 700][dice.between(0, 4) as usize];
    let phase_ms = [0, dice.between(0, interval_ms)][dice.between(0, 2) as usize] as i64;
    let mut points = Vec::new();
    let mut n = 0;
    loop {
        let jitter = dice.between(0, jitter_ms + 1) as i64;
        let at_ms = BEGIN_MS + phase_ms + n as i64 * interval_ms as i64 + jitter;
        if at_ms > END_MS {
            return points;
        }
        if let Some(value) = next(dice, n) {
            points.push(Point { at_ms, value });
        }
        n += 1;
    }
}

/// The buckets, sum and count of a classic histogram, scraped together.
fn classic(dice: &mut SplitMix64, name: &str, job: &str, instance: &str) -> Vec<Series> {
    let place = [("job", job), ("instance", instance)];
    let mut counts = [0u64; BOUNDS.len()];
    let mut rows: Vec<[u64; BOUNDS.len()]> = Vec::new();
    for _ in 0..=(END_MS - BEGIN_MS) / 30_000 {
        if dice.chance(1) {
            counts = [0; BOUNDS.len()];
        }
        for _ in 0..dice.between(0, 5) {
            let first = dice.between(0, BOUNDS.len() as u64) as usize;
            counts[first..].iter_mut().for_each(|count| *count += 1);
        }
        rows.push(counts);
    }
    let column = |value: &dyn Fn(&[u64; BOUNDS.len()]) -> f64| {
        let at = |n: usize| BEGIN_MS + n as i64 * 30_000;
        let points = rows.iter().enumerate().map(|(n, row)| Point {
            at_ms: at(n),
            value: Value::Float(value(row)),
        });
        points.filter(|p| p.at_ms <= END_MS).collect::<Vec<_>>()
    };
    let mut all: Vec<Series> = BOUNDS
        .iter()
        .enumerate()
        .map(|(n, le)| {
            let labels = [place[0], place[1], ("le", le)];
            labelled(
                &format!("{name}_bucket"),
                &labels,
                column(&|row| row[n] as f64),
            )
        })
        .collect();
    let count = column(&|row| row[BOUNDS.len() - 1] as f64);
    let sum = column(&|row| row.iter().sum::<u64>() as f64 * 0.37);
    all.push(labelled(&format!("{name}_count"), &place, count));
    all.push(labelled(&format!("{name}_sum"), &place, sum));
    all
}

/// Classic histograms no client should make: no +Inf, counts that fall, bounds that are no
/// numbers or the same number twice.
fn broken(dice: &mut SplitMix64) -> Vec<Series> {
    const SETS: [(&str, &[&str]); 4] = [
        ("no_inf", &["1", "2", "5"]),
        ("falls", &["1", "2", "+Inf"]),
        ("text", &["one", "2", "+Inf"]),
        ("twice", &["1", "1.0", "2", "+Inf"]),
    ];
    let mut all = Vec::new();
    for (case, bounds) in SETS {
        for (n, le) in bounds.iter().enumerate() {
            let base = match (case, n) {
                ("falls", 1) => 0.0,
                (_, n) => n as f64 + 1.0,
            };
            let points = points(dice, |dice, n| {
                let noise = dice.between(0, 3) as f64 / 10.0;
                Some(Value::Float(base * (n as f64 + 1.0) + noise))
            });
            all.push(labelled(
                "odd_bucket",
                &[("case", case), ("le", le)],
                points,
            ));
        }
    }
    all
}

fn labelled(name: &str, labels: &[(&str, &str)], points: Vec<Point>) -> Series {
    let own = labels.iter().filter(|(_, value)| !value.is_empty());
    let mut labels: Vec<(String, String)> = own
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
        .collect();
    labels.push(("__name__".to_owned(), name.to_owned()));
    labels.sort();
    Series { labels, points }
}

/// A histogram as a staleness marker.
pub fn stale_histogram() -> Histogram {
    Histogram {
        sum: STALE_NAN,
        ..Histogram::default()
    }
}
