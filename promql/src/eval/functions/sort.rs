//! `sort` and `sort_desc`: the order of an instant's answer. Over time there is no such order.

use std::cmp::Ordering;

use super::{Column, Columns, value_at};
use crate::plan::Grid;

/// By value, NaN last either way.
pub(super) fn sorted(mut columns: Vec<Column>, grid: Grid, is_descending: bool) -> Columns {
    if grid.steps == 1 {
        let value = |column: &Column| value_at(&column.values, 0).unwrap_or(f64::NAN);
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
