//! Trees back to text, in the form Prometheus prints them.

use std::fmt;

use model::Matcher;
use model::labels::{METRIC_NAME, is_legacy_name};
use model::number;

use crate::ast::{
    Aggregate, At, Binary, Call, Cardinality, Expr, Matching, MatrixSelector, NumberLiteral, Reach,
    Shift, StringLiteral, Subquery, VectorSelector,
};
use crate::duration::Length;

use model::quote::{quote, quote_bytes};

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::String(string) => string.fmt(f),
            Self::Vector(selector) => selector.fmt(f),
            Self::Matrix(matrix) => matrix.fmt(f),
            Self::Subquery(subquery) => subquery.fmt(f),
            Self::Call(call) => call.fmt(f),
            Self::Aggregate(aggregate) => aggregate.fmt(f),
            Self::Binary(binary) => binary.fmt(f),
            Self::Unary(unary) => {
                write!(
                    f,
                    "{}{}",
                    if unary.negative { "-" } else { "+" },
                    unary.expr
                )
            }
            Self::Paren(paren) => write!(f, "({})", paren.expr),
        }
    }
}

impl fmt::Display for NumberLiteral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_duration {
            return f.write_str(&format_float(self.value));
        }
        let sign = if self.value < 0.0 { "-" } else { "" };
        let ms = (self.value.abs() * 1000.0).round() as i64;
        write!(f, "{sign}{}", format_duration_ms(ms))
    }
}

impl fmt::Display for StringLiteral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.not_utf8 {
            Some(bytes) => f.write_str(&quote_bytes(bytes)),
            None => f.write_str(&quote(&self.value)),
        }
    }
}

/// The shortest decimal that reads back as the same float, without an exponent.
pub fn format_float(value: f64) -> String {
    match value {
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        v => number::plain(v),
    }
}

/// `1h30m`. Years and weeks only when they divide the whole.
fn format_duration_ms(ms: i64) -> String {
    const UNITS: [(&str, i64, bool); 7] = [
        ("y", 365 * 86_400_000, true),
        ("w", 7 * 86_400_000, true),
        ("d", 86_400_000, false),
        ("h", 3_600_000, false),
        ("m", 60_000, false),
        ("s", 1_000, false),
        ("ms", 1, false),
    ];
    if ms == 0 {
        return "0s".to_owned();
    }
    let mut rest = ms;
    let mut text = String::new();
    for (unit, unit_ms, only_whole) in UNITS {
        let count = rest / unit_ms;
        if count > 0 && !(only_whole && rest % unit_ms != 0) {
            text.push_str(&format!("{count}{unit}"));
            rest %= unit_ms;
        }
    }
    text
}

impl fmt::Display for VectorSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_matchers(f)?;
        self.shift.write_at(f)?;
        self.write_reach(f)?;
        self.shift.write_offset(f)
    }
}

impl VectorSelector {
    fn write_reach(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reach {
            Reach::Inside => Ok(()),
            reach => write!(f, " {}", reach.as_str()),
        }
    }

    fn write_matchers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_deref().unwrap_or_default();
        f.write_str(name)?;
        let is_name = |m: &Matcher| self.name.is_some() && m.name == METRIC_NAME && m.value == name;
        let mut shown: Vec<String> = self
            .matchers
            .iter()
            .filter(|m| !is_name(m))
            .map(|m| {
                format!(
                    "{}{}{}",
                    label_name(&m.name),
                    m.op.as_str(),
                    quote(&m.value)
                )
            })
            .collect();
        shown.sort();
        // An empty selector is kept visible: `info(x, {})`.
        if shown.is_empty() && self.name.is_some() {
            return Ok(());
        }
        write!(f, "{{{}}}", shown.join(","))
    }
}

/// A name as it may stand in braces or groupings: in quotes unless it is an identifier.
fn label_name(name: &str) -> String {
    match is_legacy_name(name, false) {
        true => name.to_owned(),
        false => quote(name),
    }
}

