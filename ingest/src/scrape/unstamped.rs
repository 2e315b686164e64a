//! Exemplars without a time of their own, told once: a target shows its newest at every scrape.
//!
//! As Prometheus 3.5 (`tsdb/exemplar.go`): where a series' newest exemplar came without a time, one
//! that also has none and is equal in labels and value is the same. What is only known here is that
//! it had none, so a target's scrapes remember it, as long as they show the series; another node
//! that goes on with the target, or one started anew, stores it once more.
//!
//! Invariant: only what certainly was stored is left out.

use model::{Labels, hash};

use crate::exposition::ExemplarSeen;

/// Of each series whose newest exemplar has no time: its labels and value.
pub type Newest = hash::Map<Labels, (Labels, f64)>;

#[derive(Debug, Default)]
pub struct Unstamped {
    stored: Newest,
    /// What `stored` becomes when the last batch is known to be stored.
    pending: Option<Newest>,
}

impl Unstamped {
    /// Those of a series' exemplars that were not stored before; `newest` becomes what this scrape
    /// knows of the series.
    pub fn news(
        &self,
        series: &Labels,
        mut seen: Vec<ExemplarSeen>,
        newest: &mut Newest,
    ) -> Vec<ExemplarSeen> {
        if seen.is_empty() && self.stored.is_empty() {
            return seen;
        }
        let known = newest.remove(series);
        let mut known = known.or_else(|| self.stored.get(series).cloned());
        seen.retain(|seen| {
            if seen.timestamp.is_some() {
                known = None;
                return true;
            }
            let next = (seen.labels.clone(), seen.value);
            let is_new = known.as_ref() != Some(&next);
            known = Some(next);
            is_new
        });
        if let Some(known) = known {
            newest.insert(series.clone(), known);
        }
        seen
    }

    /// A scrape's batch goes to the store.
    pub fn sent(&mut self, newest: Newest) {
        self.pending = Some(newest);
    }

    pub fn written(&mut self) {
        if let Some(newest) = self.pending.take() {
            self.stored = newest;
        }
    }

    /// What came last may or may not be stored, so what is the newest is not known.
    pub fn lost(&mut self) {
        if self.pending.take().is_some() {
            self.stored.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use model::Timestamp;

    use super::*;

    fn series() -> Labels {
        Labels::from_pairs([("__name__", "a_total")])
    }

    fn exemplar(trace: &str, value: f64, at: Option<i64>) -> ExemplarSeen {
        ExemplarSeen {
            labels: Labels::from_pairs([("trace_id", trace)]),
            value,
            timestamp: at.map(Timestamp),
        }
    }

    /// How many exemplars a scrape that shows these lets through.
    fn scrape(state: &mut Unstamped, seen: &[ExemplarSeen]) -> usize {
        let mut newest = Newest::default();
        let news = state.news(&series(), seen.to_vec(), &mut newest);
        state.sent(newest);
        news.len()
    }

    #[test]
    fn a_repetition_is_news_only_when_something_came_between() {
        let mut state = Unstamped::default();
        let script: [(&[ExemplarSeen], usize); 9] = [
            (&[exemplar("x", 1.0, None)], 1),
            (&[exemplar("x", 1.0, None)], 0),
            (&[], 0),
            (&[exemplar("x", 1.0, None)], 0),
            (&[exemplar("x", 2.0, None)], 1),
            (&[exemplar("y", 2.0, None)], 1),
            // Those with a time are told apart where they are stored.
            (&[exemplar("y", 2.0, Some(5))], 1),
            (&[exemplar("y", 2.0, Some(5))], 1),
            (&[exemplar("y", 2.0, None)], 1),
        ];
        for (place, (seen, expected)) in script.into_iter().enumerate() {
            assert_eq!(scrape(&mut state, seen), expected, "scrape {place}");
            state.written();
        }
    }

    #[test]
    fn what_may_be_lost_is_told_again() {
        let mut state = Unstamped::default();
        let seen = [exemplar("x", 1.0, None)];
        assert_eq!(scrape(&mut state, &seen), 1);
        state.lost();
        assert_eq!(scrape(&mut state, &seen), 1);
        state.written();
        // Nothing was sent since.
        state.lost();
        assert_eq!(scrape(&mut state, &seen), 0);
    }

    #[test]
    fn a_series_no_longer_shown_is_forgotten() {
        let mut state = Unstamped::default();
        scrape(&mut state, &[exemplar("x", 1.0, None)]);
        state.written();
        state.sent(Newest::default());
        state.written();
        assert!(state.stored.is_empty());
    }
}
