//! The newest sample of every chosen series: what `/federate` answers with.
//!
//! Promise: the union of all selections, each series once with its own timestamp, sorted by metric
//! name; a series that has gone stale is left out. Not here: text (see `exposition`).

use std::time::Duration;

use futures::future::try_join_all;
use model::sample::is_stale;
use model::source::{Consistency, Selection, Source, SourceError, Take};
use model::{Matcher, Series, Timestamp};

use crate::merge::merge_series;

/// One `/federate` request.
#[derive(Debug, Clone)]
pub struct Federate {
    /// One list per `match[]`; none chooses nothing.
    pub any_of: Vec<Vec<Matcher>>,
    pub now: Timestamp,
    /// How old a series' newest sample may be (Prometheus' `--query.lookback-delta`).
    pub lookback: Duration,
    pub consistency: Consistency,
}

/// Each chosen series with exactly one sample.
pub async fn newest(source: &dyn Source, request: &Federate) -> Result<Vec<Series>, SourceError> {
    let lookback_ms = i64::try_from(request.lookback.as_millis()).unwrap_or(i64::MAX);
    let selections: Vec<_> = request
        .any_of
        .iter()
        .map(|matchers| Selection {
            matchers: matchers.clone(),
            start: request.now.plus_ms(-lookback_ms),
            end: request.now,
            take: Take::Last,
            consistency: request.consistency,
        })
        .collect();
    let lists = try_join_all(selections.iter().map(|s| source.select(s))).await?;
    let mut series = merge_series(lists, Take::Last);
    series.retain(|s| s.samples.last().is_some_and(|last| !is_stale(last.value)));
    // By name alone and stable: within a name the order of labels stays.
    series.sort_by(|a, b| a.labels.metric_name().cmp(b.labels.metric_name()));
    Ok(series)
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use model::matcher::matches_all;
    use model::sample::STALE_NAN;
    use model::source::MetadataSelection;
    use model::{Labels, MatchOp, Samples};

    use super::*;

    /// Series in memory.
    struct Fixed(Vec<Series>);

    #[async_trait]
    impl Source for Fixed {
        async fn select(&self, selection: &Selection) -> Result<Vec<Series>, SourceError> {
            assert_eq!(selection.take, Take::Last);
            let chosen = self.0.iter().filter_map(|s| {
                let last = s.samples.last()?;
                let inside = (selection.start..=selection.end).contains(&last.timestamp);
                (inside && matches_all(&selection.matchers, &s.labels)).then(|| s.clone())
            });
            Ok(chosen.collect())
        }

        async fn series(&self, _: &MetadataSelection) -> Result<Vec<Labels>, SourceError> {
            Ok(Vec::new())
        }

        async fn label_names(&self, _: &MetadataSelection) -> Result<Vec<String>, SourceError> {
            Ok(Vec::new())
        }

        async fn label_values(
            &self,
            _: &str,
            _: &MetadataSelection,
        ) -> Result<Vec<String>, SourceError> {
            Ok(Vec::new())
        }
    }

    fn series(pairs: &[(&str, &str)], at: i64, value: f64) -> Series {
        let mut samples = Samples::default();
        samples.push(Timestamp(at), value);
        Series {
            labels: Labels::from_pairs(pairs.iter().copied()),
            samples,
        }
    }

    async fn names(any_of: Vec<Vec<Matcher>>) -> Vec<String> {
        let source = Fixed(vec![
            series(&[("A", "1"), ("__name__", "z")], 900_000, 1.0),
            series(&[("__name__", "a"), ("x", "1")], 600_000, 1.0),
            series(&[("__name__", "a"), ("x", "2")], 599_999, 1.0),
            series(&[("__name__", "b")], 900_001, 1.0),
            series(&[("__name__", "c")], 800_000, STALE_NAN),
            series(&[("__name__", "d")], 800_000, f64::NAN),
        ]);
        let request = Federate {
            any_of,
            now: Timestamp(900_000),
            lookback: Duration::from_secs(300),
            consistency: Consistency::Strong,
        };
        let found = newest(&source, &request).await.unwrap();
        found.iter().map(|s| s.labels.to_string()).collect()
    }

    #[tokio::test]
    async fn each_live_series_once_by_metric_name() {
        let all = Matcher::new(MatchOp::Regex, "__name__", ".+").unwrap();
        let some = Matcher::equal("__name__", "a");
        assert_eq!(
            names(vec![vec![some], vec![all]]).await,
            [
                r#"{__name__="a", x="1"}"#,
                r#"{__name__="d"}"#,
                r#"{A="1", __name__="z"}"#,
            ]
        );
    }

    #[tokio::test]
    async fn no_selection_chooses_nothing() {
        assert!(names(vec![]).await.is_empty());
    }
}
