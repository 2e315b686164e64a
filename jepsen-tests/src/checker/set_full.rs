//! A set per series that only grows: every sample attempted, every scan of it.
//!
//! A sample is *known* from the earlier of its first acknowledgement and the end of the first
//! scan that saw it. A scan that begins after that must show it. If it does not, the sample is
//! *lost* when no later scan shows it and *stale* when one does; either is also a *flicker* when
//! it had been seen before. A *phantom* was never attempted, or only by a request that failed, or
//! not yet. Each scan must be strictly ordered by time, and each value be the sample's own.
//! (The rules are those of the set-full checker of Jepsen; the code is ours.)

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, Report, Verdict};
use crate::history::{Call, Entry, Kind, Seen, SeriesSeen};

/// What was asked for one sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Attempt {
    /// When the first request that may have stored it began.
    pub start: i64,
    /// The end of the first acknowledged request.
    pub ack: Option<i64>,
    pub op: u64,
}

/// One scan of one series.
#[derive(Debug, Clone, PartialEq)]
pub struct Look<'a> {
    pub i: u64,
    pub node: usize,
    pub start: i64,
    pub finish: i64,
    pub points: &'a [i64],
    pub alien: &'a [(i64, String)],
}

/// How many samples of each kind.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub acknowledged: u64,
    pub lost: u64,
    pub stale: u64,
    pub flicker: u64,
    pub phantom: u64,
    pub duplicate: u64,
    pub reordered: u64,
    pub alien: u64,
    /// Acknowledged, and no scan began after that: nothing can be said.
    pub unread: u64,
}

/// Checks all series of a history.
pub fn check(history: &[Entry], series: u32) -> Report {
    let mut counts = Counts::default();
    let mut findings = Vec::new();
    check_rows(history, &mut counts, &mut findings);
    let sweeps = sweep_attempts(history);
    let appends = append_attempts(history, series);
    let nothing = SeriesSeen {
        series: 0,
        points: Vec::new(),
        alien: Vec::new(),
    };
    for (n, mut attempts) in (0..).zip(appends) {
        attempts.extend(&sweeps);
        let looks = looks_at(history, n, &nothing);
        check_series(n, &attempts, &looks, &mut counts, &mut findings);
    }
    report(counts, findings)
}

fn report(counts: Counts, findings: Vec<Finding>) -> Report {
    let summary = format!(
        "{} acknowledged samples: {} lost, {} stale, {} flickering, {} phantom, {} duplicate, \
         {} out of order, {} with a wrong value",
        counts.acknowledged,
        counts.lost,
        counts.stale,
        counts.flicker,
        counts.phantom,
        counts.duplicate,
        counts.reordered,
        counts.alien
    );
    let mut report = Report::from_findings("samples (set-full)", summary, findings);
    if report.verdict == Verdict::Valid && counts.unread > 0 {
        report.verdict = Verdict::Unknown;
        report.summary += &format!(", {} never read after", counts.unread);
    }
    report
        .with("acknowledged", counts.acknowledged)
        .with("lost", counts.lost)
        .with("stale", counts.stale)
        .with("flicker", counts.flicker)
        .with("phantom", counts.phantom)
        .with("duplicate", counts.duplicate)
        .with("reordered", counts.reordered)
        .with("alien", counts.alien)
        .with("unread", counts.unread)
}

