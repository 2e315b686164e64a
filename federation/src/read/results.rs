//! The results of a request, until they are read.
//!
//! Promise: they take little memory ([`super::kept`]), and how much is told. In plain samples the
//! length of the whole is known once the last series is there: nobody looks at all of them at once.

use model::Series;

use super::kept::{Keeper, Kept};
use super::samples::{SamplesBody, field_len, series_len};
use super::{Answer, External, Frames};

/// More samples than one answer may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("exceeded sample limit ({0})")]
pub struct TooManySamples(pub usize);

/// Collects one result for each query of a request.
#[derive(Debug)]
pub struct Results {
    form: Answer,
    external: External,
    all: Vec<OfQuery>,
    samples: usize,
    keeper: Keeper,
}

/// The result of one query.
#[derive(Debug, Default)]
pub(super) struct OfQuery {
    pub series: Vec<Kept>,
    /// Of the message, where there is one of the whole.
    pub message_len: usize,
}

/// What a reader is sent, in pieces, for each of which a few series are let go.
pub enum Body {
    Samples(Box<SamplesBody>),
    Chunks(Box<dyn Iterator<Item = bytes::Bytes> + Send>),
}

impl Results {
    pub fn new(form: Answer, external: External) -> Self {
        Self {
            form,
            external,
            all: Vec::new(),
            samples: 0,
            keeper: Keeper::default(),
        }
    }

    /// Begins the result of the next query, of which so many samples will be added. `samples_max`
    /// bounds each, 0 does not; of several queries it bounds all together, which Prometheus does not.
    pub fn begin(&mut self, samples: usize, samples_max: usize) -> Result<(), TooManySamples> {
        self.samples += samples;
        if samples_max > 0 && self.samples > samples_max {
            return Err(TooManySamples(samples_max));
        }
        self.all.push(OfQuery::default());
        Ok(())
    }

    /// Adds a series to the result that was begun last.
    pub fn add(&mut self, series: Series) {
        let result = self.all.last_mut().expect("a result was begun");
        if self.form == Answer::Samples {
            result.message_len += field_len(series_len(&series, &self.external));
        }
        result.series.push(self.keeper.keep(series));
    }

    /// What they take in memory, about.
    pub fn bytes(&self) -> usize {
        self.keeper.bytes()
    }

    /// All series of all results, for whoever lets go of them a few at a time.
    pub fn into_series(self) -> impl Iterator<Item = Kept> {
        self.all.into_iter().flat_map(|result| result.series)
    }

    /// The body; an answer larger than snappy's 4 GiB is an error.
    pub fn into_body(self) -> Result<Body, snap::Error> {
        let external = self.external;
        if self.form == Answer::Samples {
            let body = SamplesBody::new(self.all, external)?;
            return Ok(Body::Samples(Box::new(body)));
        }
        let frames = self
            .all
            .into_iter()
            .enumerate()
            .flat_map(move |(i, result)| {
                let series = result.series.into_iter().map(Kept::into_series);
                Frames::new(series, external.clone(), i)
            });
        Ok(Body::Chunks(Box::new(frames)))
    }
}
