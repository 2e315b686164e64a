//! Differences that the store adds up: of each client one series, one difference at a time.
//!
//! A client repeats a difference until the store has decided it, and only then makes the next one. So
//! each sample is the one before and its difference, or, where the store may have forgotten what a series
//! stood at, the difference alone. One counted twice or lost is neither.

use std::collections::{BTreeMap, BTreeSet};

use model::Timestamp;
use model::batch::DeltaSpan;

use super::{Violation, violation};

/// A client, and the instant at which its series stands at what a difference makes of it.
pub type Place = (u64, i64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Not decided: it may be there.
    Open,
    Counted,
    /// By the only attempt.
    Refused,
    /// After an attempt that was not answered.
    Unknown,
}

/// One difference.
#[derive(Debug, Clone)]
pub struct Delta {
    pub span: DeltaSpan,
    pub value: f64,
    attempts: u32,
    fate: Fate,
}

impl Delta {
    pub fn at(&self) -> Timestamp {
        self.span.end()
    }
}

/// All differences, by client, in order.
#[derive(Debug, Default)]
pub struct Sums {
    deltas: BTreeMap<u64, Vec<Delta>>,
    /// Whether a series may begin anew: what it stands at is kept for some minutes.
    pub forgets: bool,
    /// What is older may have gone with its age.
    pub kept_from: i64,
}

const NS_PER_MS: u64 = 1_000_000;

impl Sums {
    /// The difference that is not decided, or a new one of `value`.
    pub fn next(&mut self, client: u64, now: Timestamp, value: f64) -> Delta {
        let deltas = self.deltas.entry(client).or_default();
        if deltas.last().is_none_or(|last| last.fate != Fate::Open) {
            let last = deltas.last().map(|last| last.span.end_ns);
            let now = u64::try_from(now.0).unwrap_or_default();
            let end_ms = now.max(last.map_or(1, |last| last / NS_PER_MS + 1));
            let end_ns = end_ms * NS_PER_MS;
            deltas.push(Delta {
                span: DeltaSpan {
                    start_ns: last.unwrap_or(end_ns - NS_PER_MS),
                    end_ns,
                },
                value,
                attempts: 0,
                fate: Fate::Open,
            });
        }
        let delta = deltas.last_mut().expect("just made sure");
        delta.attempts += 1;
        delta.clone()
    }

    /// The store has answered for the client's last difference.
    pub fn decided(&mut self, client: u64, is_stored: bool) {
        let delta = self.deltas.get_mut(&client).and_then(|d| d.last_mut());
        let delta = delta.expect("it was asked for");
        delta.fate = match (is_stored, delta.attempts) {
            (true, _) => Fate::Counted,
            (false, 1) => Fate::Refused,
            (false, _) => Fate::Unknown,
        };
    }

    /// What a strong read that begins now must show.
    pub fn counted(&self) -> BTreeSet<Place> {
        let of_client = |(client, deltas): (&u64, &Vec<Delta>)| {
            let client = *client;
            let counted = deltas.iter().filter(|d| d.fate == Fate::Counted);
            counted.map(move |d| (client, d.at().0)).collect::<Vec<_>>()
        };
        self.deltas.iter().flat_map(of_client).collect()
    }

    /// Checks what a read found that had to show `counted`.
    pub fn shown(
        &self,
        counted: &BTreeSet<Place>,
        found: &BTreeMap<Place, f64>,
    ) -> Result<(), Violation> {
        for (&client, deltas) in &self.deltas {
            let mut sum: Option<f64> = None;
            let mut is_aged = false;
            for delta in deltas {
                let place = (client, delta.at().0);
                let Some(&shown) = found.get(&place) else {
                    let is_old = place.1 < self.kept_from;
                    is_aged |= is_old;
                    if !is_old && counted.contains(&place) {
                        return violation(format!("lost: the difference at {place:?}"));
                    }
                    continue;
                };
                if delta.fate == Fate::Refused {
                    return violation(format!("refused, but there: {place:?}"));
                }
                let goes_on = sum.map_or(delta.value, |sum| sum + delta.value);
                let is_known = !std::mem::take(&mut is_aged);
                if shown != goes_on && is_known && !(self.forgets && shown == delta.value) {
                    return violation(format!(
                        "{shown} at {place:?}: {sum:?} and {} are {goes_on}",
                        delta.value
                    ));
                }
                sum = Some(shown);
            }
        }
        let known = |(client, at): &Place| {
            let mut deltas = self.deltas.get(client).into_iter().flatten();
            deltas.any(|delta| delta.at().0 == *at)
        };
        match found.keys().find(|place| !known(place)) {
            Some(place) => violation(format!("phantom: a sum at {place:?}")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three of one client: counted, counted by the second attempt, not answered.
    fn sums() -> Sums {
        let mut sums = Sums::default();
        let mut next = |value, is_stored: Option<bool>| {
            sums.next(7, Timestamp(100), value);
            if let Some(is_stored) = is_stored {
                sums.decided(7, is_stored);
            }
        };
        next(1.0, Some(true));
        next(2.0, None);
        next(9.0, Some(true));
        next(4.0, None);
        sums
    }

    fn check(sums: &Sums, values: &[(i64, f64)]) -> Result<(), String> {
        let found = values.iter().map(|&(at, value)| ((7, at), value)).collect();
        sums.shown(&sums.counted(), &found).map_err(|v| v.0)
    }

    #[test]
    fn each_counts_once() {
        let sums = sums();
        assert_eq!(check(&sums, &[(100, 1.0), (101, 3.0)]), Ok(()));
        assert_eq!(check(&sums, &[(100, 1.0), (101, 3.0), (102, 7.0)]), Ok(()));
        for (values, why) in [
            (&[(100, 1.0), (101, 5.0)][..], "5 at"),
            (&[(100, 1.0), (101, 2.0)], "2 at"),
            (&[(100, 1.0), (102, 5.0)], "lost"),
            (&[(100, 1.0), (101, 3.0), (103, 7.0)], "phantom"),
        ] {
            let told = check(&sums, values).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
    }

    #[test]
    fn a_series_may_begin_anew_where_the_store_forgets() {
        let mut sums = sums();
        sums.forgets = true;
        assert_eq!(check(&sums, &[(100, 1.0), (101, 2.0)]), Ok(()));
        assert!(check(&sums, &[(100, 1.0), (101, 5.0)]).is_err());
    }

    #[test]
    fn what_was_refused_is_not_there_unless_an_attempt_was_lost() {
        let mut sums = Sums::default();
        sums.next(7, Timestamp(5), 1.0);
        sums.decided(7, false);
        assert_eq!(check(&sums, &[]), Ok(()));
        assert!(check(&sums, &[(5, 1.0)]).is_err());
        sums.next(7, Timestamp(5), 2.0);
        sums.next(7, Timestamp(5), 3.0);
        sums.decided(7, false);
        assert_eq!(check(&sums, &[(6, 2.0)]), Ok(()));
    }
}
