//! Arithmetic and comparison, between scalars, vectors, and both.

use std::ops::Range;

use model::Labels;
use model::hash::Map;

use super::column::index;
use super::element::{Trouble, element, element_of_points, scalars};
use super::matching::{Signatures, signature};
use super::pace::turns;
use super::{ABSENT, Column, Columns, Evaluation, Point};
use super::{is_of_name, is_present, merge, with_values, without_name};
use crate::ast::{Binary, Cardinality, Matching};
use crate::error::QueryError;
use crate::plan::Grid;

impl Evaluation<'_> {
    pub(super) async fn binary(
        &mut self,
        binary: &Binary,
        left: Columns,
        right: Columns,
        grid: Grid,
    ) -> Result<Columns, QueryError> {
        match (left, right, &binary.matching) {
            (Columns::Scalar(left), Columns::Scalar(right), _) => {
                let value = |step: usize| scalars(binary.op, left[step], right[step]);
                self.scalars(grid, value).await
            }
            (Columns::Vector(left), Columns::Scalar(right), _) => {
                self.with_scalar(binary, left, &right, false).await
            }
            (Columns::Scalar(left), Columns::Vector(right), _) => {
                self.with_scalar(binary, right, &left, true).await
            }
            (left, right, Some(matching)) => {
                let (left, right) = (left.into_vector(), right.into_vector());
                if binary.op.is_set() {
                    return self.set(binary.op, matching, left, right, grid).await;
                }
                self.vectors(binary, matching, left, right, grid).await
            }
            (left, right, None) => {
                unreachable!("the parser keeps how vectors match: {left:?} {right:?}")
            }
        }
    }

    async fn with_scalar(
        &mut self,
        binary: &Binary,
        mut vector: Vec<Column>,
        scalar: &[f64],
        scalar_is_left: bool,
    ) -> Result<Columns, QueryError> {
        let is_filter = binary.op.is_comparison() && !binary.return_bool;
        for column in &mut vector {
            let histograms = std::mem::take(&mut column.histograms);
            let mut scalars = scalar.iter();
            let computed = self.pace.each(&mut column.values, |_, value| {
                let Some(&scalar) = scalars.next().filter(|_| is_present(*value)) else {
                    return;
                };
                let own = *value;
                let (l, r) = if scalar_is_left {
                    (scalar, own)
                } else {
                    (own, scalar)
                };
                *value = match element(binary, l, r) {
                    // A filter hands on the vector's value, whichever side it is on.
                    Some(_) if is_filter => own,
                    Some(result) => result,
                    None => ABSENT,
                };
            });
            computed.await?;
            for (step, histogram) in histograms {
                let step = step as usize;
                column.values[step] = ABSENT;
                let (own, scalar) = (Point::Histogram(histogram), Point::Float(scalar[step]));
                let result = match scalar_is_left {
                    true => element_of_points(binary, &scalar, &own),
                    false => element_of_points(binary, &own, &scalar),
                };
                match result {
                    Ok(Some(point)) => column.set(step, point),
                    Ok(None) => {}
                    Err(trouble) => self.notes.tell(binary, trouble),
                }
            }
            if changes_metric(binary) || binary.return_bool {
                self.drop_name(column);
            }
        }
        let valued = with_values(vector, &mut self.pace).await?;
        Ok(Columns::Vector(merge(valued, &mut self.pace).await?))
    }

    async fn vectors(
        &mut self,
        binary: &Binary,
        matching: &Matching,
        left: Vec<Column>,
        right: Vec<Column>,
        grid: Grid,
    ) -> Result<Columns, QueryError> {
        let is_swapped = matching.cardinality == Cardinality::OneToMany;
        let (many, one) = if is_swapped {
            (right, left)
        } else {
            (left, right)
        };
        let mut signatures = Signatures::default();
        let one_numbers = signatures.number(matching, &one, &mut self.pace).await?;
        let many_numbers = signatures.number(matching, &many, &mut self.pace).await?;
        let mut partners = vec![Vec::new(); signatures.len()];
        for (at, &number) in one_numbers.iter().enumerate() {
            partners[number].push(at);
        }
        let mut join = Join {
            binary,
            matching,
            is_swapped,
            delayed_names: self.rules.delayed_names,
            steps: grid.steps,
            taken: vec![Vec::new(); signatures.len()],
            places: Map::default(),
            columns: Vec::new(),
            room: Vec::new(),
            failure: None,
            troubles: Vec::new(),
        };
        if partners.iter().any(|ones| ones.len() > 1) {
            let anyone = self.anyone(&many, grid).await?;
            for ones in partners.iter().filter(|ones| ones.len() > 1) {
                self.pace.spend(ones.len() * grid.steps).await?;
                join.check_unique(&one, ones, &anyone);
            }
        }
        for (from, &number) in many.iter().enumerate().zip(&many_numbers) {
            for &at in &partners[number] {
                self.pace.expect(join.columns.len() + 1, grid.steps)?;
                let mut place = None;
                if grid.steps > ROOM_IN_TURNS && join.room.is_empty() {
                    join.room = self.pace.filled(ABSENT, grid.steps).await?;
                }
                for steps in turns(grid.steps) {
                    self.pace.spend(steps.len()).await?;
                    if !join.pair(from, &one[at], number, steps, &mut place) {
                        break;
                    }
                }
            }
        }
        for (_, trouble) in join.troubles.iter().flatten() {
            self.notes.tell(binary, *trouble);
        }
        match join.failure {
            Some(failure) => Err(QueryError::Execution(failure.message)),
            None => {
                // Each was begun for a value.
                let columns = join.columns.into_iter().map(|c| c.column);
                Ok(Columns::Vector(columns.collect()))
            }
        }
    }
}

