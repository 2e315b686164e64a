//! Which user may push to which job, and how often.
//!
//! A rule is for jobs that begin with one of its texts. Where rules for a job name users, one of
//! these must push; a user that rules name may push to the jobs of those rules alone. The rate is a
//! token bucket per rule and job on each node: nodes do not count together.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use model::hash::Map;

use super::file::PushRule;

/// Buckets kept; beyond, full ones go first, then all.
const BUCKETS_MAX: usize = 10_000;

/// Why a push is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// This user never may.
    User,
    /// Once this time has passed, it may.
    Rate(Duration),
}

/// How much of the rates is used up.
#[derive(Default)]
pub struct Rates(Mutex<Map<(usize, String), Bucket>>);

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Duration,
}

/// Whether `user` may push to `job` at all; `None` is somebody without name.
pub fn may_push(rules: &[PushRule], user: Option<&str>, job: &str) -> bool {
    let names = |rule: &&PushRule| user.is_some_and(|user| rule.users.iter().any(|u| u == user));
    if rules.iter().any(|rule| names(&rule)) {
        return rules.iter().filter(names).any(|rule| is_for(rule, job));
    }
    let mut of_job = rules.iter().filter(|rule| is_for(rule, job));
    of_job.all(|rule| rule.users.is_empty())
}

fn is_for(rule: &PushRule, job: &str) -> bool {
    rule.jobs.iter().any(|beginning| job.starts_with(beginning))
}

impl Rates {
    /// Takes a token from every rate the job has, or none at all.
    pub fn take(&self, rules: &[PushRule], job: &str, now: Duration) -> Result<(), Denied> {
        let limited = rules.iter().enumerate();
        let limited = limited.filter_map(|(i, rule)| {
            let rate = rule.pushes_per_second.filter(|_| is_for(rule, job))?;
            Some((i, rate, rule.burst))
        });
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = Vec::new();
        for (i, rate, burst) in limited {
            let key = (i, job.to_owned());
            let bucket = buckets.get(&key).copied();
            let bucket = bucket.map_or(burst, |b| b.refilled(rate, burst, now));
            if bucket < 1.0 {
                let wait = (1.0 - bucket) / rate;
                return Err(Denied::Rate(Duration::from_secs_f64(wait.min(1e6))));
            }
            taken.push((key, bucket - 1.0));
        }
        for (key, tokens) in taken {
            buckets.insert(key, Bucket { tokens, at: now });
        }
        if buckets.len() > BUCKETS_MAX {
            make_room(&mut buckets, rules, now);
        }
        Ok(())
    }
}

impl Bucket {
    fn refilled(&self, rate: f64, burst: f64, now: Duration) -> f64 {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        (self.tokens + passed * rate).min(burst)
    }
}

fn make_room(buckets: &mut Map<(usize, String), Bucket>, rules: &[PushRule], now: Duration) {
    buckets.retain(|(i, _), bucket| {
        let rule = rules.get(*i);
        let rate = rule.and_then(|rule| Some((rule.pushes_per_second?, rule.burst)));
        rate.is_some_and(|(rate, burst)| bucket.refilled(rate, burst, now) < burst)
    });
    if buckets.len() > BUCKETS_MAX {
        buckets.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(jobs: &[&str], users: &[&str], pushes_per_second: Option<f64>) -> PushRule {
        let texts = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect();
        PushRule {
            jobs: texts(jobs),
            users: texts(users),
            pushes_per_second,
            burst: 2.0,
        }
    }

    #[test]
    fn users_are_bound_to_jobs() {
        let rules = [
            rule(&["ci-"], &["ci"], None),
            rule(&["db", "cache"], &["ops", "ci"], None),
            rule(&["free"], &[], Some(1.0)),
        ];
        for (user, job, may) in [
            (Some("ci"), "ci-1", true),
            (Some("ci"), "dbx", true),
            (Some("ci"), "free", false),
            (Some("ops"), "ci-1", false),
            (Some("ops"), "cache", true),
            (Some("eve"), "ci-1", false),
            (Some("eve"), "other", true),
            (None, "free", true),
            (None, "db", false),
        ] {
            assert_eq!(may_push(&rules, user, job), may, "{user:?} {job}");
        }
        assert!(may_push(&[], None, "any"));
    }

    #[test]
    fn a_rate_lets_bursts_through_and_then_one_at_a_time() {
        let rules = [rule(&["a"], &[], Some(2.0)), rule(&["ab"], &[], None)];
        let rates = Rates::default();
        let take = |job: &str, ms| rates.take(&rules, job, Duration::from_millis(ms));
        assert_eq!(take("ab", 0), Ok(()));
        assert_eq!(take("ab", 0), Ok(()));
        assert_eq!(take("ab", 0), Err(Denied::Rate(Duration::from_millis(500))));
        assert_eq!(take("ac", 0), Ok(()), "each job has its own");
        assert_eq!(take("b", 0), Ok(()));
        assert_eq!(take("ab", 499), Err(Denied::Rate(Duration::from_millis(1))));
        assert_eq!(take("ab", 500), Ok(()));
        for i in 0..=BUCKETS_MAX {
            rates
                .take(&rules, &format!("a{i}"), Duration::from_secs(9))
                .unwrap();
        }
        assert!(rates.0.lock().unwrap().len() <= BUCKETS_MAX);
    }
}
