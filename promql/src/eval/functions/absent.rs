//! `absent`: a series where there is none.

use model::labels::METRIC_NAME;
use model::{Labels, LabelsBuilder, MatchOp, Matcher};

use super::{ABSENT, Column, Columns, Evaluation, is_present};
use crate::ast::Expr;
use crate::error::QueryError;
use crate::plan::Grid;

impl Evaluation<'_> {
    /// One where no series has a value.
    pub(super) async fn absent(
        &mut self,
        place: &Expr,
        columns: Vec<Column>,
        grid: Grid,
    ) -> Result<Columns, QueryError> {
        let mut values = self.pace.filled(1.0, grid.steps).await?;
        for column in &columns {
            let looked = self.pace.each(&mut values, |step, value| {
                if column.values.get(step).copied().is_some_and(is_present) {
                    *value = ABSENT;
                }
            });
            looked.await?;
        }
        Ok(Columns::Vector(column(place, values)))
    }
}

/// A column with the labels the missing series would surely have had; none without values.
pub(super) fn column(place: &Expr, values: Vec<f64>) -> Vec<Column> {
    let column = Column::new(labels(place), false, values);
    if column.has_values() {
        vec![column]
    } else {
        Vec::new()
    }
}

/// What the selector demands by `=`, each label once; a label with another matcher behind it is unsure.
fn labels(place: &Expr) -> Labels {
    let matchers = match place.unwrap_parens() {
        Expr::Vector(selector) => &selector.matchers,
        Expr::Matrix(matrix) => &matrix.selector.matchers,
        _ => return Labels::default(),
    };
    let mut builder = LabelsBuilder::default();
    let mut seen: Vec<&str> = Vec::new();
    for matcher in sorted(matchers) {
        if matcher.op == MatchOp::Equal && !seen.contains(&matcher.name.as_str()) {
            builder.set(&matcher.name, &matcher.value);
            seen.push(&matcher.name);
        } else {
            builder.remove(&matcher.name);
        }
    }
    builder.build()
}

/// As Prometheus' index has put them by then: those that take series away stand behind the others.
fn sorted(matchers: &[Matcher]) -> impl Iterator<Item = &Matcher> {
    let is_set = move |name: &str| {
        let mut named = matchers.iter().filter(|m| m.name == name);
        named.any(|m| !m.matches_empty())
    };
    let takes_away = move |m: &&Matcher| {
        let is_negative = matches!(m.op, MatchOp::NotEqual | MatchOp::NotRegex);
        !is_set(&m.name) || is_negative && m.matches_empty()
    };
    let labelled = move || matchers.iter().filter(|m| m.name != METRIC_NAME);
    let first = labelled().filter(move |m| !takes_away(m));
    first.chain(labelled().filter(takes_away))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prometheus 3.5.3: `absent(…)`.
    #[test]
    fn labels_are_those_that_a_series_would_surely_have() {
        for (text, found) in [
            (r#"x{a="b",c=~"d"}"#, r#"{a="b"}"#),
            (r#"x{a="b",a="b"}"#, "{}"),
            (r#"x{a="b",a=~"x"}"#, "{}"),
            (r#"x{a=~"x",a="b"}"#, r#"{a="b"}"#),
            (r#"x{a!="x",a="b",c="d"}"#, r#"{c="d"}"#),
            (r#"x{a!="",a="b"}"#, r#"{a="b"}"#),
            (r#"x{a="",a="b"}"#, "{}"),
            (r#"x{a!="x",c=""}"#, "{}"),
        ] {
            let expr = crate::parse(text).unwrap();
            assert_eq!(labels(&expr).to_string(), found, "{text}");
        }
    }
}
