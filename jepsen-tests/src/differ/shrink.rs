//! Makes a failing query smaller: what may stand in its place, biggest steps first.

use super::expr::{Expr, Modifiers, Selector, Type};
use super::question::Question;

/// Questions like this one, each smaller in one way.
pub fn smaller(question: &Question) -> Vec<Question> {
    let exprs = reductions(&question.expr).into_iter().map(|expr| Question {
        expr,
        at: question.at,
    });
    let times = question.at.smaller().into_iter().map(|at| Question {
        expr: question.expr.clone(),
        at,
    });
    times.chain(exprs).filter(|q| q != question).collect()
}

fn reductions(expr: &Expr) -> Vec<Expr> {
    let mut all = local(expr);
    for (n, child) in expr.children().into_iter().enumerate() {
        for reduced in reductions(child) {
            let mut copy = expr.clone();
            if let Some(place) = copy.children_mut().into_iter().nth(n) {
                *place = reduced;
            }
            all.push(copy);
        }
    }
    all
}

/// What may stand for the node at the top.
fn local(expr: &Expr) -> Vec<Expr> {
    let kind = expr.kind();
    let mut all: Vec<Expr> = descendants(expr)
        .into_iter()
        .filter(|e| e.kind() == kind)
        .collect();
    all.extend(default_of(kind, expr));
    match expr {
        Expr::Select(selector) => all.extend(selectors(selector).into_iter().map(Expr::Select)),
        Expr::Subquery(of, range, step, modifiers) => {
            if let Expr::Select(Selector { range: None, .. }) = &**of {
                all.extend(ranged(of, range));
            }
            let variant = |step: Option<&String>, modifiers: Modifiers| {
                Expr::Subquery(of.clone(), range.clone(), step.cloned(), modifiers)
            };
            all.extend(
                less(modifiers)
                    .into_iter()
                    .map(|m| variant(step.as_ref(), m)),
            );
            if step.is_some() {
                all.push(variant(None, modifiers.clone()));
            }
        }
        Expr::Binary(binary) => {
            let mut change = |edit: &dyn Fn(&mut super::expr::Binary)| {
                let mut copy = (**binary).clone();
                edit(&mut copy);
                all.push(Expr::Binary(Box::new(copy)));
            };
            change(&|b| b.is_bool = false);
            change(&|b| b.matching = None);
            if let Some(matching) = &binary.matching {
                change(&|b| b.matching.iter_mut().for_each(|m| m.group = None));
                for n in 0..matching.labels.len() {
                    change(&|b| {
                        b.matching.iter_mut().for_each(|m| {
                            m.labels.remove(n);
                        });
                    });
                }
            }
        }
        Expr::Aggregate(aggregate) => {
            let mut copy = (**aggregate).clone();
            copy.grouping = None;
            all.push(Expr::Aggregate(Box::new(copy)));
            let names = aggregate.grouping.iter().flat_map(|g| 0..g.1.len());
            for n in names {
                let mut copy = (**aggregate).clone();
                copy.grouping.iter_mut().for_each(|g| {
                    g.1.remove(n);
                });
                all.push(Expr::Aggregate(Box::new(copy)));
            }
        }
        Expr::Number(_) | Expr::Text(_) | Expr::Negate(_) | Expr::Paren(_) | Expr::Call(..) => {}
    }
    all
}

/// The smallest thing of a type, where it is smaller than what is there.
fn default_of(kind: Type, expr: &Expr) -> Option<Expr> {
    if expr.children().is_empty() {
        return None;
    }
    match kind {
        Type::Scalar => Some(Expr::Number("1".to_owned())),
        Type::Vector => {
            let one = Expr::Call("vector", Type::Vector, vec![Expr::Number("1".to_owned())]);
            (*expr != one).then_some(one)
        }
        Type::Matrix | Type::Text => None,
    }
}

fn descendants(expr: &Expr) -> Vec<Expr> {
    let mut all = Vec::new();
    for child in expr.children() {
        all.push(child.clone());
        all.extend(descendants(child));
    }
    all
}

fn ranged(of: &Expr, range: &str) -> Option<Expr> {
    let Expr::Select(selector) = of else {
        return None;
    };
    let mut selector = selector.clone();
    selector.range = Some(range.to_owned());
    Some(Expr::Select(selector))
}

fn selectors(selector: &Selector) -> Vec<Selector> {
    let mut all: Vec<Selector> = less(&selector.modifiers)
        .into_iter()
        .map(|modifiers| Selector {
            modifiers,
            ..selector.clone()
        })
        .collect();
    for n in 0..selector.matchers.len() {
        if selector.name.is_none() && selector.matchers.len() == 1 {
            break;
        }
        let mut copy = selector.clone();
        copy.matchers.remove(n);
        all.push(copy);
    }
    if selector.range.as_deref().is_some_and(|range| range != "5m") {
        let mut copy = selector.clone();
        copy.range = Some("5m".to_owned());
        all.push(copy);
    }
    all
}

fn less(modifiers: &Modifiers) -> Vec<Modifiers> {
    let mut all = Vec::new();
    if modifiers.at.is_some() {
        let at = None;
        let offset = modifiers.offset.clone();
        all.push(Modifiers { at, offset });
    }
    if modifiers.offset.is_some() {
        let at = modifiers.at.clone();
        all.push(Modifiers { at, offset: None });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::generate::Generator;
    use super::*;

    /// As the tester does it: the first smaller question that still holds is the next.
    fn shrink(question: Question, holds: impl Fn(&Question) -> bool) -> Question {
        let mut best = question;
        while let Some(next) = smaller(&best).into_iter().find(|q| holds(q)) {
            best = next;
        }
        best
    }

    #[test]
    fn every_query_comes_down_to_what_matters() {
        let mut generator = Generator::new(11, true);
        let mut tried = 0;
        while tried < 30 {
            let question = generator.question();
            if !question.line().contains("deriv(") {
                continue;
            }
            tried += 1;
            let small = shrink(question, |q| q.line().contains("deriv("));
            assert!(small.expr.shape().len() < 40, "{}", small.line());
        }
    }

    #[test]
    fn types_stay_right() {
        let mut generator = Generator::new(12, true);
        for _ in 0..300 {
            let question = generator.question();
            for small in smaller(&question) {
                assert_eq!(small.expr.kind(), question.expr.kind(), "{}", small.line());
            }
        }
    }
}
