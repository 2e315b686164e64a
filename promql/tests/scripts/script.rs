//! The script format of Prometheus' promqltest, as far as floats go.

use model::Labels;
use model::sample::STALE_NAN;
use promql::Expr;

#[derive(Debug)]
pub enum Command {
    Clear,
    /// Ours: engine options to switch on until the end of the script.
    Options(Vec<String>),
    Load(Vec<Loaded>),
    /// Series with histograms, which are not loaded.
    LeaveOut(Vec<Labels>),
    Eval(Eval),
}

#[derive(Debug)]
pub struct Loaded {
    pub labels: Labels,
    pub samples: Vec<(i64, f64)>,
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
    pub notes: Vec<String>,
    pub scalar: Option<f64>,
    pub string: Option<String>,
    pub series: Vec<(Labels, Vec<Option<f64>>)>,
    /// Expects what needs native histograms.
    pub needs_histograms: bool,
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
            commands.push(Command::Load(
                body.iter().filter_map(|l| loaded(l, step)).collect(),
            ));
            let histograms = body.iter().filter(|l| l.contains("{{"));
            commands.push(Command::LeaveOut(histograms.map(|l| metric(l).0).collect()));
            if first.starts_with("load_with_nhcb") {
                let native = body.iter().map(|l| as_native(&metric(l).0)).collect();
                commands.push(Command::LeaveOut(native));
            }
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

/// The name of the native histogram that `load_with_nhcb` makes of a classic one's series.
fn as_native(labels: &Labels) -> Labels {
    let name = labels.metric_name();
    let suffixes = ["_bucket", "_sum", "_count"];
    let base = suffixes
        .iter()
        .find_map(|suffix| name.strip_suffix(suffix))
        .unwrap_or(name);
    labels
        .to_builder()
        .remove("le")
        .set("__name__", base)
        .build()
}

/// A series to load; `None` when it holds histograms.
fn loaded(line: &str, step: i64) -> Option<Loaded> {
    let (labels, values) = metric(line);
    let values = sequence(values)?;
    let at = |i: usize| step * i as i64;
    let samples = values.into_iter().enumerate();
    let samples = samples
        .filter_map(|(i, value)| Some((at(i), value?)))
        .collect();
    Some(Loaded { labels, samples })
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
    } else if line.contains("{{") {
        eval.needs_histograms = true;
    } else if let Some(value) = number(line) {
        eval.scalar = Some(value);
    } else {
        let (labels, values) = metric(line);
        let values = sequence(values).expect("no histograms here");
        eval.series.push((labels, values));
    }
}

fn expect(eval: &mut Eval, expected: &str) {
    let (what, rest) = expected.split_once(' ').unwrap_or((expected, ""));
    let told = rest
        .trim_start()
        .strip_prefix("msg:")
        .map(|m| m.trim().to_owned());
    match what {
        "fail" => {
            eval.fails = true;
            eval.message = told;
            eval.pattern = rest
                .trim_start()
                .strip_prefix("regex:")
                .map(|m| m.trim().to_owned());
        }
        "warn" => eval.warns = Some(true),
        "no_warn" => eval.warns = Some(false),
        "info" => eval.informs = Some(true),
        "no_info" => eval.informs = Some(false),
        "ordered" => eval.is_ordered = true,
        "string" => eval.string = Some(unquote(rest.trim())),
        other => panic!("line {}: expect {other}?", eval.line),
    }
    if let ("warn" | "info", Some(told)) = (what, rest.trim_start().strip_prefix("msg:")) {
        eval.notes.push(told.trim().to_owned());
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

/// `1 _ 2+3x4 stale`; `None` when there are histograms.
fn sequence(text: &str) -> Option<Vec<Option<f64>>> {
    let mut values = Vec::new();
    for item in text.split_whitespace() {
        if item.contains("{{") {
            return None;
        }
        let (base, times) = match item.rsplit_once('x') {
            Some((base, times)) => (base, Some(times.parse::<usize>().expect("a count"))),
            None => (item, None),
        };
        match (base, times) {
            ("_", times) => values.extend(std::iter::repeat_n(None, times.unwrap_or(1))),
            ("stale", _) => values.push(Some(STALE_NAN)),
            (base, None) => values.push(Some(number(base).expect(item))),
            (base, Some(times)) => {
                let (start, step) = start_and_step(base);
                // The first value, and so many after it.
                let mut value = start;
                for i in 0..=times {
                    if i > 0 {
                        value += step;
                    }
                    values.push(Some(value));
                }
            }
        }
    }
    Some(values)
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
