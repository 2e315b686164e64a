//! The newest sample of each series, page by page: what an exposition is made of.
//!
//! Promise: pages ascend by [`Labels::cmp_by_name`], within and across them, and name a series
//! once. Series without a name, and those that have gone stale, are in none of them.

use std::sync::Arc;

use futures::StreamExt;
use futures::future::try_join_all;
use futures::stream::BoxStream;

use crate::limits::NEWEST_PAGE_SERIES;
use crate::sample::is_stale;
use crate::source::{Consistency, Selection, Source, SourceError, Take};
use crate::{Histogram, Labels, Matcher, Series, Timestamp};

/// Series that match every matcher of any list, and have their newest sample of those up to `end`
/// in `start ..= end`. No list chooses nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct NewestSelection {
    pub any_of: Vec<Vec<Matcher>>,
    pub start: Timestamp,
    pub end: Timestamp,
    pub consistency: Consistency,
}

/// A series and its newest sample. Of a histogram `value` is the sum.
#[derive(Debug, Clone, PartialEq)]
pub struct Newest {
    pub labels: Labels,
    pub at: Timestamp,
    pub value: f64,
    pub histogram: Option<Arc<Histogram>>,
}

/// Pages of bounded length, none of them empty. Each is made when it is asked for. After an error
/// comes nothing.
pub type Pages = BoxStream<'static, Result<Vec<Newest>, SourceError>>;

impl Newest {
    /// Of a series' last sample, unless an exposition has no room for it.
    pub fn of(series: Series) -> Option<Self> {
        let last = series.samples.len().checked_sub(1)?;
        let newest = Self {
            at: *series.samples.timestamps.get(last)?,
            value: *series.samples.values.get(last)?,
            histogram: series.samples.histogram(last).cloned(),
            labels: series.labels,
        };
        newest.is_shown().then_some(newest)
    }

    /// Whether it is neither nameless nor the end of its series.
    pub fn is_shown(&self) -> bool {
        !is_stale(self.value) && self.labels.has_name()
    }
}

/// For sources that know no better: all of them are held at once, and leave in pages.
pub(crate) async fn by_select<S: Source + ?Sized>(
    source: &S,
    selection: &NewestSelection,
) -> Result<Pages, SourceError> {
    let selections: Vec<_> = selection
        .any_of
        .iter()
        .map(|matchers| Selection {
            matchers: matchers.clone(),
            start: selection.start,
            end: selection.end,
            take: Take::Last,
            consistency: selection.consistency,
        })
        .collect();
    let lists = try_join_all(selections.iter().map(|s| source.select(s))).await?;
    let mut all: Vec<Newest> = lists.concat().into_iter().filter_map(Newest::of).collect();
    all.sort_by(|a, b| a.labels.cmp_by_name(&b.labels));
    all.dedup_by(|a, b| a.labels == b.labels);
    let mut pages = Vec::new();
    let mut all = all.into_iter().peekable();
    while all.peek().is_some() {
        pages.push(Ok(all.by_ref().take(NEWEST_PAGE_SERIES).collect()));
    }
    Ok(futures::stream::iter(pages).boxed())
}
