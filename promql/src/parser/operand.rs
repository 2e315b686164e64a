//! What operators stand between: literals, parentheses, calls, aggregations, and the brackets,
//! offsets and `@` behind them.

use super::duration::RANGE;
use super::{Parsed, Parser, Tree, literal};
use crate::ast::{
    Aggregate, AggregateOp, At, BinaryOp, Call, Expr, MatrixSelector, NumberLiteral, Paren, Reach,
    Shift, Subquery,
};
use crate::duration::Length;
use crate::error::Span;
use crate::function::Function;
use crate::lexer::{Keyword, Kind};
use model::quote::quote;

impl Parser<'_> {
    /// An operand with everything that stands behind it.
    pub(super) fn postfix(&mut self) -> Parsed<Tree> {
        let (mut expr, mut depth) = self.operand()?;
        loop {
            match self.peek().kind {
                Kind::LeftBracket => {
                    expr = self.bracket(expr)?;
                    depth = self.bound_height(depth + 1)?;
                }
                Kind::Keyword(Keyword::Offset) => self.offset(&mut expr)?,
                Kind::At => self.at(&mut expr)?,
                Kind::Identifier if self.options.extended_ranges => {
                    let Some(reach) = reach(self.text_of(self.peek().span)) else {
                        return Ok((expr, depth));
                    };
                    self.set_reach(&mut expr, reach)?;
                }
                _ => return Ok((expr, depth)),
            }
        }
    }

    /// `anchored` or `smoothed` behind `expr`.
    fn set_reach(&mut self, expr: &mut Expr, reach: Reach) -> Parsed<()> {
        self.advance();
        let (whole, word) = (expr.span(), reach.as_str());
        let selector = match expr {
            Expr::Vector(selector) => selector,
            Expr::Matrix(matrix) => &mut matrix.selector,
            Expr::Subquery(_) => {
                let message = format!("{word} modifier is not supported for subqueries");
                return Err(self.halt(whole, message));
            }
            _ => return Err(self.halt(whole, format!("{word} modifier not implemented"))),
        };
        if selector.reach != Reach::Inside && selector.reach != reach {
            let message = "anchored and smoothed modifiers cannot be used together";
            return Err(self.halt(whole, message));
        }
        selector.reach = reach;
        Ok(())
    }

    fn operand(&mut self) -> Parsed<Tree> {
        let token = self.peek().clone();
        let text = self.text_of(token.span);
        match token.kind {
            Kind::Number | Kind::Duration => Ok((Expr::Number(self.number_literal()?), 1)),
            Kind::String => {
                self.advance();
                Ok((Expr::String(literal::string(text, token.span)), 1))
            }
            Kind::LeftParen => self.parentheses(),
            Kind::Identifier if *self.peek_second() == Kind::LeftParen => self.call(),
            Kind::Aggregator(op) if self.starts_aggregation() => self.aggregation(op),
            _ if self.starts_selector() => Ok((Expr::Vector(self.vector_selector()?), 1)),
            _ => Err(self.unexpected("", "")),
        }
    }

    /// Whether the next token may begin an expression.
    pub(super) fn starts_operand(&self) -> bool {
        match self.peek().kind {
            Kind::Number | Kind::Duration | Kind::String | Kind::LeftParen => true,
            Kind::Operator(BinaryOp::Add | BinaryOp::Sub) => true,
            _ => self.starts_selector(),
        }
    }

    pub(super) fn number_literal(&mut self) -> Parsed<NumberLiteral> {
        let token = self.advance();
        let text = self.text_of(token.span);
        let is_duration = token.kind == Kind::Duration;
        let value = if is_duration {
            literal::duration_ms(text).map(|ms| ms as f64 / 1000.0)
        } else {
            literal::number(text)
        };
        match value {
            Ok(value) => Ok(NumberLiteral {
                value,
                is_duration,
                span: token.span,
            }),
            Err(message) => Err(self.halt(token.span, message)),
        }
    }

    fn parentheses(&mut self) -> Parsed<Tree> {
        let open = self.advance().span;
        let (expr, depth) = self.nested(Self::expression)?;
        let Some(close) = self.accept(&Kind::RightParen) else {
            return Err(self.unexpected("", ""));
        };
        self.take_closing();
        let paren = Paren {
            expr: Box::new(expr),
            span: open.to(close),
        };
        Ok((Expr::Paren(paren), self.bound_height(depth + 1)?))
    }

    /// `(a, b)` behind a name; with how deep the deepest argument is.
    fn arguments(&mut self) -> Parsed<(Vec<Expr>, usize)> {
        self.advance();
        let (mut args, mut depth) = (Vec::new(), 0);
        if self.accept(&Kind::RightParen).is_some() {
            return Ok((args, depth));
        }
        loop {
            let (arg, arg_depth) = self.nested(Self::expression)?;
            depth = depth.max(arg_depth);
            args.push(arg);
            if self.accept(&Kind::RightParen).is_some() {
                return Ok((args, depth));
            }
            let Some(comma) = self.accept(&Kind::Comma) else {
                return Err(self.unexpected("", ""));
            };
            if !self.starts_operand() {
                let message = "trailing commas not allowed in function call args";
                return Err(self.halt_having_looked(comma, message));
            }
        }
    }

    fn call(&mut self) -> Parsed<Tree> {
        let name_span = self.advance().span;
        let name = self.text_of(name_span);
        let (args, depth) = self.arguments()?;
        let span = Span::new(name_span.start, self.take_closing());
        let is_on = self.options.experimental_functions;
        let known = Function::find(name).filter(|function| is_on || !function.is_newer());
        let Some(function) = known else {
            let message = format!("unknown function with name {}", quote(name));
            return Err(self.halt(name_span, message));
        };
        if function.is_experimental && !self.options.experimental_functions {
            self.report(
                name_span,
                format!("function {} is not enabled", quote(name)),
            );
        }
        let call = Call {
            function,
            args,
            span,
        };
        Ok((Expr::Call(call), self.bound_height(depth + 1)?))
    }

    fn starts_aggregation(&self) -> bool {
        matches!(
            self.peek_second(),
            Kind::LeftParen | Kind::Keyword(Keyword::By | Keyword::Without)
        )
    }

    fn aggregation(&mut self, op: AggregateOp) -> Parsed<Tree> {
        let start = self.advance().span;
        self.aggregations += 1;
        let mut modifier = self.aggregate_modifier()?;
        if self.peek().kind != Kind::LeftParen {
            return Err(self.unexpected("", ""));
        }
        let (args, depth) = self.arguments()?;
        self.aggregations -= 1;
        // Without a modifier yet, the token behind has been looked at.
        if let (None, Kind::Error(_)) = (&modifier, &self.peek().kind) {
            return Err(self.unexpected("", ""));
        }
        if modifier.is_none() {
            modifier = self.aggregate_modifier()?;
        }
        let (without, grouping) = modifier.unwrap_or_default();
        let span = Span::new(start.start, self.take_closing());
        let (param, expr) = self.aggregate_arguments(op, args, span)?;
        let aggregate = Aggregate {
            op,
            expr: Box::new(expr),
            param: param.map(Box::new),
            grouping,
            without,
            span,
        };
        Ok((Expr::Aggregate(aggregate), self.bound_height(depth + 1)?))
    }

    /// `by (…)` or `without (…)`, if it is there.
    fn aggregate_modifier(&mut self) -> Parsed<Option<(bool, Vec<String>)>> {
        let without = match self.peek().kind {
            Kind::Keyword(Keyword::By) => false,
            Kind::Keyword(Keyword::Without) => true,
            _ => return Ok(None),
        };
        self.advance();
        let labels = self.grouping_labels()?;
        self.take_closing();
        Ok(Some((without, labels)))
    }

    fn aggregate_arguments(
        &mut self,
        op: AggregateOp,
        args: Vec<Expr>,
        span: Span,
    ) -> Parsed<(Option<Expr>, Expr)> {
        let given = args.len();
        let mut args = args.into_iter();
        let name = op.as_str();
        if given == 0 {
            let message = "no arguments for aggregate expression provided";
            return Err(self.halt(span, message));
        }
        if op.is_experimental() && !self.options.experimental_functions {
            let flag = "--enable-feature=promql-experimental-functions";
            let message = format!("{name}() is experimental and must be enabled with {flag}");
            self.report(span, message);
        }
        let wanted = 1 + usize::from(op.parameter().is_some());
        let param = op.parameter().and_then(|_| args.next());
        match (args.next(), given == wanted) {
            (Some(expr), true) => Ok((param, expr)),
            _ => Err(self.halt(
                span,
                format!(
                    "wrong number of arguments for aggregate expression provided, expected {wanted}, got {given}"
                ),
            )),
        }
    }

    /// `[range]` or `[range:step]` behind `expr`.
    fn bracket(&mut self, expr: Expr) -> Parsed<Expr> {
        let open = self.advance().span;
        let range = self.positive_length(RANGE)?;
        if let Some(close) = self.accept(&Kind::RightBracket) {
            return self.matrix_selector(expr, range, open.to(close));
        }
        if self.accept(&Kind::Colon).is_none() {
            return Err(self.unexpected("subquery or range", "\":\" or \"]\""));
        }
        let mut step = None;
        if self.peek().kind != Kind::RightBracket {
            step = self.step_length()?;
        }
        let Some(close) = self.accept(&Kind::RightBracket) else {
            return Err(self.unexpected("subquery selector", "\"]\""));
        };
        Ok(Expr::Subquery(Subquery {
            span: expr.span().to(close),
            expr: Box::new(expr),
            range,
            step,
            shift: Shift::default(),
        }))
    }

    fn matrix_selector(&mut self, expr: Expr, range: Length, brackets: Span) -> Parsed<Expr> {
        let message = match expr {
            // Prometheus looks for what is known already only.
            Expr::Vector(selector) => match (&selector.shift.offset, selector.shift.at) {
                (Length::Fixed(ms), _) if *ms != 0 => "no offset modifiers allowed before range",
                (_, Some(At::Timestamp(_))) => "no @ modifiers allowed before range",
                _ => {
                    return Ok(Expr::Matrix(MatrixSelector {
                        span: selector.span.to(brackets),
                        selector,
                        range,
                    }));
                }
            },
            _ => "ranges only allowed for vector selectors",
        };
        Err(self.halt(brackets, message))
    }

    fn offset(&mut self, expr: &mut Expr) -> Parsed<()> {
        self.advance();
        let offset = self.offset_length()?;
        let (whole, end) = (expr.span(), self.last_end());
        let Some((shift, span)) = shift_of(expr) else {
            return Err(self.halt(whole, misplaced("offset modifier")));
        };
        if !shift.offset.is_zero() {
            return Err(self.halt(whole, "offset may not be set multiple times"));
        }
        shift.offset = offset;
        span.end = end;
        Ok(())
    }

    fn at(&mut self, expr: &mut Expr) -> Parsed<()> {
        self.advance();
        let whole = expr.span();
        let at = match self.peek().kind {
            Kind::Keyword(Keyword::Start) => self.boundary(At::Start)?,
            Kind::Keyword(Keyword::End) => self.boundary(At::End)?,
            _ => self.timestamp(whole)?,
        };
        let end = self.last_end();
        let Some((shift, span)) = shift_of(expr) else {
            return Err(self.halt(whole, misplaced("@ modifier")));
        };
        if shift.at.is_some() {
            return Err(self.halt(whole, "@ <timestamp> may not be set multiple times"));
        }
        shift.at = Some(at);
        span.end = end;
        Ok(())
    }

    /// `start()` or `end()`.
    fn boundary(&mut self, at: At) -> Parsed<At> {
        self.advance();
        for kind in [Kind::LeftParen, Kind::RightParen] {
            if self.accept(&kind).is_none() {
                return Err(self.unexpected("@", "timestamp"));
            }
        }
        Ok(at)
    }

    fn timestamp(&mut self, whole: Span) -> Parsed<At> {
        let negative = self.peek().kind == Kind::Operator(BinaryOp::Sub);
        if negative || self.peek().kind == Kind::Operator(BinaryOp::Add) {
            self.advance();
        }
        if !matches!(self.peek().kind, Kind::Number | Kind::Duration) {
            return Err(self.unexpected("@", "timestamp"));
        }
        let seconds = self.number_literal()?.value;
        let seconds = if negative { -seconds } else { seconds };
        let ms = (seconds * 1000.0).round();
        // Prometheus holds the seconds against what milliseconds may be.
        if !seconds.is_finite() || seconds.abs() >= i64::MAX as f64 {
            let shown = match seconds {
                s if s.is_nan() => "NaN".to_owned(),
                f64::INFINITY => "+Inf".to_owned(),
                f64::NEG_INFINITY => "-Inf".to_owned(),
                s => format!("{s:.6}"),
            };
            let message = format!("timestamp out of bounds for @ modifier: {shown}");
            return Err(self.halt(whole, message));
        }
        let is_held = ms.abs() < i64::MAX as f64;
        Ok(At::Timestamp(if is_held { ms as i64 } else { i64::MIN }))
    }

    /// Where the token before the current one ends.
    fn last_end(&self) -> usize {
        self.tokens[self.at - 1].span.end
    }
}

fn reach(word: &str) -> Option<Reach> {
    let mut all = [Reach::Anchored, Reach::Smoothed].into_iter();
    all.find(|reach| reach.as_str().eq_ignore_ascii_case(word))
}

fn misplaced(what: &str) -> String {
    format!(
        "{what} must be preceded by an instant vector selector or range vector selector or a subquery"
    )
}

/// Where `offset` and `@` behind `expr` are kept, with the span they lengthen.
fn shift_of(expr: &mut Expr) -> Option<(&mut Shift, &mut Span)> {
    match expr {
        Expr::Vector(selector) => Some((&mut selector.shift, &mut selector.span)),
        Expr::Matrix(matrix) => Some((&mut matrix.selector.shift, &mut matrix.span)),
        Expr::Subquery(subquery) => Some((&mut subquery.shift, &mut subquery.span)),
        _ => None,
    }
}
