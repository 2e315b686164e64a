//! Runs a script's commands and compares.

use std::sync::Arc;
use std::time::Duration;

use model::matcher::matches_all;
use model::port::Clock;
use model::{Labels, Timestamp};
use promql::ast::VectorSelector;
use promql::{
    Engine, EngineOptions, Expr, ParseOptions, QueryError, QueryParams, QueryResult, Value,
};

use crate::memory::Memory;
use crate::script::{Command, Eval, parse};

/// How far a value may be from what is expected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tolerance {
    None,
    /// What Prometheus grants its own scripts.
    Millionth,
}

#[derive(Debug)]
pub enum Outcome {
    Passed,
    Failed(String),
    Skipped,
}

/// A clock that stands still.
pub struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp(0)
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().build().expect("a runtime");
    runtime.block_on(future)
}

/// The outcome of every `eval`, with its line.
pub fn run(
    text: &str,
    mut options: EngineOptions,
    mut tolerance: Tolerance,
) -> Vec<(usize, Outcome)> {
    let mut memory = Memory::default();
    let mut left_out: Vec<Labels> = Vec::new();
    let mut outcomes = Vec::new();
    for command in parse(text) {
        match command {
            Command::Clear => {
                memory = Memory::default();
                left_out.clear();
            }
            Command::Options(names) => names.iter().for_each(|name| match name.as_str() {
                "experimental_functions" => options.experimental_functions = true,
                "delayed_name_removal" => options.delayed_name_removal = true,
                "tolerance" => tolerance = Tolerance::Millionth,
                other => panic!("option {other}?"),
            }),
            Command::Load(loaded) => {
                for series in loaded {
                    for (at, value) in series.samples {
                        memory.add(&series.labels, at, value);
                    }
                }
            }
            Command::LeaveOut(series) => left_out.extend(series),
            Command::Eval(eval) if eval.needs_histograms || touches(&eval.query, &left_out) => {
                outcomes.push((eval.line, Outcome::Skipped));
            }
            Command::Eval(eval) => {
                let check = Check {
                    eval: &eval,
                    memory: &memory,
                    engine: Engine::new(options.clone(), Arc::new(Still)),
                    tolerance,
                };
                let outcome = match block_on(check.all()) {
                    Ok(()) => Outcome::Passed,
                    Err(why) => Outcome::Failed(format!("{}: {why}", eval.query)),
                };
                outcomes.push((eval.line, outcome));
            }
        }
    }
    outcomes
}

/// Whether `query` selects any of `series`.
fn touches(query: &str, series: &[Labels]) -> bool {
    let options = ParseOptions {
        experimental_functions: true,
        duration_expressions: true,
        ..ParseOptions::default()
    };
    promql::parse_with(query, options).is_ok_and(|expr| selects(&expr, series))
}

fn selects(expr: &Expr, series: &[Labels]) -> bool {
    let chosen = |s: &VectorSelector| series.iter().any(|l| matches_all(&s.matchers, l));
    match expr {
        Expr::Number(_) | Expr::String(_) => false,
        Expr::Vector(selector) => chosen(selector),
        Expr::Matrix(matrix) => chosen(&matrix.selector),
        Expr::Subquery(subquery) => selects(&subquery.expr, series),
        Expr::Call(call) => call.args.iter().any(|arg| selects(arg, series)),
        Expr::Aggregate(a) => {
            selects(&a.expr, series) || a.param.as_deref().is_some_and(|p| selects(p, series))
        }
        Expr::Binary(b) => selects(&b.left, series) || selects(&b.right, series),
        Expr::Unary(unary) => selects(&unary.expr, series),
        Expr::Paren(paren) => selects(&paren.expr, series),
    }
}

struct Check<'a> {
    eval: &'a Eval,
    memory: &'a Memory,
    engine: Engine,
    tolerance: Tolerance,
}

/// A series of an answer, with the values at the expected instants.
type Row = (Labels, Vec<Option<f64>>);

