//! The script format of Prometheus' promqltest.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::Labels;
use model::sample::STALE_NAN;
use promql::Expr;

use crate::histogram::{self, Told};

#[derive(Debug)]
pub enum Command {
    Clear,
    /// Ours: engine options to switch on until the end of the script.
    Options(Vec<String>),
    Load(Vec<Loaded>),
    Eval(Eval),
}

#[derive(Debug)]
pub struct Loaded {
    pub labels: Labels,
    pub samples: Vec<(i64, Item)>,
}

/// A value of a series.
#[derive(Debug, Clone)]
pub enum Item {
    Float(f64),
    Histogram(Told),
}

/// What annotations an eval must have.
#[derive(Debug, Clone)]
pub enum Note {
    /// The whole text, the position aside.
    Text(String),
    Pattern(String),
}

#[derive(Debug, Default)]
pub struct Eval {
    pub line: usize,
    pub query: String,
    pub start: i64,
    pub end: i64,
    /// Zero for an instant query.
    pub step: i64,
    pub is_ordered: bool,
    pub fails: bool,
    /// The whole message, or a pattern for it.
    pub message: Option<String>,
    pub pattern: Option<String>,
    pub warns: Option<bool>,
    pub informs: Option<bool>,
    pub warnings: Vec<Note>,
    pub infos: Vec<Note>,
    pub scalar: Option<f64>,
    pub string: Option<String>,
    /// The result is a range vector, of these instants.
    pub is_range_vector: bool,
    pub series: Vec<(Labels, Vec<Option<Item>>)>,
}

pub fn parse(text: &str) -> Vec<Command> {
    let lines: Vec<(usize, &str)> = text
        .lines()
        .enumerate()
        .map(|(at, line)| (at + 1, line))
        .filter(|(_, line)| !line.trim_start().starts_with('#'))
        .collect();
    let mut commands = Vec::new();
    let mut rest = lines.as_slice();
    while let Some(((number, first), tail)) = rest.split_first() {
        let body = tail
            .iter()
            .take_while(|(_, l)| !l.trim().is_empty() && !is_command(l))
            .count();
        let (body, next) = tail.split_at(body);
        rest = next;
        let first = first.trim();
        let body: Vec<&str> = body
            .iter()
            .map(|(_, l)| l.trim())
            .filter(|l| !l.is_empty())
            .collect();
        if first.is_empty() {
            assert!(body.is_empty(), "line {number}: what does this belong to?");
        } else if first == "clear" {
            commands.push(Command::Clear);
        } else if let Some(options) = first.strip_prefix("options ") {
            commands.push(Command::Options(
                options.split(' ').map(str::to_owned).collect(),
            ));
        } else if first.starts_with("load") {
            let step = duration(first.split_once(' ').expect("load STEP").1);
            let mut loaded: Vec<Loaded> = body.iter().map(|l| loaded(l, step)).collect();
            if first.starts_with("load_with_nhcb") {
                let native = as_native(&loaded);
                loaded.extend(native);
            }
            commands.push(Command::Load(loaded));
        } else {
            commands.push(Command::Eval(eval(*number, first, &body)));
        }
    }
    commands
}

fn is_command(line: &str) -> bool {
    let words = ["eval", "load", "clear", "options"];
    words.iter().any(|word| line.starts_with(word))
}

/// The histograms of custom buckets that `load_with_nhcb` makes of classic ones.
fn as_native(loaded: &[Loaded]) -> Vec<Loaded> {
    #[derive(Default)]
    struct Classic {
        buckets: Vec<(f64, f64)>,
        count: Option<f64>,
        sum: Option<f64>,
    }
    let mut classics: BTreeMap<Labels, BTreeMap<i64, Classic>> = BTreeMap::new();
    for series in loaded {
        let name = series.labels.metric_name();
        let suffixes = ["_bucket", "_sum", "_count"];
        let Some(suffix) = suffixes.into_iter().find(|s| name.ends_with(s)) else {
            continue;
        };
        let bound = series.labels.get("le").and_then(number);
        if suffix == "_bucket" && bound.is_none() {
            continue;
        }
        let mut builder = series.labels.to_builder();
        let base = name.strip_suffix(suffix).unwrap_or(name);
        let base = builder.remove("le").set("__name__", base).build();
        let by_time = classics.entry(base).or_default();
        for (at, item) in &series.samples {
            let Item::Float(value) = *item else { continue };
            let classic = by_time.entry(*at).or_default();
            match (suffix, bound) {
                ("_bucket", Some(bound)) => classic.buckets.push((bound, value)),
                ("_sum", _) => classic.sum = Some(value),
                _ => classic.count = Some(value),
            }
        }
    }
    let native = |classic: &Classic| {
        let histogram = histogram::from_classic(&classic.buckets, classic.count, classic.sum);
        Item::Histogram(Told {
            histogram: Arc::new(histogram),
            has_hint: false,
        })
    };
    let series = classics.into_iter().map(|(labels, by_time)| Loaded {
        labels,
        samples: by_time.iter().map(|(at, c)| (*at, native(c))).collect(),
    });
    series.collect()
}

