//! `sort`, `sort_by_label` and their descending kin: the order of an instant's answer. Over time there is no such order.

use std::cmp::Ordering;

use super::{Args, Column, Columns};
use crate::plan::Grid;

/// By value, NaN last either way; histograms have none and are left out.
pub(super) fn sorted(mut columns: Vec<Column>, grid: Grid, is_descending: bool) -> Columns {
    columns.iter_mut().for_each(Column::drop_histograms);
    if grid.steps == 1 {
        let value = |column: &Column| column.values.first().copied().unwrap_or(f64::NAN);
        columns.sort_by(|a, b| order(value(a), value(b), is_descending));
    }
    Columns::Vector(columns)
}

fn order(a: f64, b: f64, is_descending: bool) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => {
            let order = a.partial_cmp(&b).unwrap_or(Ordering::Equal);
            if is_descending {
                order.reverse()
            } else {
                order
            }
        }
    }
}

/// By the named labels in natural order, then by all labels.
pub(super) fn sorted_by_labels(mut args: Args, grid: Grid, is_descending: bool) -> Columns {
    let mut columns = args.vector();
    let names: Vec<String> = args.0.map(|name| name.into_string().0).collect();
    if grid.steps == 1 {
        columns.sort_by(|a, b| {
            let order = by_labels(&names, a, b);
            if is_descending {
                order.reverse()
            } else {
                order
            }
        });
    }
    Columns::Vector(columns)
}

fn by_labels(names: &[String], a: &Column, b: &Column) -> Ordering {
    for name in names {
        let [a, b] = [a, b].map(|column| column.labels.get(name).unwrap_or_default());
        let order = natural(a, b);
        if order.is_ne() {
            return order;
        }
    }
    a.labels.cmp(&b.labels)
}

/// Runs of digits compare as numbers, everything else character by character.
fn natural(mut a: &str, mut b: &str) -> Ordering {
    let (a_bytes, b_bytes) = (a.len(), b.len());
    while !a.is_empty() && !b.is_empty() {
        let (a_digits, a_rest) = digits(a);
        let (b_digits, b_rest) = digits(b);
        let (order, rest) = if a_digits.is_empty() || b_digits.is_empty() {
            let (mut a_chars, mut b_chars) = (a.chars(), b.chars());
            let order = a_chars.next().cmp(&b_chars.next());
            (order, (a_chars.as_str(), b_chars.as_str()))
        } else {
            (numeric(a_digits, b_digits), (a_rest, b_rest))
        };
        if order.is_ne() {
            return order;
        }
        (a, b) = rest;
    }
    // One may begin with the other; the same number may be written longer.
    a.len().cmp(&b.len()).then(a_bytes.cmp(&b_bytes))
}

fn digits(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

/// Compares numbers of any length.
fn numeric(a: &str, b: &str) -> Ordering {
    let [a_value, b_value] = [a, b].map(|digits| digits.trim_start_matches('0'));
    a_value
        .len()
        .cmp(&b_value.len())
        .then_with(|| a_value.cmp(b_value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_inside_names_compare_as_numbers() {
        let sorted = [
            "", "1.2.3", "1.111.3", "2", "4m5", "4m600", "4m1000", "10", "a9b", "a10b",
        ];
        let mut names = sorted;
        names.reverse();
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, sorted);
    }
}
