//! What a binary operator makes of two values at one instant.

use super::Point;
use crate::ast::{Binary, BinaryOp};
use crate::native::{self, Incompatible, Sum};
use model::Histogram;

/// Why a pair has no result, worth telling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The operator knows no such pair of kinds.
    Types(&'static str, &'static str),
    Layout,
}

/// The value of a pair of floats; `None` when a filter drops it.
pub(super) fn element(binary: &Binary, l: f64, r: f64) -> Option<f64> {
    if !binary.op.is_comparison() {
        return Some(scalars(binary.op, l, r));
    }
    let holds = compare(binary.op, l, r);
    match binary.return_bool {
        true => Some(f64::from(u8::from(holds))),
        false => holds.then_some(l),
    }
}

/// The same where at least one is a histogram.
pub(super) fn element_of_points(
    binary: &Binary,
    l: &Point,
    r: &Point,
) -> Result<Option<Point>, Trouble> {
    let op = binary.op;
    match (l, r) {
        (Point::Float(l), Point::Float(r)) => Ok(element(binary, *l, *r).map(Point::Float)),
        (Point::Histogram(l), Point::Histogram(r)) => match op {
            BinaryOp::Add => Ok(Some(Point::of(sum(l, r)?))),
            BinaryOp::Sub => Ok(Some(Point::of(difference(l, r)?))),
            BinaryOp::Equal | BinaryOp::NotEqual => {
                let holds = native::equal(l, r) == (op == BinaryOp::Equal);
                Ok(match binary.return_bool {
                    true => Some(Point::Float(f64::from(u8::from(holds)))),
                    false => holds.then(|| Point::Histogram(l.clone())),
                })
            }
            _ => Err(Trouble::Types("histogram", "histogram")),
        },
        (Point::Float(factor), Point::Histogram(histogram)) => match op {
            BinaryOp::Mul => Ok(Some(scaled(histogram, |sum| sum.multiply(*factor)))),
            _ => Err(Trouble::Types("float", "histogram")),
        },
        (Point::Histogram(histogram), Point::Float(by)) => match op {
            BinaryOp::Mul => Ok(Some(scaled(histogram, |sum| sum.multiply(*by)))),
            BinaryOp::Div => Ok(Some(scaled(histogram, |sum| sum.divide(*by)))),
            _ => Err(Trouble::Types("histogram", "float")),
        },
    }
}

fn sum(l: &Histogram, r: &Histogram) -> Result<Histogram, Incompatible> {
    let mut sum = Sum::from(l);
    sum.add(&Sum::from(r))?;
    Ok(sum.into_histogram())
}

/// Its reset hint is the left one's, as in 3.5.
fn difference(l: &Histogram, r: &Histogram) -> Result<Histogram, Incompatible> {
    let mut difference = Sum::from(l);
    difference.subtract(&Sum::from(r))?;
    Ok(difference.into_histogram())
}

fn scaled(histogram: &Histogram, scale: impl FnOnce(&mut Sum)) -> Point {
    let mut scaled = Sum::from(histogram);
    scale(&mut scaled);
    Point::of(scaled.into_histogram())
}

impl From<Incompatible> for Trouble {
    fn from(_: Incompatible) -> Self {
        Self::Layout
    }
}

fn compare(op: BinaryOp, l: f64, r: f64) -> bool {
    match op {
        BinaryOp::Equal => l == r,
        BinaryOp::NotEqual => l != r,
        BinaryOp::Less => l < r,
        BinaryOp::LessEqual => l <= r,
        BinaryOp::Greater => l > r,
        BinaryOp::GreaterEqual => l >= r,
        _ => unreachable!("{} does not compare", op.as_str()),
    }
}

pub(super) fn scalars(op: BinaryOp, l: f64, r: f64) -> f64 {
    match op {
        BinaryOp::Add => l + r,
        BinaryOp::Sub => l - r,
        BinaryOp::Mul => l * r,
        BinaryOp::Div => l / r,
        BinaryOp::Mod => l % r,
        BinaryOp::Pow => super::functions::pow(l, r),
        BinaryOp::Atan2 => super::functions::atan2(l, r),
        _ => f64::from(u8::from(compare(op, l, r))),
    }
}
