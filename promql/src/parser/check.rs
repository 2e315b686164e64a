//! Types: what may stand where. Runs once the text has parsed.

use model::Matcher;
use model::labels::METRIC_NAME;

use super::Parser;
use crate::ast::{
    Aggregate, Binary, Call, Cardinality, Expr, Matching, Subquery, Type, Unary, VectorSelector,
};
use crate::error::Span;
use crate::function::Variadic;
use model::quote::quote;

impl Parser<'_> {
    /// Reports what does not fit, inner mistakes first, and settles how binary operators match.
    pub(super) fn check(&mut self, expr: &mut Expr) -> Type {
        match expr {
            Expr::Number(_) | Expr::String(_) => {}
            Expr::Vector(selector) => self.check_selector(selector),
            Expr::Matrix(matrix) => self.check_selector(&matrix.selector),
            Expr::Subquery(subquery) => self.check_subquery(subquery),
            Expr::Call(call) => self.check_call(call),
            Expr::Aggregate(aggregate) => self.check_aggregate(aggregate),
            Expr::Binary(binary) => self.check_binary(binary),
            Expr::Unary(unary) => self.check_unary(unary),
            Expr::Paren(paren) => return self.check(&mut paren.expr),
        }
        expr.ty()
    }

    fn expect(&mut self, expr: &mut Expr, wanted: Type, context: &str) {
        let found = self.check(expr);
        if found != wanted {
            let (wanted, found) = (wanted.documented(), found.documented());
            let message = format!("expected type {wanted} in {context}, got {found}");
            self.report(expr.span(), message);
        }
    }

    fn check_selector(&mut self, selector: &VectorSelector) {
        if selector.name.is_some() {
            return self.check_name_once(selector);
        }
        if selector.matchers.iter().all(Matcher::matches_empty) {
            let message = "vector selector must contain at least one non-empty matcher";
            self.report(selector.span, message);
        }
    }

    /// A name before the braces leaves no room for one inside.
    pub(super) fn check_name_once(&mut self, selector: &VectorSelector) {
        let Some(name) = &selector.name else { return };
        let inside = selector
            .matchers
            .split_last()
            .map_or(&[][..], |(_, inside)| inside);
        for matcher in inside.iter().filter(|m| m.name == METRIC_NAME) {
            let (outer, inner) = (quote(name), quote(&matcher.value));
            let message = format!("metric name must not be set twice: {outer} or {inner}");
            self.report(selector.span, message);
        }
    }

    fn check_subquery(&mut self, subquery: &mut Subquery) {
        let ty = self.check(&mut subquery.expr);
        if ty != Type::Vector {
            let got = ty.as_str();
            let message = format!("subquery is only allowed on instant vector, got {got} instead");
            self.report(subquery.span, message);
        }
    }

    fn check_call(&mut self, call: &mut Call) {
        let function = call.function;
        let (given, named) = (call.args.len(), function.args.len());
        let wanted = match function.variadic {
            Variadic::No if given != named => Some(format!("{named}")),
            Variadic::UpTo(_) | Variadic::Any if given < named - 1 => {
                Some(format!("at least {}", named - 1))
            }
            Variadic::UpTo(more) if given > named - 1 + more => {
                Some(format!("at most {}", named - 1 + more))
            }
            _ => None,
        };
        let name = quote(function.name);
        if let Some(wanted) = wanted {
            let message = format!("expected {wanted} argument(s) in call to {name}, got {given}");
            self.report(call.span, message);
        }
        if function.name == "info"
            && let Some(arg) = call.args.get(1)
        {
            self.check_info_selector(arg);
        }
        let context = format!("call to function {name}");
        for (i, arg) in call.args.iter_mut().enumerate() {
            let repeated = function
                .args
                .last()
                .filter(|_| function.variadic != Variadic::No);
            // `info` may be given an empty selector, which no other place allows.
            if function.name == "info" && i == 1 {
                continue;
            }
            if let Some(&wanted) = function.args.get(i).or(repeated) {
                self.expect(arg, wanted, &context);
            }
        }
    }

    /// What `info` adds is chosen by label matchers only.
    fn check_info_selector(&mut self, arg: &Expr) {
        const WANTED: &str = "expected label selectors only";
        match arg {
            Expr::Vector(selector) if selector.name.is_none() => {}
            Expr::Vector(selector) => {
                let message = format!("{WANTED}, got vector selector instead");
                self.report(selector.span, message);
            }
            other => self.report(other.span(), WANTED),
        }
    }

    fn check_aggregate(&mut self, aggregate: &mut Aggregate) {
        self.expect(&mut aggregate.expr, Type::Vector, "aggregation expression");
        if let (Some(param), Some(wanted)) = (&mut aggregate.param, aggregate.op.parameter()) {
            self.expect(param, wanted, "aggregation parameter");
        }
    }

    fn check_unary(&mut self, unary: &mut Unary) {
        let ty = self.check(&mut unary.expr);
        if !matches!(ty, Type::Scalar | Type::Vector) {
            let got = quote(ty.documented());
            let message = format!(
                "unary expression only allowed on expressions of type scalar or instant vector, got {got}"
            );
            self.report(Span::new(unary.start, unary.expr.span().end), message);
        }
    }

    fn check_binary(&mut self, binary: &mut Binary) {
        let left = self.check(&mut binary.left);
        let right = self.check(&mut binary.right);
        let operator = self.operator_span(binary);
        let whole = binary.left.span().to(binary.right.span());
        let op = binary.op;
        if binary.return_bool && !op.is_comparison() {
            let message = "bool modifier can only be used on comparison operators";
            self.report(operator, message);
        }
        let scalars = left == Type::Scalar && right == Type::Scalar;
        if op.is_comparison() && !binary.return_bool && scalars {
            let message = "comparisons between scalars must use BOOL modifier";
            self.report(operator, message);
        }
        self.check_include(binary.matching.as_ref(), operator);
        for (ty, side) in [(left, &binary.left), (right, &binary.right)] {
            if !matches!(ty, Type::Scalar | Type::Vector) {
                let message = "binary expression must contain only scalar and instant vector types";
                self.report(side.span(), message);
            }
        }
        if left != Type::Vector || right != Type::Vector {
            if binary.matching.take().is_some_and(|m| !m.labels.is_empty()) {
                let message = "vector matching only allowed between instant vectors";
                self.report(whole, message);
            }
            if op.is_set() && (left == Type::Scalar || right == Type::Scalar) {
                let name = quote(op.as_str());
                let message =
                    format!("set operator {name} not allowed in binary scalar expression");
                self.report(whole, message);
            }
        } else if op.is_set() {
            self.settle_set_matching(binary, whole);
        }
    }

    fn settle_set_matching(&mut self, binary: &mut Binary, whole: Span) {
        if binary.matching.as_ref().is_some_and(|m| !m.fill.is_none()) {
            let message = "filling in missing series not allowed for set operators";
            self.report(whole, message);
        }
        let name = quote(binary.op.as_str());
        match &mut binary.matching {
            Some(matching) if matching.cardinality == Cardinality::OneToOne => {
                matching.cardinality = Cardinality::ManyToMany;
            }
            _ => self.report(whole, format!("no grouping allowed for {name} operation")),
        }
    }

    fn check_include(&mut self, matching: Option<&Matching>, operator: Span) {
        let Some(matching) = matching.filter(|m| m.on) else {
            return;
        };
        for label in &matching.labels {
            if matching.include.contains(label) {
                let label = quote(label);
                let message =
                    format!("label {label} must not occur in ON and GROUP clause at once");
                self.report(operator, message);
            }
        }
    }

    /// Where the operator between the sides stands.
    fn operator_span(&self, binary: &Binary) -> Span {
        let from = binary.left.span().end;
        let end = binary.right.span().start;
        let between = self.text_of(Span::new(from, end));
        let blanks = between.len() - between.trim_start().len();
        Span::new(from + blanks, end)
    }
}
