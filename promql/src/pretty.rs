//! Expressions over several lines, as Prometheus' `/api/v1/format_query` lays them out.

use crate::ast::{Aggregate, Binary, Call, Expr, Subquery};
use crate::error::ParseError;
use crate::parser::{ParseOptions, parse_with};

/// What prints longer than this, in bytes, is split where it can be.
const LINE_BYTES_MAX: usize = 100;

/// Reads an expression and lays it out.
pub fn format_query(text: &str, options: ParseOptions) -> Result<String, ParseError> {
    parse_with(text, options).map(|expr| pretty(&expr))
}

/// `expr` on as many lines as it needs, two spaces a level.
pub fn pretty(expr: &Expr) -> String {
    lay_out(expr, 0)
}

fn indent(level: usize) -> String {
    "  ".repeat(level)
}

/// Recursion is bounded by the depth of the tree.
fn lay_out(expr: &Expr, level: usize) -> String {
    let one_line = expr.to_string();
    let pad = indent(level);
    match expr {
        Expr::Unary(unary) => {
            let sign = if unary.negative { "-" } else { "+" };
            format!("{pad}{sign}{}", lay_out(&unary.expr, level).trim())
        }
        // As in Prometheus, which does not indent a short one.
        Expr::Subquery(_) if one_line.len() <= LINE_BYTES_MAX => one_line,
        _ if one_line.len() <= LINE_BYTES_MAX => pad + &one_line,
        Expr::Number(_) | Expr::String(_) | Expr::Vector(_) | Expr::Matrix(_) => pad + &one_line,
        Expr::Subquery(subquery) => split_subquery(subquery, level),
        Expr::Call(call) => split_call(call, level),
        Expr::Aggregate(aggregate) => split_aggregate(aggregate, level),
        Expr::Binary(binary) => split_binary(binary, level),
        Expr::Paren(paren) => {
            let inner = lay_out(&paren.expr, level + 1);
            format!("{pad}(\n{inner}\n{pad})")
        }
    }
}

fn split_subquery(subquery: &Subquery, level: usize) -> String {
    lay_out(&subquery.expr, level) + &subquery.suffix()
}

fn split_call(call: &Call, level: usize) -> String {
    let pad = indent(level);
    let args: Vec<String> = call
        .args
        .iter()
        .map(|arg| lay_out(arg, level + 1))
        .collect();
    format!("{pad}{}(\n{}\n{pad})", call.function.name, args.join(",\n"))
}

fn split_aggregate(aggregate: &Aggregate, level: usize) -> String {
    let pad = indent(level);
    let param = aggregate
        .param
        .as_ref()
        .map_or(String::new(), |param| lay_out(param, level + 1) + ",\n");
    let inner = lay_out(&aggregate.expr, level + 1);
    format!("{pad}{}(\n{param}{inner}\n{pad})", aggregate.head())
}

fn split_binary(binary: &Binary, level: usize) -> String {
    let (pad, operator) = (indent(level), binary.operator());
    let left = lay_out(&binary.left, level + 1);
    let right = lay_out(&binary.right, level + 1);
    format!("{left}\n{pad}{operator}\n{right}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_laid_out_as_prometheus_lays_them_out() {
        let mut cases: Vec<(&str, Vec<&str>)> = Vec::new();
        for line in include_str!("pretty.txt").lines().skip(1) {
            match line.strip_prefix('|') {
                Some(line) => cases.last_mut().expect("a query first").1.push(line),
                None => cases.push((line, Vec::new())),
            }
        }
        assert!(cases.len() > 40, "only {} queries", cases.len());
        for (query, lines) in cases {
            let laid_out = format_query(query, ParseOptions::default());
            assert_eq!(laid_out, Ok(lines.join("\n")), "{query}");
        }
    }
}