impl Evaluation<'_> {
    /// At which instants any of the columns has a value.
    async fn anyone(&mut self, columns: &[Column], grid: Grid) -> Result<Vec<bool>, QueryError> {
        let mut anyone = self.pace.filled(false, grid.steps).await?;
        for column in columns {
            let mut values = column.values.iter();
            let noted = self.pace.each(&mut anyone, |_, anyone| {
                *anyone |= values.next().copied().is_some_and(is_present);
            });
            noted.await?;
        }
        Ok(anyone)
    }
}

/// Of more instants a column is made before it is known whether it is wanted, so that it is in turns.
const ROOM_IN_TURNS: usize = 100_000;

/// Builds the result of matching two vectors.
struct Join<'a> {
    binary: &'a Binary,
    matching: &'a Matching,
    is_swapped: bool,
    delayed_names: bool,
    steps: usize,
    /// For each signature, the instants at which a one-to-one match was made; filled lazily.
    taken: Vec<Vec<bool>>,
    places: Map<Labels, usize>,
    columns: Vec<Joined>,
    /// For the next column, where it takes long to make; else empty.
    room: Vec<f64>,
    failure: Option<Failure>,
    /// The last pair without a result at each instant that had one.
    troubles: Vec<Option<(usize, Trouble)>>,
}

struct Joined {
    column: Column,
    /// The signature whose match wrote each value last; only kept while there is one.
    number: usize,
}

impl Joined {
    /// Puts a histogram where there is no value yet, in any order of instants.
    fn put(&mut self, step: usize, point: Point) {
        let at = index(step);
        let place = self
            .column
            .histograms
            .partition_point(|(step, _)| *step < at);
        let behind = self.column.histograms.split_off(place);
        self.column.set(step, point);
        self.column.histograms.extend(behind);
    }
}

/// A match that is not allowed. Of several the one told is the first that going instant by
/// instant, through the one side and then the many side, would meet.
struct Failure {
    place: (usize, Side, usize),
    message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    One,
    Many,
}

