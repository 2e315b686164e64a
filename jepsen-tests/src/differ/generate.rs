//! Random queries that are right in their types, drawn from the tables of [`grammar`].

use super::data::{BEGIN_MS, END_MS, SPAN_MS};
use super::expr::{Aggregate, Binary, Expr, Matching, Modifiers, Selector, Type};
use super::grammar::{self, Arg};
use super::question::{At, Question};
use crate::splitmix::SplitMix64;

/// How deep a query nests.
const DEPTH: u32 = 4;

/// An endless stream of questions.
pub struct Generator {
    dice: SplitMix64,
    native: bool,
}

impl Generator {
    /// The questions of a seed; without `native` none speaks of native histograms.
    pub fn new(seed: u64, native: bool) -> Self {
        Self {
            dice: SplitMix64::new(seed ^ 0x9e57),
            native,
        }
    }

    pub fn question(&mut self) -> Question {
        let expr = match self.dice.between(0, 40) {
            0 => self.scalar(DEPTH),
            1 => self.matrix(1),
            2 => Expr::Text("text é".to_owned()),
            _ => self.vector(DEPTH),
        };
        let at = self.at(expr.kind());
        Question { expr, at }
    }

    fn at(&mut self, kind: Type) -> At {
        let around = |dice: &mut SplitMix64| {
            let at_ms = BEGIN_MS - 600_000 + dice.between(0, SPAN_MS as u64 + 1_200_000) as i64;
            match dice.chance(50) {
                true => at_ms,
                false => at_ms - at_ms.rem_euclid(15_000),
            }
        };
        let one = around(&mut self.dice);
        if kind == Type::Matrix || kind == Type::Text || self.dice.chance(50) {
            return At::Instant(one);
        }
        let step_ms = [15_000, 60_000, 60_000, 37_000, 300_000][self.dice.between(0, 5) as usize];
        let steps = self.dice.between(0, 40) as i64;
        let start_ms = one.min(END_MS + 600_000 - steps * step_ms);
        At::Range {
            start_ms,
            end_ms: start_ms + steps * step_ms,
            step_ms,
        }
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.dice.between(0, from.len() as u64) as usize]
    }

    fn some(&mut self, from: &[&'static str], most: u64) -> Vec<&'static str> {
        let count = self.dice.between(0, most + 1);
        let mut picked: Vec<_> = (0..count).map(|_| self.pick(from)).collect();
        picked.sort_unstable();
        picked.dedup();
        picked
    }

    /// Now and then in parentheses.
    fn wrapped(&mut self, expr: Expr) -> Expr {
        match self.dice.chance(8) {
            true => Expr::Paren(Box::new(expr)),
            false => expr,
        }
    }

    fn vector(&mut self, depth: u32) -> Expr {
        if depth == 0 {
            return Expr::Select(self.selector());
        }
        match self.dice.between(0, 100) {
            0..20 => Expr::Select(self.selector()),
            20..52 => self.call(Type::Vector, depth),
            52..74 => self.aggregate(depth),
            74..97 => self.binary(depth),
            _ => Expr::Negate(Box::new(self.vector(depth - 1))),
        }
    }

    fn scalar(&mut self, depth: u32) -> Expr {
        match self.dice.between(0, 10) {
            0 if depth > 0 => self.call(Type::Scalar, depth),
            1 if depth > 0 => {
                let (lhs, rhs) = (self.scalar(depth - 1), self.scalar(depth - 1));
                let is_bool = self.dice.chance(30);
                let op = match is_bool {
                    true => self.pick(grammar::COMPARISONS),
                    false => self.pick(grammar::ARITHMETIC),
                };
                let matching = None;
                Expr::Binary(Box::new(Binary {
                    op,
                    is_bool,
                    matching,
                    lhs,
                    rhs,
                }))
            }
            _ => Expr::Number(self.pick(grammar::NUMBERS).to_owned()),
        }
    }

    fn matrix(&mut self, depth: u32) -> Expr {
        if depth > 0 && self.dice.chance(20) {
            let of = match self.dice.chance(5) {
                true => self.scalar(1),
                false => self.vector(depth.min(2) - 1),
            };
            let range = self.pick(grammar::SUBQUERY_RANGES).to_owned();
            let step = self
                .dice
                .chance(80)
                .then(|| self.pick(grammar::STEPS).to_owned());
            return Expr::Subquery(Box::new(of), range, step, self.modifiers());
        }
        let mut selector = self.selector();
        selector.range = Some(self.pick(grammar::RANGES).to_owned());
        Expr::Select(selector)
    }

    fn selector(&mut self) -> Selector {
        let name = match self.native && self.dice.chance(30) {
            true => self.pick(grammar::NATIVE),
            false => self.pick(grammar::METRICS),
        };
        self.selector_of(name)
    }

    fn selector_of(&mut self, name: &'static str) -> Selector {
        let mut matchers = Vec::new();
        for _ in 0..self.dice.between(0, 5).saturating_sub(2) {
            matchers.push(self.pick(grammar::MATCHERS));
        }
        let mut name = Some(name);
        if self.dice.chance(3) {
            matchers.push((
                "__name__",
                "=~",
                self.pick(&["temp|mem_bytes", "cpu.+", "[rf].*"]),
            ));
            name = None;
        }
        Selector {
            name,
            matchers,
            range: None,
            modifiers: self.modifiers(),
        }
    }

    fn modifiers(&mut self) -> Modifiers {
        let mut modifiers = Modifiers::default();
        if self.dice.chance(10) {
            modifiers.offset = Some(self.pick(grammar::OFFSETS).to_owned());
        }
        if self.dice.chance(6) {
            let at_s = (BEGIN_MS + self.dice.between(0, SPAN_MS as u64) as i64) / 1000;
            modifiers.at = Some(match self.dice.chance(50) {
                true => self.pick(grammar::ATS).to_owned(),
                false => at_s.to_string(),
            });
        }
        modifiers
    }

    fn call(&mut self, returns: Type, depth: u32) -> Expr {
        let fitting: Vec<_> = grammar::FUNCTIONS
            .iter()
            .filter(|(_, _, kind)| *kind == returns)
            .collect();
        let (name, arguments, kind) = *self.pick(&fitting);
        let arguments = arguments.iter().map(|arg| self.argument(*arg, depth - 1));
        Expr::Call(name, kind, arguments.collect())
    }

    fn argument(&mut self, arg: Arg, depth: u32) -> Expr {
        let argument = self.plain_argument(arg, depth);
        match argument {
            Expr::Text(_) => argument,
            // What `info` takes must be braces alone.
            argument if arg == Arg::InfoLabels => argument,
            argument => self.wrapped(argument),
        }
    }

    fn plain_argument(&mut self, arg: Arg, depth: u32) -> Expr {
        match arg {
            Arg::Vector => self.vector(depth),
            Arg::Matrix => self.matrix(depth),
            Arg::Scalar => self.scalar(depth.min(1)),
            Arg::Quantile if self.dice.chance(5) => self.scalar(depth.min(1)),
            Arg::Quantile => Expr::Number(self.pick(grammar::FRACTIONS).to_owned()),
            Arg::Label => Expr::Text(self.pick(grammar::LABELS).to_owned()),
            Arg::OneOf(texts) => Expr::Text(self.pick(texts).to_owned()),
            Arg::Histograms => self.histograms(depth),
            Arg::InfoLabels => {
                let matchers = [
                    ("region", "=~", ".+"),
                    ("region", "=", "eu"),
                    ("job", "=", "api"),
                    ("__name__", "=", "deploy_info"),
                ];
                let mut matchers = vec![self.pick(&matchers)];
                if self.dice.chance(30) {
                    matchers.retain(|(name, ..)| *name != "__name__");
                    matchers.push(("__name__", "=~", ".+_info"));
                }
                Expr::Select(Selector {
                    name: None,
                    matchers,
                    range: None,
                    modifiers: Modifiers::default(),
                })
            }
        }
    }

    /// As dashboards ask: buckets, their rate, and the sum of that.
    fn histograms(&mut self, depth: u32) -> Expr {
        if self.dice.chance(10) {
            return self.vector(depth);
        }
        let name = match self.native && self.dice.chance(60) {
            true => self.pick(grammar::NATIVE),
            false => self.pick(grammar::CLASSIC),
        };
        let mut selector = self.selector_of(name);
        if self.dice.chance(30) {
            return Expr::Select(selector);
        }
        selector.range = Some(self.pick(&["2m", "5m", "10m"]).to_owned());
        let function = self.pick(&["rate", "increase", "delta", "sum_over_time", "irate"]);
        let rate = Expr::Call(function, Type::Vector, vec![Expr::Select(selector)]);
        if self.dice.chance(40) {
            return rate;
        }
        let op = self.pick(&["sum", "sum", "avg"]);
        let labels = self.pick(&[&["le"][..], &["le", "job"], &["instance", "le"], &["job"]]);
        let grouping = Some(("by", labels.to_vec()));
        Expr::Aggregate(Box::new(Aggregate {
            op,
            grouping,
            param: None,
            of: rate,
        }))
    }

    fn aggregate(&mut self, depth: u32) -> Expr {
        let (op, param) = self.pick(grammar::AGGREGATIONS);
        let param = param.map(|arg| self.argument(arg, 0));
        let grouping = self.dice.chance(70).then(|| {
            let keyword = self.pick(&["by", "by", "without"]);
            (keyword, self.some(grammar::LABELS, 3))
        });
        let of = self.vector(depth - 1);
        Expr::Aggregate(Box::new(Aggregate {
            op,
            grouping,
            param,
            of,
        }))
    }

    fn binary(&mut self, depth: u32) -> Expr {
        let sets = self.dice.chance(20);
        let op = match (sets, self.dice.chance(35)) {
            (true, _) => self.pick(grammar::SETS),
            (false, true) => self.pick(grammar::COMPARISONS),
            (false, false) => self.pick(grammar::ARITHMETIC),
        };
        let is_bool = grammar::COMPARISONS.contains(&op) && self.dice.chance(40);
        let (lhs, rhs, matching) = match self.dice.between(0, 10) {
            0..3 if !sets => {
                let (vector, scalar) = (self.vector(depth - 1), self.scalar(1));
                match self.dice.chance(60) {
                    true => (vector, scalar, None),
                    false => (scalar, vector, None),
                }
            }
            0..6 => self.matched(sets),
            6 | 7 => {
                let lhs = self.vector(depth - 1);
                (lhs.clone(), lhs, None)
            }
            _ => {
                let matching = self.dice.chance(60).then(|| self.matching(sets));
                (self.vector(depth - 1), self.vector(depth - 1), matching)
            }
        };
        Expr::Binary(Box::new(Binary {
            op,
            is_bool,
            matching,
            lhs,
            rhs,
        }))
    }

    /// Two sides of which some series belong together.
    fn matched(&mut self, sets: bool) -> (Expr, Expr, Option<Matching>) {
        let many = ["requests_total", "cpu_seconds_total", "dur_bucket", "lat"];
        let one = [
            "temp",
            "mem_bytes",
            "build_info",
            "special",
            "dur_sum",
            "latc",
            "latf",
        ];
        let end = if self.native {
            one.len()
        } else {
            one.len() - 2
        };
        let single = self.pick(&one[..end]);
        let right = Expr::Select(self.selector_of(single));
        if self.dice.chance(50) {
            let other = self.pick(&one[..end]);
            let keyword = self.dice.chance(70);
            let matching = keyword.then(|| Matching {
                keyword: "on",
                labels: vec!["job", "instance"],
                group: None,
            });
            return (Expr::Select(self.selector_of(other)), right, matching);
        }
        let end = if self.native {
            many.len()
        } else {
            many.len() - 1
        };
        let name = self.pick(&many[..end]);
        let left = Expr::Select(self.selector_of(name));
        let include = self.some(&["version", "none", "job"], 2);
        let matching = Some(Matching {
            keyword: "on",
            labels: vec!["job", "instance"],
            group: (!sets).then_some(("group_left", include.clone())),
        });
        if !sets && self.dice.chance(30) {
            let matching = matching.map(|matching| Matching {
                group: Some(("group_right", include)),
                ..matching
            });
            return (right, left, matching);
        }
        (left, right, matching)
    }

    fn matching(&mut self, sets: bool) -> Matching {
        let group = (!sets && self.dice.chance(30)).then(|| {
            let side = self.pick(&["group_left", "group_right"]);
            (side, self.some(grammar::LABELS, 1))
        });
        Matching {
            keyword: self.pick(&["on", "ignoring"]),
            labels: self.some(grammar::LABELS, 3),
            group,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn one_seed_is_one_stream() {
        let stream = |seed| {
            let mut generator = Generator::new(seed, true);
            (0..100)
                .map(move |_| generator.question().line())
                .collect::<Vec<_>>()
        };
        assert_eq!(stream(1), stream(1));
        assert_ne!(stream(1), stream(2));
    }

    #[test]
    fn every_function_operator_and_aggregation_is_drawn() {
        let mut generator = Generator::new(3, true);
        let mut seen = BTreeSet::new();
        for _ in 0..20_000 {
            let shape = generator.question().expr.shape();
            seen.extend(shape.split(['(', ')', ',']).map(str::to_owned));
        }
        let names = grammar::FUNCTIONS.iter().map(|f| f.0);
        let names = names.chain(grammar::AGGREGATIONS.iter().map(|a| a.0));
        let operators = [grammar::ARITHMETIC, grammar::COMPARISONS, grammar::SETS].concat();
        for name in names.chain(operators) {
            assert!(seen.contains(name), "{name} is never drawn");
        }
    }

    #[test]
    fn without_native_nobody_asks_for_them() {
        let mut generator = Generator::new(4, false);
        for _ in 0..5_000 {
            let line = generator.question().line();
            let words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            assert!(
                !words.clone().any(|w| grammar::NATIVE.contains(&w)),
                "{line}"
            );
        }
    }
}
