//! Tokens to a tree.
//!
//! Precedence climbing over the grammar of Prometheus 3.5, with its messages at its positions:
//! the first mistake, in the order it would meet them, is the one reported. No text makes the
//! parser recurse deeper than `QUERY_DEPTH_MAX`, or the tree grow higher than `QUERY_HEIGHT_MAX`.

mod check;
pub(crate) mod duration;
mod literal;
mod operand;
mod selector;

use std::collections::VecDeque;

use model::Matcher;
use model::limits::{QUERY_BYTES_MAX, QUERY_DEPTH_MAX, QUERY_HEIGHT_MAX};

use crate::ast::{Binary, BinaryOp, Cardinality, Expr, Fill, Matching, NumberLiteral, Unary};
use crate::error::{ParseError, Span};
use crate::lexer::{Keyword, Kind, Token, lex};
use model::quote::{quote, quote_bytes};

/// What the parser lets through beyond the default.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct ParseOptions {
    /// Functions and aggregations Prometheus calls experimental.
    pub experimental_functions: bool,
    /// Arithmetic on durations, `[5m * 2]` (`promql-duration-expr`). Also `step()`, `range()`,
    /// `min_of(a, b)` and `max_of(a, b)` in it, which Prometheus has since 3.6.
    pub duration_expressions: bool,
    /// `fill (0)`, `fill_left (0)`, `fill_right (0)` behind a binary operator
    /// (`promql-binop-fill-modifiers`, newer than 3.5).
    pub fill_modifiers: bool,
    /// `anchored` and `smoothed` behind a selector (`promql-extended-range-selectors`, newer than
    /// 3.5).
    pub extended_ranges: bool,
}

/// Reads an expression and checks its types.
pub fn parse(text: &str) -> Result<Expr, ParseError> {
    parse_with(text, ParseOptions::default())
}

/// As [`parse`], with options.
pub fn parse_with(text: &str, options: ParseOptions) -> Result<Expr, ParseError> {
    let mut parser = Parser::new(text, options)?;
    let parsed = parser.whole(Parser::expression);
    let Ok((mut expr, _)) = parsed else {
        return Err(parser.first_error());
    };
    if parser.errors.is_empty() {
        parser.check(&mut expr);
    }
    if parser.errors.is_empty() {
        return Ok(expr);
    }
    Err(parser.first_error())
}

/// Reads a bare vector selector, as `match[]` takes it. One that names nothing, like `{}`, is read
/// too: some callers take it, as Prometheus' federation does. So is one with two names.
pub fn parse_matchers(text: &str) -> Result<Vec<Matcher>, ParseError> {
    let mut parser = Parser::new(text, ParseOptions::default())?;
    let parsed = parser.all_of(Parser::bare_selector);
    let (Ok(selector), true) = (parsed, parser.errors.is_empty()) else {
        return Err(parser.first_error());
    };
    Ok(selector.matchers)
}

/// A tree and how deep it is.
type Tree = (Expr, usize);

/// The parser cannot go on; why is in [`Parser::errors`].
struct Halt;

type Parsed<T> = Result<T, Halt>;

