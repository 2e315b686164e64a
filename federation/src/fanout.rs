//! Many sources as one.
//!
//! Promise: every member is asked at the same time, and the answer holds all of theirs or is the
//! error of the first that failed. Not here: who the members are (one per shard, or per node).

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::{BoxFuture, try_join_all};
use model::fragment::{Fragment, FragmentError, Part};
use model::newest::Pages;
use model::source::{MetadataSelection, Selection, Source, SourceError};
use model::{ExemplarSeries, Labels, NewestSelection, Series};

use crate::merge::{merge_exemplars, merge_series, merge_sorted};

/// The union of its members.
#[derive(Clone)]
pub struct FanOut {
    members: Vec<Arc<dyn Source>>,
}

impl FanOut {
    pub fn new(members: Vec<Arc<dyn Source>>) -> Self {
        Self { members }
    }

    /// Asks every member; when one fails the others' answers are no longer awaited.
    async fn ask<'a, T>(
        &'a self,
        question: impl Fn(&'a dyn Source) -> BoxFuture<'a, Result<T, SourceError>>,
    ) -> Result<Vec<T>, SourceError> {
        try_join_all(self.members.iter().map(|m| question(m.as_ref()))).await
    }
}

#[async_trait]
impl Source for FanOut {
    async fn select(&self, selection: &Selection) -> Result<Vec<Series>, SourceError> {
        let lists = self.ask(|member| member.select(selection)).await?;
        Ok(merge_series(lists, selection.take))
    }

    async fn series(&self, selection: &MetadataSelection) -> Result<Vec<Labels>, SourceError> {
        Ok(merge_sorted(
            self.ask(|member| member.series(selection)).await?,
        ))
    }

    async fn label_names(&self, selection: &MetadataSelection) -> Result<Vec<String>, SourceError> {
        Ok(merge_sorted(
            self.ask(|member| member.label_names(selection)).await?,
        ))
    }

    async fn label_values(
        &self,
        name: &str,
        selection: &MetadataSelection,
    ) -> Result<Vec<String>, SourceError> {
        Ok(merge_sorted(
            self.ask(|member| member.label_values(name, selection))
                .await?,
        ))
    }

    async fn newest(&self, selection: &NewestSelection) -> Result<Pages, SourceError> {
        let members = self.members.iter();
        crate::newest::merged(members.map(|m| m.newest(selection)).collect()).await
    }

    async fn evaluate(&self, fragment: &Fragment) -> Result<Vec<Part>, FragmentError> {
        let questions = self.members.iter().map(|member| member.evaluate(fragment));
        Ok(try_join_all(questions).await?.concat())
    }

    fn evaluates(&self) -> bool {
        !self.members.is_empty() && self.members.iter().all(|member| member.evaluates())
    }

    async fn exemplars(
        &self,
        selection: &MetadataSelection,
    ) -> Result<Vec<ExemplarSeries>, SourceError> {
        let lists = self.ask(|member| member.exemplars(selection)).await?;
        Ok(merge_exemplars(lists))
    }
}

#[cfg(test)]
mod tests {
    use model::source::{Consistency, Take};
    use model::{Matcher, Samples, ShardId, Timestamp};
    use tokio::sync::Barrier;

    use super::*;

    /// A member that holds fixed series, or fails.
    struct Member {
        series: Vec<Series>,
        error: Option<SourceError>,
        /// Passed only once all members were asked.
        asked: Arc<Barrier>,
    }

    impl Member {
        fn new(names: &[&str], asked: &Arc<Barrier>) -> Self {
            let mut samples = Samples::default();
            samples.push(Timestamp(1), 1.0);
            let series = |name: &&str| Series {
                labels: Labels::from_pairs([("__name__", *name), ("member", "x")]),
                samples: samples.clone(),
            };
            Self {
                series: names.iter().map(series).collect(),
                error: None,
                asked: Arc::clone(asked),
            }
        }

        fn names(&self) -> Vec<String> {
            let name = |s: &Series| s.labels.metric_name().to_owned();
            self.series.iter().map(name).collect()
        }
    }

    #[async_trait]
    impl Source for Member {
        async fn select(&self, _: &Selection) -> Result<Vec<Series>, SourceError> {
            self.asked.wait().await;
            match &self.error {
                Some(error) => Err(error.clone()),
                None => Ok(self.series.clone()),
            }
        }

        async fn series(&self, _: &MetadataSelection) -> Result<Vec<Labels>, SourceError> {
            Ok(self.series.iter().map(|s| s.labels.clone()).collect())
        }

        async fn label_names(&self, _: &MetadataSelection) -> Result<Vec<String>, SourceError> {
            Ok(vec!["__name__".to_owned(), "member".to_owned()])
        }

        async fn label_values(
            &self,
            _: &str,
            _: &MetadataSelection,
        ) -> Result<Vec<String>, SourceError> {
            Ok(self.names())
        }
    }

    fn selection() -> Selection {
        Selection {
            matchers: vec![Matcher::equal("member", "x")],
            start: Timestamp(0),
            end: Timestamp(9),
            take: Take::All,
            consistency: Consistency::Strong,
        }
    }

    fn metadata() -> MetadataSelection {
        MetadataSelection {
            any_of: Vec::new(),
            start: Timestamp::MIN,
            end: Timestamp::MAX,
            consistency: Consistency::Strong,
        }
    }

    fn fan_out(members: Vec<Member>) -> FanOut {
        let source = |m| Arc::new(m) as Arc<dyn Source>;
        FanOut::new(members.into_iter().map(source).collect())
    }

    #[tokio::test]
    async fn members_are_asked_together_and_merged() {
        let asked = Arc::new(Barrier::new(2));
        let all = fan_out(vec![
            Member::new(&["a", "c"], &asked),
            Member::new(&["b", "c"], &asked),
        ]);
        let series = all.select(&selection()).await.unwrap();
        let names: Vec<_> = series.iter().map(|s| s.labels.metric_name()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(all.series(&metadata()).await.unwrap().len(), 3);
        assert_eq!(
            all.label_names(&metadata()).await.unwrap(),
            ["__name__", "member"]
        );
        assert_eq!(
            all.label_values("__name__", &metadata()).await.unwrap(),
            ["a", "b", "c"]
        );
    }

    #[tokio::test]
    async fn one_member_missing_is_no_answer() {
        let asked = Arc::new(Barrier::new(2));
        let mut broken = Member::new(&["b"], &asked);
        let error = SourceError::Unavailable(vec![ShardId(3)]);
        broken.error = Some(error.clone());
        let all = fan_out(vec![Member::new(&["a"], &asked), broken]);
        assert_eq!(all.select(&selection()).await, Err(error));
    }

    #[tokio::test]
    async fn nobody_holds_nothing() {
        assert_eq!(fan_out(vec![]).select(&selection()).await, Ok(vec![]));
    }
}
