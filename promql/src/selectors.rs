//! The selectors of an expression: what it reads, without when.

use model::Matcher;

use crate::ast::Expr;

/// The matchers of every selector, in the order in which they stand in the text.
pub fn selectors(expr: &Expr) -> Vec<Vec<Matcher>> {
    let mut found = Vec::new();
    collect(expr, &mut found);
    found
}

/// As deep as the tree, which the parser bounds.
fn collect(expr: &Expr, found: &mut Vec<Vec<Matcher>>) {
    match expr {
        Expr::Number(_) | Expr::String(_) => {}
        Expr::Vector(selector) => found.push(selector.matchers.clone()),
        Expr::Matrix(matrix) => found.push(matrix.selector.matchers.clone()),
        Expr::Subquery(subquery) => collect(&subquery.expr, found),
        Expr::Call(call) => call.args.iter().for_each(|arg| collect(arg, found)),
        Expr::Aggregate(aggregate) => {
            if let Some(param) = &aggregate.param {
                collect(param, found);
            }
            collect(&aggregate.expr, found);
        }
        Expr::Binary(binary) => {
            collect(&binary.left, found);
            collect(&binary.right, found);
        }
        Expr::Unary(unary) => collect(&unary.expr, found),
        Expr::Paren(paren) => collect(&paren.expr, found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_selector_is_found_wherever_it_stands() {
        let text =
            "topk(scalar(a), -rate(b[5m]) + (c)) / on () max_over_time(sum(d{x=\"1\"})[5m:1m])";
        let expr = crate::parse(text).unwrap();
        let found: Vec<String> = selectors(&expr)
            .iter()
            .map(|matchers| {
                let texts: Vec<_> = matchers.iter().map(ToString::to_string).collect();
                texts.join(",")
            })
            .collect();
        let name = |name: &str| format!("__name__=\"{name}\"");
        let last = format!("x=\"1\",{}", name("d"));
        assert_eq!(found, [name("a"), name("b"), name("c"), last]);
        assert!(selectors(&crate::parse("1 + time()").unwrap()).is_empty());
    }
}