fn loaded(line: &str, step: i64) -> Loaded {
    let (labels, values) = metric(line);
    let at = |i: usize| step * i as i64;
    let samples = sequence(values).into_iter().enumerate();
    let samples = samples
        .filter_map(|(i, value)| Some((at(i), value?)))
        .collect();
    Loaded { labels, samples }
}

fn eval(line: usize, first: &str, body: &[&str]) -> Eval {
    let mut rest = first;
    let (kind, mode) = (word(&mut rest), word(&mut rest));
    let mut eval = Eval {
        line,
        is_ordered: kind == "eval_ordered",
        fails: kind == "eval_fail",
        warns: (kind == "eval_warn").then_some(true),
        informs: (kind == "eval_info").then_some(true),
        ..Eval::default()
    };
    let mut time = |name: &str| {
        assert_eq!(word(&mut rest), name, "line {line}");
        duration(word(&mut rest))
    };
    if mode == "instant" {
        eval.start = time("at");
        eval.end = eval.start;
    } else {
        (eval.start, eval.end, eval.step) = (time("from"), time("to"), time("step"));
    }
    eval.query = rest.trim().to_owned();
    body.iter().for_each(|line| expectation(&mut eval, line));
    eval
}

/// Takes the next word.
fn word<'a>(rest: &mut &'a str) -> &'a str {
    let text = rest.trim_start();
    let end = text.find([' ', '\t']).unwrap_or(text.len());
    let (word, tail) = text.split_at(end);
    *rest = tail;
    word
}

fn expectation(eval: &mut Eval, line: &str) {
    if let Some(message) = line.strip_prefix("expected_fail_message ") {
        eval.message = Some(message.to_owned());
    } else if let Some(pattern) = line.strip_prefix("expected_fail_regexp ") {
        eval.pattern = Some(pattern.to_owned());
    } else if let Some(expected) = line.strip_prefix("expect ") {
        expect(eval, expected);
    } else if let Some(value) = number(line) {
        eval.scalar = Some(value);
    } else {
        let (labels, values) = metric(line);
        eval.series.push((labels, sequence(values)));
    }
}

fn expect(eval: &mut Eval, expected: &str) {
    let (what, rest) = expected.split_once(' ').unwrap_or((expected, ""));
    let rest = rest.trim();
    let told = |key| {
        rest.strip_prefix(key)
            .map(|told: &str| told.trim().to_owned())
    };
    let note = told("msg:")
        .map(Note::Text)
        .or(told("regex:").map(Note::Pattern));
    match what {
        "fail" => {
            eval.fails = true;
            eval.message = told("msg:");
            eval.pattern = told("regex:");
        }
        "warn" => {
            eval.warns = Some(true);
            eval.warnings.extend(note);
        }
        "no_warn" => eval.warns = Some(false),
        "info" => {
            eval.informs = Some(true);
            eval.infos.extend(note);
        }
        "no_info" => eval.informs = Some(false),
        "ordered" => eval.is_ordered = true,
        "string" => eval.string = Some(unquote(rest)),
        "range" => {
            let mut words = rest.split_whitespace().skip(1);
            let mut time = |name: &str| {
                assert_eq!(words.next(), Some(name), "line {}", eval.line);
                duration(words.next().expect("a time"))
            };
            (eval.start, eval.end, eval.step) = (time("from"), time("to"), time("step"));
            eval.is_range_vector = true;
        }
        other => panic!("line {}: expect {other}?", eval.line),
    }
}

fn unquote(text: &str) -> String {
    match promql::parse(text) {
        Ok(Expr::String(string)) => string.value,
        other => panic!("{text} is no string: {other:?}"),
    }
}

/// `5m`, or seconds.
fn duration(text: &str) -> i64 {
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    match promql::parse(text) {
        Ok(Expr::Number(number)) => sign * (number.value * 1000.0).round() as i64,
        other => panic!("{text} is no duration: {other:?}"),
    }
}

