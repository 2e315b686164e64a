//! Samples that an administrator deletes: none comes back, and no other goes.
//!
//! Each place is written by one request. A deletion may have its effect at any instant between its
//! question and its answer, and more than once; one without an answer, at any later instant.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use model::sink::{Reason, Rejection};

use super::{Violation, violation};

/// A series, by its number in the workload, at an instant in milliseconds.
pub type Place = (u32, i64);

#[derive(Debug)]
struct Row {
    value: f64,
    began: u64,
    /// Told to be stored.
    stored: Option<u64>,
    /// Stored or shown, whichever was first.
    known: Option<u64>,
    /// Told to be refused.
    refused: Option<u64>,
}

/// What is to be deleted: every series of a range, between two instants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    pub series: RangeInclusive<u32>,
    pub times: RangeInclusive<i64>,
}

impl Chosen {
    fn holds(&self, (series, at): Place) -> bool {
        self.series.contains(&series) && self.times.contains(&at)
    }
}

#[derive(Debug)]
struct Deletion {
    chosen: Chosen,
    began: u64,
    done: Option<u64>,
}

/// All rows of the kind, and all deletions.
#[derive(Debug, Default)]
pub struct Deletions {
    rows: BTreeMap<Place, Row>,
    deletions: Vec<Deletion>,
    event: u64,
    /// What is older may have gone with its age.
    pub kept_from: i64,
}

