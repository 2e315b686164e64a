//! Durations behind brackets and `offset`, and arithmetic on them.

use super::{Parsed, Parser, literal};
use crate::ast::BinaryOp;
use crate::duration::{DurationExpr, DurationOp, DurationOperand, Length};
use crate::error::Span;
use crate::lexer::Kind;

/// How a message names what stands where no duration does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub context: &'static str,
    pub expected: &'static str,
}

pub(super) const RANGE: Place = Place {
    context: "subquery selector",
    expected: "number or duration",
};

pub(super) const STEP: Place = Place {
    context: "subquery selector",
    expected: "number or duration or \"]\"",
};

const OFFSET: Place = Place {
    context: "offset",
    expected: "number or duration",
};

/// Arithmetic is an experiment of Prometheus that is off by default.
const NOT_ENABLED: &str = "experimental duration expression is not enabled";
const OUT_OF_RANGE: &str = "duration out of range";

/// The functions on durations that newer versions know, by the words the lexer leaves as names.
pub(crate) fn duration_function(word: &str) -> Option<DurationOp> {
    let functions = [
        DurationOp::Step,
        DurationOp::Range,
        DurationOp::MinOf,
        DurationOp::MaxOf,
    ];
    let mut functions = functions.into_iter();
    functions.find(|op| op.as_str().eq_ignore_ascii_case(word))
}

impl Parser<'_> {
    /// The length of a range or a step: longer than nothing, as far as is known before it runs.
    pub(super) fn positive_length(&mut self, place: Place) -> Parsed<Length> {
        let operand = self.positive(place)?;
        self.length(operand)
    }

    /// The length of a step; less than half a nanosecond is as good as none.
    pub(super) fn step_length(&mut self) -> Parsed<Option<Length>> {
        match self.positive(STEP)? {
            DurationOperand::Number(number) if (number.value * 1e9).round() == 0.0 => Ok(None),
            operand => self.length(operand).map(Some),
        }
    }

    fn positive(&mut self, place: Place) -> Parsed<DurationOperand> {
        match self.duration(place, 0)? {
            DurationOperand::Number(number) if number.value <= 0.0 => {
                Err(self.halt_having_looked(number.span, "duration must be greater than 0"))
            }
            operand => Ok(operand),
        }
    }

    /// What `offset` moves by. A bare number or function ends it: `x offset 5m * 2` doubles x.
    pub(super) fn offset_length(&mut self) -> Parsed<Length> {
        let is_signed = sign(&self.peek().kind).is_some();
        let first = self.tokens.get(self.at + usize::from(is_signed));
        let is_bare = first.is_some_and(|token| match token.kind {
            Kind::Number | Kind::Duration => true,
            Kind::Identifier => duration_function(self.text_of(token.span)).is_some(),
            _ => false,
        });
        let operand = match sign(&self.peek().kind) {
            Some(is_negative) if is_bare => {
                let at = self.advance().span;
                let operand = self.plain_duration(OFFSET, at)?;
                signed(at, is_negative, operand)
            }
            None if is_bare => self.plain_duration(OFFSET, self.peek().span)?,
            _ => self.duration(OFFSET, 0)?,
        };
        self.length(operand)
    }

    fn length(&mut self, operand: DurationOperand) -> Parsed<Length> {
        match operand {
            DurationOperand::Expr(expr) => Ok(Length::Computed(expr)),
            DurationOperand::Number(number) => match literal::seconds_as_ms(number.value) {
                Some(ms) => Ok(Length::Fixed(ms)),
                None => Err(self.halt(number.span, OUT_OF_RANGE)),
            },
        }
    }

    /// Arithmetic whose operators all bind at least as tight as `least`.
    fn duration(&mut self, place: Place, least: u8) -> Parsed<DurationOperand> {
        let mut left = self.nested(|parser| parser.signed_duration(place))?;
        let mut operators = 0;
        while let Kind::Operator(sign) = self.peek().kind {
            let Some(op) = arithmetic(sign).filter(|_| sign.precedence() >= least) else {
                break;
            };
            let operator = self.advance().span;
            let least_right = sign.precedence() + u8::from(sign != BinaryOp::Pow);
            let right = self.nested(|parser| parser.duration(place, least_right))?;
            if !self.options.duration_expressions {
                return Err(self.halt_having_looked(left.span(), NOT_ENABLED));
            }
            self.check_divisor(op, &right, operator)?;
            operators += 1;
            self.bound_depth(self.depth + operators)?;
            left = DurationOperand::Expr(DurationExpr {
                op,
                span: left.span().to(right.span()),
                operands: vec![left, right],
                wrapped: false,
            });
        }
        Ok(left)
    }

    fn check_divisor(&mut self, op: DurationOp, by: &DurationOperand, at: Span) -> Parsed<()> {
        let is_zero = matches!(by, DurationOperand::Number(number) if number.value == 0.0);
        match op {
            DurationOp::Div if is_zero => Err(self.halt_having_looked(at, "division by zero")),
            DurationOp::Mod if is_zero => Err(self.halt_having_looked(at, "modulo by zero")),
            _ => Ok(()),
        }
    }

    /// A sign binds like `*`: looser than `^`.
    fn signed_duration(&mut self, place: Place) -> Parsed<DurationOperand> {
        let Some(is_negative) = sign(&self.peek().kind) else {
            return self.plain_duration(place, self.peek().span);
        };
        let at = self.advance().span;
        let operand = self.duration(place, BinaryOp::Pow.precedence())?;
        Ok(signed(at, is_negative, operand))
    }

    /// A number, a function, or anything in parentheses. One out of range is told to stand `at`.
    fn plain_duration(&mut self, place: Place, at: Span) -> Parsed<DurationOperand> {
        let token = self.peek().clone();
        match token.kind {
            Kind::Number | Kind::Duration => {
                let number = self.number_literal()?;
                if literal::seconds_as_ms(number.value).is_none() {
                    return Err(self.halt(at, OUT_OF_RANGE));
                }
                Ok(DurationOperand::Number(number))
            }
            Kind::LeftParen => self.wrapped_duration(place),
            Kind::Identifier if self.options.duration_expressions => {
                match duration_function(self.text_of(token.span)) {
                    Some(op) => self.duration_call(place, op),
                    None => Err(self.unexpected(place.context, place.expected)),
                }
            }
            _ => Err(self.unexpected(place.context, place.expected)),
        }
    }

    /// Parentheses around a bare number leave no trace, as in Prometheus.
    fn wrapped_duration(&mut self, place: Place) -> Parsed<DurationOperand> {
        self.advance();
        let mut operand = self.duration(place, 0)?;
        self.expect_in_duration(place, &Kind::RightParen)?;
        if !self.options.duration_expressions {
            return Err(self.halt(operand.span(), NOT_ENABLED));
        }
        if let DurationOperand::Expr(expr) = &mut operand {
            expr.wrapped = true;
        }
        Ok(operand)
    }

    /// `step()`, `min_of(a, b)`.
    fn duration_call(&mut self, place: Place, op: DurationOp) -> Parsed<DurationOperand> {
        let start = self.advance().span;
        self.expect_in_duration(place, &Kind::LeftParen)?;
        let mut operands = Vec::new();
        if matches!(op, DurationOp::MinOf | DurationOp::MaxOf) {
            operands.push(self.duration(place, 0)?);
            self.expect_in_duration(place, &Kind::Comma)?;
            operands.push(self.duration(place, 0)?);
        }
        let end = self.expect_in_duration(place, &Kind::RightParen)?;
        Ok(DurationOperand::Expr(DurationExpr {
            op,
            operands,
            wrapped: false,
            span: start.to(end),
        }))
    }

    fn expect_in_duration(&mut self, place: Place, kind: &Kind) -> Parsed<Span> {
        match self.accept(kind) {
            Some(span) => Ok(span),
            None => Err(self.unexpected(place.context, place.expected)),
        }
    }
}