/// Judges one series.
pub fn check_series(
    series: u32,
    attempts: &BTreeMap<i64, Attempt>,
    looks: &[Look<'_>],
    counts: &mut Counts,
    findings: &mut Vec<Finding>,
) {
    let shown: Vec<Vec<bool>> = looks
        .iter()
        .map(|look| {
            check_look(series, attempts, look, counts, findings);
            presence(attempts, look)
        })
        .collect();
    for (column, (at, attempt)) in attempts.iter().enumerate() {
        let seeing = || looks.iter().zip(&shown).filter(|(_, row)| row[column]);
        let first_seen = seeing().map(|(look, _)| look.finish).min();
        counts.acknowledged += u64::from(attempt.ack.is_some());
        let Some(known) = [attempt.ack, first_seen].into_iter().flatten().min() else {
            continue;
        };
        let mut after = looks
            .iter()
            .zip(&shown)
            .filter(|(l, _)| l.start > known)
            .peekable();
        if after.peek().is_none() && attempt.ack.is_some() {
            counts.unread += 1;
        }
        let Some((lacking, _)) = after
            .filter(|(_, row)| !row[column])
            .max_by_key(|(l, _)| l.start)
        else {
            continue;
        };
        let later = seeing().any(|(look, _)| look.start > lacking.start);
        let seen_before = first_seen.is_some_and(|seen| seen < lacking.start);
        let what = match later {
            true => "stale",
            false => "lost",
        };
        match later {
            true => counts.stale += 1,
            false => counts.lost += 1,
        }
        counts.flicker += u64::from(seen_before);
        findings.push(Finding {
            what: format!(
                "series {series} at {at} ms is {what}: {}, missing on node {}",
                if attempt.ack.is_some() {
                    "acknowledged"
                } else {
                    "seen"
                },
                lacking.node
            ),
            ops: vec![attempt.op, lacking.i],
        });
    }
}

/// What is wrong with one scan on its own.
fn check_look(
    series: u32,
    attempts: &BTreeMap<i64, Attempt>,
    look: &Look<'_>,
    counts: &mut Counts,
    findings: &mut Vec<Finding>,
) {
    let mut find = |what: String| {
        findings.push(Finding {
            what: format!("series {series}: {what} on node {}", look.node),
            ops: vec![look.i],
        });
    };
    for pair in look.points.windows(2) {
        if pair[1] == pair[0] {
            counts.duplicate += 1;
            find(format!("two samples at {} ms", pair[0]));
        } else if pair[1] < pair[0] {
            counts.reordered += 1;
            find(format!("{} ms after {} ms", pair[1], pair[0]));
        }
    }
    for at in look.points {
        let why = match attempts.get(at) {
            Some(attempt) if attempt.start <= look.finish => continue,
            Some(_) => "seen before it was sent",
            None => "never sent",
        };
        counts.phantom += 1;
        find(format!("a sample at {at} ms that was {why}"));
    }
    for (at, value) in look.alien {
        counts.alien += 1;
        find(format!("a sample at {at} ms with the wrong value {value}"));
    }
}

/// For each attempt, in order, whether the scan shows it.
fn presence(attempts: &BTreeMap<i64, Attempt>, look: &Look<'_>) -> Vec<bool> {
    let mut points = look.points.to_vec();
    points.sort_unstable();
    let mut rest = points.into_iter().peekable();
    attempts
        .keys()
        .map(|at| {
            while rest.next_if(|point| point < at).is_some() {}
            rest.peek() == Some(at)
        })
        .collect()
}

fn append_attempts(history: &[Entry], series: u32) -> Vec<BTreeMap<i64, Attempt>> {
    let mut attempts = vec![BTreeMap::new(); series as usize];
    for entry in history {
        let Call::Append { samples } = &entry.call else {
            continue;
        };
        for (series, at) in samples {
            if let Some(map) = attempts.get_mut(*series as usize) {
                attempt(map, *at, entry);
            }
        }
    }
    attempts
}

fn sweep_attempts(history: &[Entry]) -> BTreeMap<i64, Attempt> {
    let mut attempts = BTreeMap::new();
    for entry in history {
        if let Call::Sweep { at } = entry.call {
            attempt(&mut attempts, at, entry);
        }
    }
    attempts
}

fn attempt(map: &mut BTreeMap<i64, Attempt>, at: i64, entry: &Entry) {
    let ack = match entry.kind {
        Kind::Fail => return,
        Kind::Ok => Some(entry.t1),
        Kind::Info => None,
    };
    let attempt = map.entry(at).or_insert(Attempt {
        start: entry.t0,
        ack,
        op: entry.i,
    });
    attempt.start = attempt.start.min(entry.t0);
    if ack.is_some_and(|ack| attempt.ack.is_none_or(|before| ack < before)) {
        attempt.ack = ack;
        attempt.op = entry.i;
    }
}

/// Series in an answer that do not belong there: twice, or not asked for.
fn check_rows(history: &[Entry], counts: &mut Counts, findings: &mut Vec<Finding>) {
    for entry in history {
        let (Call::Scan { first, count }, Some(Seen::Series(rows))) = (&entry.call, &entry.val)
        else {
            continue;
        };
        let mut before = BTreeSet::new();
        for row in rows {
            let asked = (*first..first.saturating_add(*count)).contains(&row.series);
            let why = match (asked, before.insert(row.series)) {
                (true, true) => continue,
                (true, false) => {
                    counts.duplicate += 1;
                    "came twice in one answer"
                }
                (false, _) => {
                    counts.phantom += 1;
                    "came without being asked for"
                }
            };
            findings.push(Finding {
                what: format!("series {} {why} of node {}", row.series, entry.node),
                ops: vec![entry.i],
            });
        }
    }
}

/// The scans that covered a series; one that came back without the series saw nothing of it.
fn looks_at<'a>(history: &'a [Entry], series: u32, nothing: &'a SeriesSeen) -> Vec<Look<'a>> {
    let mut looks = Vec::new();
    for entry in history {
        let Call::Scan { first, count } = entry.call else {
            continue;
        };
        let (Kind::Ok, Some(Seen::Series(rows))) = (entry.kind, &entry.val) else {
            continue;
        };
        if !(first..first.saturating_add(count)).contains(&series) {
            continue;
        }
        let row = rows.iter().find(|row| row.series == series);
        let row = row.unwrap_or(nothing);
        looks.push(Look {
            i: entry.i,
            node: entry.node,
            start: entry.t0,
            finish: entry.t1,
            points: &row.points,
            alien: &row.alien,
        });
    }
    looks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::splitmix::SplitMix64;

    fn append(i: u64, samples: &[(u32, i64)], at: i64, kind: Kind) -> Entry {
        Entry {
            i,
            proc: 0,
            node: 0,
            call: Call::Append {
                samples: samples.to_vec(),
            },
            t0: at,
            t1: at + 5,
            kind,
            val: None,
            status: None,
            note: None,
            last: false,
        }
    }

    fn scan(i: u64, node: usize, at: i64, points: [&[i64]; 2]) -> Entry {
        let row = |(series, points): (u32, &&[i64])| SeriesSeen {
            series,
            points: points.to_vec(),
            alien: Vec::new(),
        };
        let rows = (0..).zip(&points).filter(|(_, p)| !p.is_empty());
        Entry {
            node,
            call: Call::Scan { first: 0, count: 2 },
            val: Some(Seen::Series(rows.map(row).collect())),
            ..append(i, &[], at, Kind::Ok)
        }
    }

    fn sound() -> Vec<Entry> {
        vec![
            append(0, &[(0, -50), (1, -20)], 0, Kind::Ok),
            scan(1, 0, 10, [&[-50], &[-20]]),
            append(2, &[(0, -70)], 20, Kind::Ok),
            append(3, &[(1, -10)], 30, Kind::Info),
            append(4, &[(0, -50), (1, -20)], 40, Kind::Ok),
            scan(5, 1, 50, [&[-70, -50], &[-20]]),
            scan(6, 2, 60, [&[-70, -50], &[-20, -10]]),
            scan(7, 0, 70, [&[-70, -50], &[-20, -10]]),
        ]
    }

    fn fact(report: &Report, name: &str) -> u64 {
        report.facts[name].as_u64().unwrap()
    }

    fn broken(change: impl FnOnce(&mut Vec<Entry>)) -> Report {
        let mut history = sound();
        change(&mut history);
        check(&history, 2)
    }

    fn rows(entry: &mut Entry) -> &mut Vec<SeriesSeen> {
        match &mut entry.val {
            Some(Seen::Series(rows)) => rows,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_sound_history_passes() {
        let report = broken(|_| ());
        assert_eq!(report.verdict, Verdict::Valid, "{report:?}");
        assert_eq!(fact(&report, "acknowledged"), 3);
    }

    #[test]
    fn a_dropped_acknowledged_sample_is_lost() {
        let report = broken(|h| {
            for scan in &mut h[5..8] {
                rows(scan)[0].points = vec![-50];
            }
        });
        assert_eq!(report.verdict, Verdict::Invalid);
        assert_eq!((fact(&report, "lost"), fact(&report, "stale")), (1, 0));
        let whole_series = broken(|h| drop(rows(&mut h[7]).remove(0)));
        assert_eq!(fact(&whole_series, "lost"), 2);
    }

    #[test]
    fn a_node_that_lags_is_stale() {
        let report = broken(|h| rows(&mut h[5])[0].points = vec![-50]);
        assert_eq!((fact(&report, "lost"), fact(&report, "stale")), (0, 1));
        assert_eq!(fact(&report, "flicker"), 0);
        assert_eq!(report.findings[0].ops, [2, 5]);
    }

    #[test]
    fn what_was_seen_once_must_stay_even_without_an_acknowledgement() {
        let report = broken(|h| rows(&mut h[7])[1].points = vec![-20]);
        assert_eq!((fact(&report, "lost"), fact(&report, "flicker")), (1, 1));
    }

    #[test]
    fn phantoms_are_caught() {
        let invented = broken(|h| rows(&mut h[6])[0].points = vec![-70, -60, -50]);
        assert_eq!(fact(&invented, "phantom"), 1);
        let failed = broken(|h| h[3].kind = Kind::Fail);
        assert_eq!(fact(&failed, "phantom"), 2);
        let early = broken(|h| rows(&mut h[1])[0].points = vec![-70, -50]);
        assert_eq!(fact(&early, "phantom"), 1);
        let other = broken(|h| rows(&mut h[7])[1].series = 9);
        assert_eq!((fact(&other, "phantom"), fact(&other, "lost")), (1, 2));
    }

    #[test]
    fn duplicates_swaps_and_wrong_values_are_caught() {
        let twice = broken(|h| rows(&mut h[6])[0].points = vec![-70, -50, -50]);
        assert_eq!(fact(&twice, "duplicate"), 1);
        let series_twice = broken(|h| {
            let row = rows(&mut h[6])[0].clone();
            rows(&mut h[6]).push(row);
        });
        assert_eq!(fact(&series_twice, "duplicate"), 1);
        let swapped = broken(|h| rows(&mut h[6])[0].points = vec![-50, -70]);
        assert_eq!(fact(&swapped, "reordered"), 1);
        let alien = broken(|h| rows(&mut h[6])[0].alien = vec![(-50, "3".into())]);
        assert_eq!(fact(&alien, "alien"), 1);
        for report in [twice, series_twice, swapped, alien] {
            assert_eq!(report.verdict, Verdict::Invalid);
        }
    }

    #[test]
    fn acknowledged_and_never_read_is_unknown() {
        let report = broken(|h| h.truncate(5));
        assert_eq!(report.verdict, Verdict::Unknown);
        assert_eq!(fact(&report, "unread"), 1);
    }

    #[test]
    fn sweeps_count_for_every_series() {
        let sweep = |kind| Entry {
            call: Call::Sweep { at: 5 },
            ..append(0, &[], 0, kind)
        };
        let both = scan(1, 0, 10, [&[5], &[5]]);
        let one = scan(1, 0, 10, [&[5], &[]]);
        assert_eq!(check(&[sweep(Kind::Ok), both], 2).verdict, Verdict::Valid);
        let report = check(&[sweep(Kind::Ok), one.clone()], 2);
        assert_eq!(fact(&report, "lost"), 1);
        assert_eq!(check(&[sweep(Kind::Info), one], 2).verdict, Verdict::Valid);
    }

    /// A store that keeps every rule, in random order; then one random sample is taken from one
    /// random scan that had to show it.
    #[test]
    fn every_single_loss_from_a_random_history_is_caught() {
        let mut dice = SplitMix64::new(5);
        for case in 0..300 {
            let mut store: [BTreeSet<i64>; 2] = Default::default();
            let mut history = Vec::new();
            for i in 0..40_u64 {
                let at = i as i64 * 10;
                if dice.chance(60) {
                    let sample = (dice.between(0, 2) as u32, -(at * 7 % 400) - 1);
                    store[sample.0 as usize].insert(sample.1);
                    let kind = if dice.chance(80) {
                        Kind::Ok
                    } else {
                        Kind::Info
                    };
                    history.push(append(i, &[sample], at, kind));
                } else {
                    let all = store.clone().map(|set| set.into_iter().collect::<Vec<_>>());
                    let node = dice.between(0, 3) as usize;
                    history.push(scan(i, node, at, [&all[0], &all[1]]));
                }
            }
            let bad = |h: &[Entry]| check(h, 2).verdict == Verdict::Invalid;
            assert!(!bad(&history), "case {case}");
            let scans: Vec<usize> = (0..history.len())
                .filter(|&n| matches!(&history[n].val, Some(Seen::Series(r)) if !r.is_empty()))
                .collect();
            let victim = scans[dice.between(0, scans.len() as u64) as usize];
            let points = &mut rows(&mut history[victim])[0].points;
            let gone = points.remove(dice.between(0, points.len() as u64) as usize);
            let series = rows(&mut history[victim])[0].series;
            let known = history[..victim].iter().any(|e| match (&e.call, &e.val) {
                (Call::Append { samples }, _) => {
                    e.kind == Kind::Ok && samples.contains(&(series, gone))
                }
                (_, Some(Seen::Series(r))) => r
                    .iter()
                    .any(|r| r.series == series && r.points.contains(&gone)),
                _ => false,
            });
            assert_eq!(
                bad(&history),
                known,
                "case {case}: {gone} from scan {victim}"
            );
        }
    }
}