impl Join<'_> {
    fn fail(&mut self, place: (usize, Side, usize), message: impl FnOnce() -> String) {
        if self
            .failure
            .as_ref()
            .is_none_or(|failure| place < failure.place)
        {
            let message = message();
            self.failure = Some(Failure { place, message });
        }
    }

    /// On the one side no two series of a signature may have a value at the same instant; with
    /// no one on the other side nobody looks.
    fn check_unique(&mut self, one: &[Column], ones: &[usize], anyone: &[bool]) {
        for step in (0..self.steps).filter(|&step| anyone[step]) {
            let mut present = ones.iter().filter(|&&at| is_present(one[at].values[step]));
            let (Some(&first), Some(&second)) = (present.next(), present.next()) else {
                continue;
            };
            let place = (step, Side::One, second);
            let (first, second) = (&one[first].labels, &one[second].labels);
            let side = if self.is_swapped { "left" } else { "right" };
            let group = signature(self.matching, first);
            return self.fail(place, || {
                format!(
                    "found duplicate series for the match group {group} on the {side} hand-side of the operation: [{second}, {first}];many-to-many matching not allowed: matching labels must be unique on one side"
                )
            });
        }
    }

    /// Adds what a series of the many side gives with one of the one side at some instants, where its place
    /// may be known from those before; `false` when no others matter.
    fn pair(
        &mut self,
        (at_many, many): (usize, &Column),
        one: &Column,
        number: usize,
        steps: Range<usize>,
        place: &mut Option<usize>,
    ) -> bool {
        let has_histograms = !many.histograms.is_empty() || !one.histograms.is_empty();
        for step in steps {
            let (m, o) = (many.values[step], one.values[step]);
            if !is_present(m) || !is_present(o) {
                continue;
            }
            let point = match has_histograms {
                false => {
                    let (l, r) = if self.is_swapped { (o, m) } else { (m, o) };
                    element(self.binary, l, r).map(Point::Float)
                }
                true => self.pair_of_points((at_many, many), one, step),
            };
            let Some(point) = point else {
                continue;
            };
            if self.matching.cardinality == Cardinality::OneToOne && self.take(number, step) {
                self.fail((step, Side::Many, at_many), || {
                    "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)".to_owned()
                });
                return false;
            }
            let at = *place.get_or_insert_with(|| self.place(many, one, number));
            let joined = &mut self.columns[at];
            if !is_present(joined.column.values[step]) {
                match point {
                    Point::Float(value) => joined.column.values[step] = value,
                    point => joined.put(step, point),
                }
                joined.number = number;
                continue;
            }
            let message = if joined.number == number {
                "multiple matches for labels: grouping labels must ensure unique matches"
            } else {
                "vector cannot contain metrics with the same labelset"
            };
            self.fail((step, Side::Many, at_many), || message.to_owned());
            return false;
        }
        true
    }

    /// The result of a pair of which one may be a histogram.
    fn pair_of_points(
        &mut self,
        (at_many, many): (usize, &Column),
        one: &Column,
        step: usize,
    ) -> Option<Point> {
        let (m, o) = (many.point(step)?, one.point(step)?);
        let (l, r) = if self.is_swapped { (o, m) } else { (m, o) };
        match element_of_points(self.binary, &l, &r) {
            Ok(point) => point,
            Err(trouble) => {
                self.troubles.resize(self.steps, None);
                let told = &mut self.troubles[step];
                if told.is_none_or(|(at, _)| at <= at_many) {
                    *told = Some((at_many, trouble));
                }
                None
            }
        }
    }

    /// Marks a one-to-one match at `step`; whether there was one already.
    fn take(&mut self, number: usize, step: usize) -> bool {
        let taken = &mut self.taken[number];
        taken.resize(self.steps, false);
        std::mem::replace(&mut taken[step], true)
    }

    /// The column of the pair's result.
    fn place(&mut self, many: &Column, one: &Column, number: usize) -> usize {
        let labels = self.result_labels(&many.labels, &one.labels);
        let next = self.columns.len();
        let at = *self.places.entry(labels.clone()).or_insert(next);
        if at == next {
            // A filter forgets, as Prometheus does, that the name was to go.
            let drop_name = self.delayed_names && self.binary.return_bool;
            let mut room = std::mem::take(&mut self.room);
            room.resize(self.steps, ABSENT);
            let column = Column::new(labels, drop_name, room);
            self.columns.push(Joined { column, number });
        }
        at
    }

    fn result_labels(&self, many: &Labels, one: &Labels) -> Labels {
        let changes_metric = changes_metric(self.binary);
        let listed = |name: &str| self.matching.labels.iter().any(|l| l == name);
        let is_unmatched = |name: &str| {
            self.matching.cardinality == Cardinality::OneToOne && listed(name) != self.matching.on
        };
        let include = &self.matching.include;
        let is_kept = |(name, _): &(&str, &str)| {
            let goes = changes_metric && is_of_name(name) || is_unmatched(name);
            !goes && !include.iter().any(|l| l == name)
        };
        let mut pairs: Vec<(&str, &str)> = many.iter().filter(is_kept).collect();
        let included = include.iter().map(String::as_str);
        pairs.extend(included.map(|name| (name, one.get(name).unwrap_or_default())));
        pairs.sort_unstable();
        pairs.dedup();
        let labels = Labels::from_sorted(pairs);
        match self.binary.return_bool && !self.delayed_names {
            true => without_name(&labels),
            false => labels,
        }
    }
}

/// Arithmetic makes another metric: between vectors its name goes at once, even where the removal
/// of names is put off. A comparison that answers 0 or 1 loses the name like a function.
fn changes_metric(binary: &Binary) -> bool {
    !binary.op.is_comparison()
}