/// Names in a grouping, where Prometheus leaves a colon as it is.
fn label_names(names: &[String]) -> String {
    let grouped = |name: &String| match label_name(&name.replace(':', "_")) {
        plain if !plain.starts_with('"') => name.clone(),
        _ => quote(name),
    };
    let names: Vec<String> = names.iter().map(grouped).collect();
    names.join(", ")
}

impl fmt::Display for Shift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_at(f)?;
        self.write_offset(f)
    }
}

impl Shift {
    fn write_at(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some(At::Timestamp(ms)) => write!(f, " @ {:.3}", ms as f64 / 1000.0),
            Some(At::Start) => f.write_str(" @ start()"),
            Some(At::End) => f.write_str(" @ end()"),
            None => Ok(()),
        }
    }

    fn write_offset(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.offset {
            Length::Fixed(0) => Ok(()),
            offset => write!(f, " offset {offset}"),
        }
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Computed(expr) => expr.fmt(f),
            Self::Fixed(ms) => {
                let sign = if *ms < 0 { "-" } else { "" };
                write!(f, "{sign}{}", format_duration_ms(ms.saturating_abs()))
            }
        }
    }
}

impl fmt::Display for MatrixSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.selector.write_matchers(f)?;
        write!(f, "[{}]", self.range)?;
        self.selector.write_reach(f)?;
        self.selector.shift.fmt(f)
    }
}

impl fmt::Display for Subquery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.expr, self.suffix())
    }
}

impl Subquery {
    /// What stands behind the expression: `[5m:30s] @ end() offset 1h`.
    pub(crate) fn suffix(&self) -> String {
        let step = self.step.as_ref().map_or(String::new(), Length::to_string);
        format!("[{}:{step}]{}", self.range, self.shift)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.function.name)?;
        for (i, arg) in self.args.iter().enumerate() {
            write!(f, "{}{arg}", if i == 0 { "" } else { ", " })?;
        }
        f.write_str(")")
    }
}

impl fmt::Display for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.head())?;
        if let Some(param) = &self.param {
            write!(f, "{param}, ")?;
        }
        write!(f, "{})", self.expr)
    }
}

impl Aggregate {
    /// What stands before the parentheses: `sum by (job) `.
    pub(crate) fn head(&self) -> String {
        let (op, labels) = (self.op.as_str(), label_names(&self.grouping));
        match (self.without, self.grouping.is_empty()) {
            (true, _) => format!("{op} without ({labels}) "),
            (false, false) => format!("{op} by ({labels}) "),
            (false, true) => op.to_owned(),
        }
    }
}

impl fmt::Display for Binary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.left, self.operator(), self.right)
    }
}

impl Binary {
    /// The operator with what modifies it: `> bool on (job)`.
    pub(crate) fn operator(&self) -> String {
        let return_bool = if self.return_bool { " bool" } else { "" };
        let matching = self
            .matching
            .as_ref()
            .map_or(String::new(), Matching::to_string);
        format!("{}{return_bool}{matching}", self.op.as_str())
    }
}

impl fmt::Display for Matching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group = match self.cardinality {
            Cardinality::ManyToOne => Some("left"),
            Cardinality::OneToMany => Some("right"),
            Cardinality::OneToOne | Cardinality::ManyToMany => None,
        };
        if self.on || !self.labels.is_empty() || group.is_some() {
            let how = if self.on { "on" } else { "ignoring" };
            write!(f, " {how} ({})", label_names(&self.labels))?;
        }
        if let Some(side) = group {
            write!(f, " group_{side} ({})", label_names(&self.include))?;
        }
        match (&self.fill.left, &self.fill.right) {
            (Some(left), Some(right)) if left == right => write!(f, " fill ({left})"),
            (left, right) => {
                let sides = [("left", left), ("right", right)];
                let mut sides = sides
                    .into_iter()
                    .filter_map(|(s, v)| Some((s, v.as_ref()?)));
                sides.try_for_each(|(side, value)| write!(f, " fill_{side} ({value})"))
            }
        }
    }
}
