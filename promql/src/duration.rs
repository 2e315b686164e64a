//! Lengths of time in an expression: as written, or computed from durations once the query's own
//! times are known (`[5m * 2]`, an experiment of Prometheus).

use std::fmt;

use crate::ast::NumberLiteral;
use crate::error::Span;

/// The length of a range, an offset, a subquery's step.
#[derive(Debug, Clone, PartialEq)]
pub enum Length {
    /// Milliseconds.
    Fixed(i64),
    Computed(DurationExpr),
}

impl Default for Length {
    fn default() -> Self {
        Self::Fixed(0)
    }
}

impl Length {
    pub fn is_zero(&self) -> bool {
        *self == Self::Fixed(0)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DurationOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Negate,
    /// `step()`, the query's resolution.
    Step,
    /// `range()`, the time between the query's first and last instant.
    Range,
    /// `min_of(a, b)`
    MinOf,
    /// `max_of(a, b)`
    MaxOf,
}

impl DurationOp {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub | Self::Negate => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Pow => "^",
            Self::Step => "step",
            Self::Range => "range",
            Self::MinOf => "min_of",
            Self::MaxOf => "max_of",
        }
    }
}

/// One operation on durations.
#[derive(Debug, Clone, PartialEq)]
pub struct DurationExpr {
    pub op: DurationOp,
    /// As many as `op` takes: none, one or two.
    pub operands: Vec<DurationOperand>,
    /// Parentheses stand around it.
    pub wrapped: bool,
    /// Without the parentheses.
    pub span: Span,
}

#[derive(Debug, Clone, PartialEq)]
pub enum DurationOperand {
    /// A duration, or seconds.
    Number(NumberLiteral),
    Expr(DurationExpr),
}

impl DurationOperand {
    pub fn span(&self) -> Span {
        match self {
            Self::Number(number) => number.span,
            Self::Expr(expr) => expr.span,
        }
    }

    fn seconds(&self, query: QueryTimes) -> Result<f64, DurationError> {
        match self {
            Self::Number(number) => Ok(number.value),
            Self::Expr(expr) => expr.seconds(query),
        }
    }
}

/// What `step()` and `range()` stand for, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueryTimes {
    pub step_ms: i64,
    pub range_ms: i64,
}

/// A computation that yields no usable length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}:{}: {what}", span.start, span.end)]
pub struct DurationError {
    pub span: Span,
    pub what: &'static str,
}

impl DurationExpr {
    /// Milliseconds, cut towards zero.
    pub fn millis(&self, query: QueryTimes) -> Result<i64, DurationError> {
        // The cast saturates, and takes what is no number to zero.
        let seconds = self.bounded_seconds(query)?;
        Ok((seconds * 1000.0) as i64)
    }

    /// As [`Self::millis`], for lengths that must be longer than nothing.
    pub fn positive_millis(&self, query: QueryTimes) -> Result<i64, DurationError> {
        match self.bounded_seconds(query)? {
            seconds if seconds <= 0.0 => Err(self.error("duration must be greater than 0")),
            seconds => Ok((seconds * 1000.0) as i64),
        }
    }

    /// Prometheus holds the seconds against what an integer takes.
    fn bounded_seconds(&self, query: QueryTimes) -> Result<f64, DurationError> {
        let seconds = self.seconds(query)?;
        if seconds.abs() > i64::MAX as f64 {
            return Err(self.error("duration is out of range"));
        }
        Ok(seconds)
    }

    fn error(&self, what: &'static str) -> DurationError {
        DurationError {
            span: self.span,
            what,
        }
    }

    /// Recursion is bounded by the depth the parser grants.
    fn seconds(&self, query: QueryTimes) -> Result<f64, DurationError> {
        let operand = |index: usize| {
            let operand = self.operands.get(index);
            operand.map_or(Ok(0.0), |operand| operand.seconds(query))
        };
        let (left, right) = (operand(0)?, operand(1)?);
        Ok(match self.op {
            DurationOp::Add => left + right,
            DurationOp::Sub => left - right,
            DurationOp::Mul => left * right,
            DurationOp::Div if right == 0.0 => return Err(self.error("division by zero")),
            DurationOp::Div => left / right,
            DurationOp::Mod if right == 0.0 => return Err(self.error("modulo by zero")),
            DurationOp::Mod => left % right,
            DurationOp::Pow => left.powf(right),
            DurationOp::Negate => -left,
            DurationOp::Step => query.step_ms as f64 / 1000.0,
            DurationOp::Range => query.range_ms as f64 / 1000.0,
            DurationOp::MinOf => left.min(right),
            DurationOp::MaxOf => left.max(right),
        })
    }
}

impl fmt::Display for DurationExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = if self.wrapped { ("(", ")") } else { ("", "") };
        let op = self.op.as_str();
        match self.operands.as_slice() {
            [] => write!(f, "{open}{op}(){close}"),
            [operand] => write!(f, "{open}{op}{operand}{close}"),
            [left, right, ..] if matches!(self.op, DurationOp::MinOf | DurationOp::MaxOf) => {
                write!(f, "{open}{op}({left}, {right}){close}")
            }
            [left, right, ..] => write!(f, "{open}{left} {op} {right}{close}"),
        }
    }
}

impl fmt::Display for DurationOperand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Expr(expr) => expr.fmt(f),
        }
    }
}
