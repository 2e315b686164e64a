//! The series of an answer.
//!
//! Promise: a value takes eight bytes, as it did while it was computed, and what a series does not have
//! before its first and behind its last value takes none. Samples, with their times, are made of one
//! series at a time, when somebody asks for it.

use model::sample::Histograms;
use model::{Labels, Samples, Series};

use crate::eval::{Column, put_samples};
use crate::plan::Grid;

/// Series with their samples, sorted by labels.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Matrix(Vec<Row>);

#[derive(Debug, Clone, PartialEq)]
enum Row {
    Selected(Series),
    Computed(Instants),
}

/// What was computed of one series: values at neighbouring instants.
#[derive(Debug, Clone, PartialEq)]
struct Instants {
    labels: Labels,
    /// The instants of `values`.
    grid: Grid,
    values: Vec<f64>,
    histograms: Histograms,
}

impl Matrix {
    /// Adds a column computed at the instants of `grid`, unless it has no value.
    pub(crate) fn push(&mut self, column: Column, grid: Grid) {
        if let Some(instants) = Instants::of(column, grid) {
            self.0.push(Row::Computed(instants));
        }
    }

    pub(crate) fn sort(&mut self) {
        self.0.sort_by(|a, b| a.labels().cmp(b.labels()));
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    /// About how many bytes it takes.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(Row::bytes).sum()
    }

    /// The series, each made when it is asked for.
    pub fn series(&self) -> impl Iterator<Item = Series> + '_ {
        self.0.iter().map(Row::series)
    }
}

impl IntoIterator for Matrix {
    type Item = Series;
    type IntoIter = IntoSeries;

    fn into_iter(self) -> IntoSeries {
        IntoSeries(self.0.into_iter())
    }
}

impl From<Vec<Series>> for Matrix {
    fn from(series: Vec<Series>) -> Self {
        Self(series.into_iter().map(Row::Selected).collect())
    }
}

/// The series of a [`Matrix`], which lets go of each when it was handed out.
#[derive(Debug, Default)]
pub struct IntoSeries(std::vec::IntoIter<Row>);

impl Iterator for IntoSeries {
    type Item = Series;

    fn next(&mut self) -> Option<Series> {
        Some(match self.0.next()? {
            Row::Selected(series) => series,
            row => row.series(),
        })
    }
}

impl Row {
    fn labels(&self) -> &Labels {
        match self {
            Self::Selected(series) => &series.labels,
            Self::Computed(instants) => &instants.labels,
        }
    }

    fn bytes(&self) -> usize {
        let (values, histograms) = match self {
            Self::Selected(series) => (16 * series.samples.len(), &series.samples.histograms),
            Self::Computed(instants) => (8 * instants.values.len(), &instants.histograms),
        };
        let histograms = histograms.iter().map(|(_, h)| 16 + h.size());
        let labels = self.labels().as_canonical().len();
        size_of::<Self>() + labels + values + histograms.sum::<usize>()
    }

    fn series(&self) -> Series {
        match self {
            Self::Selected(series) => series.clone(),
            Self::Computed(instants) => instants.series(),
        }
    }
}

impl Instants {
    fn of(column: Column, grid: Grid) -> Option<Self> {
        let used = column.used()?;
        let Column {
            labels,
            mut values,
            mut histograms,
            ..
        } = column;
        let spared = values.len() - used.len();
        match spared > values.len() / SPARED {
            true => values = values[used.clone()].to_vec(),
            false => {
                values.truncate(used.end);
                values.drain(..used.start);
            }
        }
        let skipped = u32::try_from(used.start).expect("a grid has far fewer than 2^32 instants");
        histograms.iter_mut().for_each(|(step, _)| *step -= skipped);
        let grid = Grid {
            start: grid.at(used.start),
            steps: values.len(),
            ..grid
        };
        Some(Self {
            labels,
            grid,
            values,
            histograms,
        })
    }

    fn series(&self) -> Series {
        let mut samples = Samples::default();
        let (values, histograms) = (&self.values, &self.histograms);
        put_samples(values, histograms, 0, self.grid, &mut samples);
        Series {
            labels: self.labels.clone(),
            samples,
        }
    }
}

/// A part of so much of a column that is not used is worth moving the rest.
const SPARED: usize = 8;