struct Parser<'a> {
    text: &'a str,
    options: ParseOptions,
    tokens: Vec<Token>,
    at: usize,
    errors: Vec<ParseError>,
    /// How many calls of the recursive rules are under way.
    depth: usize,
    /// How many aggregations are open around the current token: messages name the innermost.
    aggregations: usize,
    /// Where the closing parentheses so far end that no expression has taken for its own.
    closings: VecDeque<usize>,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, options: ParseOptions) -> Result<Self, ParseError> {
        if text.len() > QUERY_BYTES_MAX {
            let message = format!("expression is longer than {QUERY_BYTES_MAX} bytes");
            return Err(ParseError::new(text, Span::default(), message));
        }
        Ok(Self {
            text,
            options,
            tokens: lex(text, options),
            at: 0,
            errors: Vec::new(),
            depth: 0,
            aggregations: 0,
            closings: VecDeque::new(),
        })
    }

    fn whole<T>(&mut self, rule: fn(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.peek().kind == Kind::End {
            return Err(self.halt(Span::default(), "no expression found in input"));
        }
        self.all_of(rule)
    }

    fn all_of<T>(&mut self, rule: fn(&mut Self) -> Parsed<T>) -> Parsed<T> {
        let result = rule(self)?;
        match self.peek().kind {
            Kind::End => Ok(result),
            _ => Err(self.unexpected("", "")),
        }
    }

    fn first_error(&mut self) -> ParseError {
        assert!(!self.errors.is_empty(), "a refusal says why");
        self.errors.swap_remove(0)
    }

    /// The next token; the last one stays.
    fn peek(&self) -> &Token {
        let last = self.tokens.len() - 1;
        &self.tokens[self.at.min(last)]
    }

    fn peek_second(&self) -> &Kind {
        let last = self.tokens.len() - 1;
        &self.tokens[(self.at + 1).min(last)].kind
    }

    fn advance(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        if token.kind == Kind::RightParen {
            self.closings.push_back(token.span.end);
        }
        token
    }

    /// Where a call, an aggregation, its labels or parentheses end, when all of it has been read.
    ///
    /// In Prometheus each of them takes the first closing parenthesis that none has taken, and nobody
    /// takes those of `start()`, `on (…)` and lengths. So behind these an expression ends too early;
    /// that shows in where a mistake is said to stand.
    fn take_closing(&mut self) -> usize {
        let end = self.closings.pop_front();
        end.expect("what asks has read a parenthesis of its own")
    }

    fn accept(&mut self, kind: &Kind) -> Option<Span> {
        (self.peek().kind == *kind).then(|| self.advance().span)
    }

    fn text_of(&self, span: Span) -> &'a str {
        self.text.get(span.start..span.end).unwrap_or_default()
    }

    /// Notes a mistake that parsing can go on after.
    fn report(&mut self, span: Span, message: impl Into<String>) {
        self.errors.push(ParseError::new(self.text, span, message));
    }

    fn halt(&mut self, span: Span, message: impl Into<String>) -> Halt {
        self.report(span, message);
        Halt
    }

    /// As [`Self::halt`], where Prometheus has read one token further: one that is no token is told
    /// instead.
    fn halt_having_looked(&mut self, span: Span, message: impl Into<String>) -> Halt {
        let next = self.peek().clone();
        match next.kind {
            Kind::Error(message) => self.halt(next.span, message),
            _ => self.halt(span, message),
        }
    }

    /// The next token does not belong here.
    fn unexpected(&mut self, context: &str, expected: &str) -> Halt {
        let token = self.peek().clone();
        if let Kind::Error(message) = token.kind {
            return self.halt(token.span, message);
        }
        let mut message = format!(
            "unexpected {}",
            token.kind.describe(self.text_of(token.span))
        );
        match context {
            "" if self.aggregations > 0 => message.push_str(" in aggregation"),
            "" => {}
            _ => message.push_str(&format!(" in {context}")),
        }
        if !expected.is_empty() {
            message.push_str(&format!(", expected {expected}"));
        }
        self.halt(token.span, message)
    }

    /// Guards a recursive rule.
    fn nested<T>(&mut self, rule: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        self.bound_depth(self.depth + 1)?;
        self.depth += 1;
        let result = rule(self);
        self.depth -= 1;
        result
    }

    /// `depth` of the text's nesting, if it is allowed.
    fn bound_depth(&mut self, depth: usize) -> Parsed<usize> {
        self.bound(depth, QUERY_DEPTH_MAX)
    }

    /// `height` of the tree, if it is allowed: a long chain of operators is high, not nested.
    fn bound_height(&mut self, height: usize) -> Parsed<usize> {
        self.bound(height, QUERY_HEIGHT_MAX)
    }

    fn bound(&mut self, levels: usize, max: usize) -> Parsed<usize> {
        if levels <= max {
            return Ok(levels);
        }
        let message = format!("expression is nested deeper than {max} levels");
        let span = self.peek().span;
        Err(self.halt(span, message))
    }

    fn expression(&mut self) -> Parsed<Tree> {
        self.binary(0)
    }

    /// An expression whose operators all bind at least as tight as `least`.
    fn binary(&mut self, least: u8) -> Parsed<Tree> {
        let (mut left, mut depth) = self.nested(Self::unary)?;
        while let Kind::Operator(op) = self.peek().kind {
            if op.precedence() < least {
                break;
            }
            self.advance();
            let (return_bool, matching) = self.binary_modifiers()?;
            // Only the power operator takes its equals on the right.
            let least_right = op.precedence() + u8::from(op != BinaryOp::Pow);
            let (right, right_depth) = self.nested(|p| p.binary(least_right))?;
            depth = self.bound_height(depth.max(right_depth) + 1)?;
            left = Expr::Binary(Binary {
                op,
                left: Box::new(left),
                right: Box::new(right),
                return_bool,
                matching: Some(matching),
            });
        }
        Ok((left, depth))
    }

    /// A sign binds like `*`: looser than `^`, tighter than `+`.
    fn unary(&mut self) -> Parsed<Tree> {
        let negative = match self.peek().kind {
            Kind::Operator(BinaryOp::Add) => false,
            Kind::Operator(BinaryOp::Sub) => true,
            _ => return self.postfix(),
        };
        let start = self.advance().span.start;
        let power = BinaryOp::Pow.precedence();
        let (expr, depth) = self.nested(|p| p.binary(power))?;
        if let Expr::Number(mut number) = expr {
            number.value = if negative {
                -number.value
            } else {
                number.value
            };
            number.span.start = start;
            return Ok((Expr::Number(number), depth));
        }
        let expr = Box::new(expr);
        let unary = Unary {
            negative,
            expr,
            start,
        };
        Ok((Expr::Unary(unary), self.bound_height(depth + 1)?))
    }

    /// `bool`, `on (…)`, `group_left (…)` behind an operator.
    fn binary_modifiers(&mut self) -> Parsed<(bool, Matching)> {
        let return_bool = self.accept(&Kind::Keyword(Keyword::Bool)).is_some();
        let mut matching = Matching {
            cardinality: Cardinality::OneToOne,
            on: false,
            labels: Vec::new(),
            include: Vec::new(),
            fill: Fill::default(),
        };
        self.label_modifiers(&mut matching)?;
        while self.options.fill_modifiers && *self.peek_second() == Kind::LeftParen {
            let word = self.text_of(self.peek().span).to_ascii_lowercase();
            let (left, right) = match word.as_str() {
                "fill" => (true, true),
                "fill_left" => (true, false),
                "fill_right" => (false, true),
                _ => break,
            };
            let value = self.fill_value()?;
            if left {
                matching.fill.left = Some(value.clone());
            }
            if right {
                matching.fill.right = Some(value);
            }
        }
        Ok((return_bool, matching))
    }

    /// `fill (-1)`: the number.
    fn fill_value(&mut self) -> Parsed<NumberLiteral> {
        self.advance();
        self.advance();
        let is_negative = self.peek().kind == Kind::Operator(BinaryOp::Sub);
        if is_negative || self.peek().kind == Kind::Operator(BinaryOp::Add) {
            self.advance();
        }
        if !matches!(self.peek().kind, Kind::Number | Kind::Duration) {
            return Err(self.unexpected("fill modifier", "number"));
        }
        let mut number = self.number_literal()?;
        if is_negative {
            number.value = -number.value;
        }
        match self.accept(&Kind::RightParen) {
            Some(_) => Ok(number),
            None => Err(self.unexpected("fill modifier", "\")\"")),
        }
    }

    /// `on (…)` and `group_left (…)`.
    fn label_modifiers(&mut self, matching: &mut Matching) -> Parsed<()> {
        matching.on = match self.peek().kind {
            Kind::Keyword(Keyword::On) => true,
            Kind::Keyword(Keyword::Ignoring) => false,
            _ => return Ok(()),
        };
        self.advance();
        matching.labels = self.grouping_labels()?;
        matching.cardinality = match self.peek().kind {
            Kind::Keyword(Keyword::GroupLeft) => Cardinality::ManyToOne,
            Kind::Keyword(Keyword::GroupRight) => Cardinality::OneToMany,
            _ => return Ok(()),
        };
        self.advance();
        if self.peek().kind == Kind::LeftParen || !self.starts_operand() {
            matching.include = self.grouping_labels()?;
        }
        Ok(())
    }

    /// `(a, b)`, with a comma allowed at the end.
    fn grouping_labels(&mut self) -> Parsed<Vec<String>> {
        let mut labels = Vec::new();
        if self.accept(&Kind::LeftParen).is_none() {
            return Err(self.unexpected("grouping opts", "\"(\""));
        }
        while self.accept(&Kind::RightParen).is_none() {
            labels.push(self.grouping_label()?);
            match self.peek().kind {
                Kind::Comma => drop(self.advance()),
                Kind::RightParen => {}
                _ => return Err(self.unexpected("grouping opts", "\",\" or \")\"")),
            }
        }
        Ok(labels)
    }

    fn grouping_label(&mut self) -> Parsed<String> {
        let token = self.peek().clone();
        let text = self.text_of(token.span);
        let label = match token.kind {
            Kind::String => self.quoted_label(text, token.span)?,
            Kind::Keyword(Keyword::Without) => {
                return Err(self.unexpected("grouping opts", "label"));
            }
            Kind::Identifier | Kind::MetricIdentifier | Kind::Keyword(_) | Kind::Aggregator(_) => {
                text.to_owned()
            }
            Kind::Operator(op) if op.is_set() || op == BinaryOp::Atan2 => text.to_owned(),
            _ => return Err(self.unexpected("grouping opts", "label")),
        };
        self.advance();
        Ok(label)
    }

    fn quoted_label(&mut self, text: &str, span: Span) -> Parsed<String> {
        let label = literal::string(text, span);
        if label.not_utf8.is_none() && !label.value.is_empty() {
            return Ok(label.value);
        }
        let shown = label
            .not_utf8
            .map_or(quote(&label.value), |bytes| quote_bytes(&bytes));
        Err(self.halt(span, format!("invalid label name for grouping: {shown}")))
    }
}

#[cfg(test)]
mod tests;