/// Whether a sign is a minus; `None` for what is no sign.
fn sign(kind: &Kind) -> Option<bool> {
    match kind {
        Kind::Operator(BinaryOp::Sub) => Some(true),
        Kind::Operator(BinaryOp::Add) => Some(false),
        _ => None,
    }
}

fn signed(at: Span, is_negative: bool, operand: DurationOperand) -> DurationOperand {
    match operand {
        DurationOperand::Number(mut number) => {
            number.span.start = at.start;
            if is_negative {
                number.value = -number.value;
            }
            DurationOperand::Number(number)
        }
        DurationOperand::Expr(expr) if is_negative => DurationOperand::Expr(DurationExpr {
            op: DurationOp::Negate,
            span: at.to(expr.span),
            operands: vec![DurationOperand::Expr(expr)],
            wrapped: false,
        }),
        positive @ DurationOperand::Expr(_) => positive,
    }
}

fn arithmetic(op: BinaryOp) -> Option<DurationOp> {
    Some(match op {
        BinaryOp::Add => DurationOp::Add,
        BinaryOp::Sub => DurationOp::Sub,
        BinaryOp::Mul => DurationOp::Mul,
        BinaryOp::Div => DurationOp::Div,
        BinaryOp::Mod => DurationOp::Mod,
        BinaryOp::Pow => DurationOp::Pow,
        _ => return None,
    })
}