impl Check<'_> {
    async fn all(&self) -> Result<(), String> {
        let eval = self.eval;
        if eval.step > 0 {
            let result = self.range(eval.start, eval.end, eval.step).await;
            return self.compare(result, &|value| rows(value, eval.start, eval.step));
        }
        let params = QueryParams::default();
        let at = Timestamp(eval.start);
        let result = self
            .engine
            .instant(self.memory, &eval.query, at, &params)
            .await;
        let is_plain =
            matches!(&result, Ok(r) if matches!(r.value, Value::Vector(_) | Value::Scalar(..)));
        self.compare(result, &|value| rows(value, eval.start, 1))?;
        if !is_plain
            || eval.is_ordered
            || eval.query.contains("start()")
            || eval.query.contains("end()")
        {
            return Ok(());
        }
        // The same instant in the middle of a range must say the same.
        let minute = 60_000;
        let result = self
            .range(eval.start - minute, eval.start + minute, minute)
            .await;
        let middle = |value| {
            let rows = rows(value, eval.start - minute, minute).into_iter();
            let rows = rows
                .map(|(labels, values)| (labels, values[1..].iter().take(1).copied().collect()));
            let there = |(_, values): &Row| values.first().is_some_and(Option::is_some);
            rows.filter(there).collect()
        };
        match result {
            Ok(result) => {
                let rows: Vec<Row> = middle(result.value);
                self.compare_rows(rows)
                    .map_err(|why| format!("in a range: {why}"))
            }
            // Another instant of the range may well be wrong in itself.
            Err(QueryError::Execution(_)) => Ok(()),
            Err(error) => Err(format!("in a range: {error}")),
        }
    }

    async fn range(&self, start: i64, end: i64, step: i64) -> Result<QueryResult, QueryError> {
        let step = Duration::from_millis(step as u64);
        let (start, end) = (Timestamp(start), Timestamp(end));
        let params = QueryParams::default();
        self.engine
            .range(self.memory, &self.eval.query, start, end, step, &params)
            .await
    }

    fn compare(
        &self,
        result: Result<QueryResult, QueryError>,
        rows: &dyn Fn(Value) -> Vec<Row>,
    ) -> Result<(), String> {
        let eval = self.eval;
        let result = match result {
            Err(error) if eval.fails => return self.compare_message(&error.to_string()),
            Err(error) => return Err(error.to_string()),
            Ok(result) if eval.fails => return Err(format!("no failure but {:?}", result.value)),
            Ok(result) => result,
        };
        self.compare_notes(&result)?;
        if let (Some(expected), Value::String(_, got)) = (&eval.string, &result.value) {
            return if expected == got {
                Ok(())
            } else {
                Err(format!("got {got:?}"))
            };
        }
        self.compare_rows(rows(result.value))
    }

    fn compare_message(&self, message: &str) -> Result<(), String> {
        let is_right = match (&self.eval.message, &self.eval.pattern) {
            (Some(expected), _) => message.trim_end() == expected,
            (None, Some(pattern)) => regex::Regex::new(pattern).expect(pattern).is_match(message),
            (None, None) => true,
        };
        if is_right {
            Ok(())
        } else {
            Err(format!("failed with {message:?}"))
        }
    }

    fn compare_notes(&self, result: &QueryResult) -> Result<(), String> {
        for (expected, got) in [
            (self.eval.warns, &result.warnings),
            (self.eval.informs, &result.infos),
        ] {
            if expected.is_some_and(|expected| expected == got.is_empty()) {
                return Err(format!("annotations {got:?}"));
            }
        }
        let told = result.warnings.len() + result.infos.len();
        if self.tolerance == Tolerance::None && told != self.eval.notes.len() {
            return Err(format!(
                "annotations {:?} {:?}",
                result.warnings, result.infos
            ));
        }
        for note in &self.eval.notes {
            let mut all = result.warnings.iter().chain(&result.infos);
            if !all.any(|got| got.starts_with(note)) {
                return Err(format!(
                    "no {note:?} in {:?} {:?}",
                    result.warnings, result.infos
                ));
            }
        }
        Ok(())
    }

    fn compare_rows(&self, mut got: Vec<Row>) -> Result<(), String> {
        let mut expected: Vec<Row> = match self.eval.scalar {
            Some(value) => vec![(Labels::default(), vec![Some(value)])],
            None => self.eval.series.clone(),
        };
        for (_, values) in expected.iter_mut().chain(&mut got) {
            while values.last() == Some(&None) {
                values.pop();
            }
        }
        if !self.eval.is_ordered {
            expected.sort_by(|a, b| a.0.cmp(&b.0));
            got.sort_by(|a, b| a.0.cmp(&b.0));
        }
        let same = got.len() == expected.len()
            && got.iter().zip(&expected).all(|(g, e)| {
                g.0 == e.0
                    && g.1.len() == e.1.len()
                    && g.1.iter().zip(&e.1).all(|(g, e)| self.is_same(*g, *e))
            });
        if same {
            Ok(())
        } else {
            Err(format!("\n  want {expected:?}\n  got  {got:?}"))
        }
    }

    fn is_same(&self, got: Option<f64>, expected: Option<f64>) -> bool {
        let (Some(got), Some(expected)) = (got, expected) else {
            return got == expected;
        };
        if got == expected || got.is_nan() && expected.is_nan() {
            return true;
        }
        let sum = got.abs() + expected.abs();
        self.tolerance == Tolerance::Millionth
            && ((got - expected).abs() / sum.min(f64::MAX) < 1e-6
                || (got == 0.0 || expected == 0.0) && sum < 1e-6 * f64::MIN_POSITIVE)
    }
}

fn rows(value: Value, start: i64, step: i64) -> Vec<Row> {
    match value {
        Value::Scalar(_, value) => vec![(Labels::default(), vec![Some(value)])],
        Value::String(_, text) => panic!("an unexpected string {text:?}"),
        Value::Vector(samples) => {
            let samples = samples.into_iter();
            samples.map(|s| (s.labels, vec![Some(s.value)])).collect()
        }
        Value::Matrix(series) => series
            .into_iter()
            .map(|series| {
                let mut values = Vec::new();
                for sample in series.samples.iter() {
                    let at = ((sample.timestamp.0 - start) / step) as usize;
                    values.resize(at, None);
                    values.push(Some(sample.value));
                }
                (series.labels, values)
            })
            .collect(),
    }
}