fn number(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Inf" | "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        _ => text.parse().ok(),
    }
}

/// The labels a line starts with, and what follows.
fn metric(line: &str) -> (Labels, &str) {
    let end = line.find([' ', '\t', '{']).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    let mut pairs = vec![("__name__".to_owned(), name.to_owned())];
    let Some(inside) = rest.strip_prefix('{') else {
        return (Labels::from_pairs(pairs), rest);
    };
    let (mut quote, mut is_escaped, mut close) = (None, false, None);
    for (at, c) in inside.char_indices() {
        match (quote, c) {
            _ if is_escaped => is_escaped = false,
            (Some(_), '\\') => is_escaped = true,
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '}') => {
                close = Some(at);
                break;
            }
            _ => {}
        }
    }
    let (inside, rest) = inside.split_at(close.expect("a closing brace"));
    if !inside.trim().is_empty() {
        let selector = format!("{{{inside}}}");
        let matchers = promql::parse_matchers(&selector);
        let matchers = matchers.unwrap_or_else(|e| panic!("{selector}: {e}"));
        pairs.extend(matchers.into_iter().map(|m| (m.name, m.value)));
    }
    (Labels::from_pairs(pairs), &rest[1..])
}

/// `1 _ 2+3x4 stale {{count:1}}+{{count:2}}x3`.
///
/// Start timestamps (`@st …`), which scripts of later versions load, are no values.
fn sequence(text: &str) -> Vec<Option<Item>> {
    let mut values = Vec::new();
    let mut rest = text.trim_start();
    if rest.starts_with("@st") {
        return values;
    }
    while !rest.is_empty() {
        rest = match rest.starts_with("{{") {
            true => histograms(rest, &mut values),
            false => floats(rest, &mut values),
        };
        rest = rest.trim_start();
    }
    values
}

/// Takes `{{…}}`, `{{…}}xN` or `{{…}}±{{…}}xN`; what follows.
fn histograms<'a>(text: &'a str, values: &mut Vec<Option<Item>>) -> &'a str {
    fn one(text: &str) -> (Told, &str) {
        let inside = text.strip_prefix("{{").expect(text);
        let (body, rest) = inside.split_once("}}").expect("closing braces");
        (histogram::parse(body), rest)
    }
    let (mut told, mut rest) = one(text);
    let mut step = None;
    for (sign, factor) in [("+", 1.0), ("-", -1.0)] {
        if let Some(tail) = rest.strip_prefix(sign) {
            let (by, tail) = one(tail);
            (step, rest) = (Some((by, factor)), tail);
        }
    }
    let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
    let (times, rest) = rest.split_at(end);
    let times = times.strip_prefix('x').map_or(0, |t| t.parse().expect(t));
    values.push(Some(Item::Histogram(told.clone())));
    for _ in 0..times {
        if let Some((by, factor)) = &step {
            told = histogram::combine(&told, by, *factor);
        }
        values.push(Some(Item::Histogram(told.clone())));
    }
    rest
}

/// Takes one word of floats; what follows.
fn floats<'a>(text: &'a str, values: &mut Vec<Option<Item>>) -> &'a str {
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    let (item, rest) = text.split_at(end);
    let (base, times) = match item.rsplit_once('x') {
        Some((base, times)) => (base, Some(times.parse::<usize>().expect("a count"))),
        None => (item, None),
    };
    let float = |value| Some(Item::Float(value));
    match (base, times) {
        ("_", times) => values.extend(std::iter::repeat_n(None, times.unwrap_or(1))),
        ("stale", _) => values.push(float(STALE_NAN)),
        (base, None) => values.push(float(number(base).expect(item))),
        (base, Some(times)) => {
            let (start, step) = start_and_step(base);
            // The first value, and so many after it.
            let mut value = start;
            for i in 0..=times {
                if i > 0 {
                    value += step;
                }
                values.push(float(value));
            }
        }
    }
    rest
}

fn start_and_step(text: &str) -> (f64, f64) {
    if let Some(value) = number(text) {
        return (value, 0.0);
    }
    let sign = text[1..].rfind(['+', '-']).expect("a sign") + 1;
    let is_exponent = text[..sign].ends_with('e');
    let sign = if is_exponent {
        text[..sign - 1].rfind(['+', '-']).expect("a sign")
    } else {
        sign
    };
    let (start, step) = text.split_at(sign);
    (number(start).expect(text), number(step).expect(text))
}
