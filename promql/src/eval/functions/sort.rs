//! `sort`, `sort_by_label` and their descending kin: the order of an instant's answer. Over time there is no such order.

use std::cmp::Ordering;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::super::{LABEL_COST, Pace, sorted};
use super::{Args, Column, Columns};
use crate::error::QueryError;
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

/// Columns that Prometheus sorts by insertion; so many in order are what is merged here.
const RUN: usize = 12;

/// By the named labels in natural order, then by all labels.
///
/// The natural order is none where a number is written in two ways (`1` and `01` are each before
/// the other), so what comes out hangs on the algorithm: up to [`RUN`] columns it is that of Go's
/// `slices.SortFunc`, which Prometheus uses. The standard library's may panic of such an order.
/// It hangs on the order that columns come in too, here that of their labels, as in Prometheus'
/// blocks; its head has the order in which series came, so there the two may differ.
pub(super) async fn sorted_by_labels(
    mut args: Args,
    grid: Grid,
    is_descending: bool,
    pace: &mut Pace<'_>,
) -> Result<Columns, QueryError> {
    let columns = args.vector();
    let names: Vec<String> = args.0.map(|name| name.into_string().0).collect();
    if grid.steps != 1 {
        return Ok(Columns::Vector(columns));
    }
    let is_before = |a: &Column, b: &Column| match is_descending {
        true => by_labels(&names, a, b).is_gt(),
        false => by_labels(&names, a, b).is_lt(),
    };
    Ok(Columns::Vector(merged(columns, &is_before, pace).await?))
}

fn by_labels(names: &[String], a: &Column, b: &Column) -> Ordering {
    for name in names {
        let [a, b] = [a, b].map(|column| column.labels.get(name).unwrap_or_default());
        if a != b {
            return match natural_before(a, b) {
                true => Ordering::Less,
                false => Ordering::Greater,
            };
        }
    }
    a.labels.cmp(&b.labels)
}

/// Sorted by a comparison that need not be an order: nothing is lost and it ends in any case.
fn merged<'p, T: Send + Sync + 'p>(
    mut items: Vec<T>,
    is_before: &'p (impl Fn(&T, &T) -> bool + Sync),
    pace: &'p mut Pace<'_>,
) -> BoxFuture<'p, Result<Vec<T>, QueryError>> {
    let merged = async move {
        pace.spend(items.len() * LABEL_COST).await?;
        if items.len() <= RUN {
            for end in 1..items.len() {
                let mut place = end;
                while place > 0 && is_before(&items[place], &items[place - 1]) {
                    items.swap(place, place - 1);
                    place -= 1;
                }
            }
            return Ok(items);
        }
        let behind = items.split_off(items.len() / 2);
        let left = merged(items, is_before, pace).await?;
        let right = merged(behind, is_before, pace).await?;
        sorted::merged(left, right, is_before, LABEL_COST, pace).await
    };
    merged.boxed()
}

/// Whether `a` is before `b` as `facette/natsort` of 2018 has it, which Prometheus 3.5 uses: runs of
/// digits and of anything else are compared in pairs, as numbers where both are numbers of 64 bits,
/// as texts otherwise.
fn natural_before(a: &str, b: &str) -> bool {
    let (mut a, mut b) = (a, b);
    loop {
        let (a_run, a_rest) = run(a);
        let (b_run, b_rest) = run(b);
        if a_run.is_empty() || b_run.is_empty() {
            // A text is before those that begin with it, the empty one before none.
            return false;
        }
        match (a_run.parse::<i64>(), b_run.parse::<i64>()) {
            (Ok(a), Ok(b)) if a != b => return a < b,
            (Ok(_), Ok(_)) => {}
            _ if a_run != b_run => return a_run < b_run,
            _ => {}
        }
        if a_rest.is_empty() || b_rest.is_empty() {
            return a_rest.is_empty();
        }
        (a, b) = (a_rest, b_rest);
    }
}

/// The digits, or what is none, at the beginning of a text.
fn run(text: &str) -> (&str, &str) {
    let is_digit = text.starts_with(|c: char| c.is_ascii_digit());
    let end = text.find(|c: char| c.is_ascii_digit() != is_digit);
    text.split_at(end.unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::pace::tests::{at_ease, finish};

    fn merged<T: Send + Sync>(
        items: Vec<T>,
        is_before: &(impl Fn(&T, &T) -> bool + Sync),
    ) -> Vec<T> {
        at_ease(|pace| finish(super::merged(items, is_before, pace))).unwrap()
    }

    fn sorted(texts: &[&'static str]) -> Vec<&'static str> {
        merged(texts.to_vec(), &|a: &&str, b: &&str| {
            a != b && natural_before(a, b)
        })
    }

    #[test]
    fn numbers_inside_names_compare_as_numbers() {
        let expected = [
            "1.2.3", "1.111.3", "2", "4m5", "4m600", "4m1000", "10", "a9b", "a10b",
        ];
        let mut texts = expected;
        texts.reverse();
        assert_eq!(sorted(&texts), expected);
    }

    /// The orders are those of Prometheus 3.5.3, of series stored in the order given here.
    #[test]
    fn one_number_written_in_two_ways_comes_out_as_in_prometheus() {
        let stored = [
            "1", "10", "2", "Z", "a01", "a1", "v01", "v1", "v1.10.0", "v1.2.10", "v1.2.9", "z",
        ];
        let expected = [
            "1", "2", "10", "Z", "a1", "a01", "v1", "v01", "v1.2.9", "v1.2.10", "v1.10.0", "z",
        ];
        assert_eq!(sorted(&stored), expected);
        let [most, more] = ["9223372036854775807", "9223372036854775808"];
        let stored = [
            "001", "01", "1", "10", most, more, "a", "a01", "a01b", "a1", "a1b", "",
        ];
        let expected = [
            "1", "01", "001", "10", most, more, "a", "a1", "a01", "a1b", "a01b", "",
        ];
        assert_eq!(sorted(&stored), expected);
    }

    #[test]
    fn each_is_before_the_other() {
        for (a, b) in [("1", "01"), ("a1", "a01"), ("007", "07")] {
            assert!(natural_before(a, b) && natural_before(b, a), "{a} {b}");
        }
        assert!(!natural_before("", "a") && !natural_before("a", ""));
        assert!(natural_before("a", "a1") && !natural_before("a1", "a"));
        // More than 64 bits is text.
        assert!(natural_before("10000000000000000000", "2"));
        assert!(natural_before("0000000000000000000000002", "10"));
        assert!(natural_before("7x", "٧x"), "only ASCII's digits are any");
    }

    #[test]
    fn many_are_sorted_and_no_comparison_loses_any() {
        for len in [0, 1, RUN, RUN + 1, 100, 1000] {
            let mixed: Vec<usize> = (0..len).map(|n| n * 7919 % 1009).collect();
            let mut expected = mixed.clone();
            expected.sort_unstable();
            assert_eq!(
                merged(mixed.clone(), &|a: &usize, b: &usize| a < b),
                expected
            );
            let mut all = merged(mixed, &|_: &usize, _: &usize| true);
            all.sort_unstable();
            assert_eq!(all, expected);
        }
    }
}