impl Deletions {
    /// Deletions that were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.deletions.iter().filter(|d| d.done.is_some()).count()
    }

    pub fn is_taken(&self, place: Place) -> bool {
        self.rows.contains_key(&place)
    }

    /// A write of `rows` is about to be sent, at places that are not taken.
    pub fn begin(&mut self, rows: &[(Place, f64)]) {
        self.event += 1;
        for &(place, value) in rows {
            let row = Row {
                value,
                began: self.event,
                stored: None,
                known: None,
                refused: None,
            };
            let before = self.rows.insert(place, row);
            assert!(before.is_none(), "each place is written once");
        }
    }

    /// The store decided every row of a write.
    pub fn decided(
        &mut self,
        rows: &[(Place, f64)],
        rejected: &[Rejection],
    ) -> Result<(), Violation> {
        self.event += 1;
        for (index, (place, _)) in rows.iter().enumerate() {
            let row = self.rows.get_mut(place).expect("begun before it ended");
            let rejection = rejected.iter().find(|r| r.row as usize == index);
            match rejection.map(|r| r.reason) {
                None => {
                    row.stored = Some(self.event);
                    row.known.get_or_insert(self.event);
                }
                Some(Reason::TooOld | Reason::OutOfOrder) => row.refused = Some(self.event),
                Some(reason) => {
                    return violation(format!("{place:?} refused as {reason:?} without a cause"));
                }
            }
        }
        Ok(())
    }

    /// A deletion is about to be asked for; returns its number.
    pub fn begin_deletion(&mut self, chosen: Chosen) -> usize {
        self.event += 1;
        self.deletions.push(Deletion {
            chosen,
            began: self.event,
            done: None,
        });
        self.deletions.len() - 1
    }

    pub fn deleted(&mut self, number: usize) {
        self.event += 1;
        self.deletions[number].done = Some(self.event);
    }

    /// The mark a read takes before it is sent.
    pub fn started(&mut self) -> u64 {
        self.event += 1;
        self.event
    }

    /// Checks what a strong read of everything found that was sent at `since`.
    pub fn shown(&mut self, found: &BTreeMap<Place, f64>, since: u64) -> Result<(), Violation> {
        self.event += 1;
        if let Some(place) = found.keys().find(|place| !self.rows.contains_key(place)) {
            return violation(format!("phantom: nobody wrote anything at {place:?}"));
        }
        for (&place, row) in &mut self.rows {
            let mut deletions = self.deletions.iter().filter(|d| d.chosen.holds(place));
            let Some(value) = found.get(&place) else {
                let is_known = row.known.is_some_and(|known| known <= since);
                let may_be_gone = place.1 < self.kept_from
                    || deletions.any(|d| d.done.is_none_or(|done| done > row.began));
                if is_known && !may_be_gone {
                    return violation(format!(
                        "lost: {place:?}, which nobody deleted, is missing from a read: {row:?}"
                    ));
                }
                continue;
            };
            if value.to_bits() != row.value.to_bits() {
                return violation(format!("{value} at {place:?}: {row:?}"));
            }
            if row.refused.is_some_and(|refused| refused < since) {
                return violation(format!("refused, but there: {place:?}: {row:?}"));
            }
            let is_over = |d: &&Deletion| {
                d.done.is_some_and(|done| done < since)
                    && row.stored.is_some_and(|stored| stored < d.began)
            };
            if let Some(deletion) = deletions.find(is_over) {
                return violation(format!(
                    "deleted, but there: {place:?}: {row:?} {deletion:?}"
                ));
            }
            row.known.get_or_insert(self.event);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: [(Place, f64); 2] = [((1, 100), 7.0), ((2, 200), 8.0)];

    fn told() -> Deletions {
        let mut deletions = Deletions::default();
        deletions.begin(&ROWS);
        deletions.decided(&ROWS, &[]).unwrap();
        deletions
    }

    fn read(deletions: &mut Deletions, rows: &[(Place, f64)]) -> Result<(), String> {
        let since = deletions.started();
        let found = rows.iter().copied().collect();
        deletions.shown(&found, since).map_err(|v| v.0)
    }

    fn delete(deletions: &mut Deletions) -> usize {
        deletions.begin_deletion(Chosen {
            series: 1..=1,
            times: 50..=100,
        })
    }

    #[test]
    fn what_was_deleted_is_gone_and_nothing_else() {
        let mut deletions = told();
        assert_eq!(read(&mut deletions, &ROWS), Ok(()));
        assert!(
            read(&mut deletions, &ROWS[1..])
                .unwrap_err()
                .starts_with("lost")
        );
        let number = delete(&mut deletions);
        assert_eq!(read(&mut deletions, &ROWS), Ok(()), "still under way");
        assert_eq!(read(&mut deletions, &ROWS[1..]), Ok(()));
        deletions.deleted(number);
        assert_eq!(deletions.acknowledged(), 1);
        assert_eq!(read(&mut deletions, &ROWS[1..]), Ok(()));
        assert!(
            read(&mut deletions, &ROWS)
                .unwrap_err()
                .starts_with("deleted")
        );
        assert!(read(&mut deletions, &[]).unwrap_err().starts_with("lost"));
    }

    #[test]
    fn a_deletion_takes_nothing_that_comes_behind_it() {
        let mut deletions = Deletions::default();
        let number = delete(&mut deletions);
        deletions.deleted(number);
        deletions.begin(&ROWS);
        deletions.decided(&ROWS, &[]).unwrap();
        assert_eq!(read(&mut deletions, &ROWS), Ok(()));
        assert!(read(&mut deletions, &ROWS[1..]).is_err());
    }

    #[test]
    fn one_without_an_answer_may_come_at_any_time() {
        let mut deletions = Deletions::default();
        delete(&mut deletions);
        deletions.begin(&ROWS);
        deletions.decided(&ROWS, &[]).unwrap();
        assert_eq!(read(&mut deletions, &ROWS), Ok(()));
        assert_eq!(read(&mut deletions, &ROWS[1..]), Ok(()));
    }

    #[test]
    fn nothing_is_invented() {
        let mut deletions = told();
        assert!(read(&mut deletions, &[((9, 9), 1.0)]).is_err());
        assert!(read(&mut deletions, &[(ROWS[0].0, 1.0), ROWS[1]]).is_err());
        let late = [((1, 1), 5.0)];
        deletions.begin(&late);
        let rejected = [Rejection {
            row: 0,
            reason: Reason::TooOld,
        }];
        deletions.decided(&late, &rejected).unwrap();
        assert_eq!(read(&mut deletions, &ROWS), Ok(()));
        assert!(read(&mut deletions, &[late[0], ROWS[0], ROWS[1]]).is_err());
    }
}
