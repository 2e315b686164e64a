//! The set of samples: what was attempted, acknowledged, refused and seen.
//!
//! Each place, a series at an instant, is a register that is written once. Values tell who wrote
//! them, so a value that nobody attempted is recognised on sight.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use model::sink::{Reason, Rejection};

use super::{Violation, violation};

/// A series, by its number in the workload, at an instant in milliseconds.
pub type Place = (u32, i64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not answered, or answered with "unknown": stored or not, now or later.
    Open,
    Stored,
    /// Will never be visible.
    Refused,
}

#[derive(Debug)]
struct Attempt {
    value: u64,
    state: State,
}

#[derive(Debug, Default)]
struct Cell {
    attempts: Vec<Attempt>,
    /// The value that somebody was told or shown, and the event by which it was.
    known: Option<(u64, u64)>,
}

/// A write under way.
#[derive(Debug)]
pub struct Write {
    /// By row: the place and which of its attempts this is.
    rows: Vec<(Place, usize)>,
}

/// Everything that happened to samples so far.
#[derive(Debug, Default)]
pub struct Samples {
    cells: BTreeMap<Place, Cell>,
    event: u64,
    stored: u64,
    refused: u64,
    /// What is older may have gone with its age, and its place be written anew.
    pub kept_from: i64,
}

impl Samples {
    /// Rows told to be stored, and rows told to be refused.
    pub fn counts(&self) -> (u64, u64) {
        (self.stored, self.refused)
    }

    pub fn is_taken(&self, place: Place) -> bool {
        self.cells.contains_key(&place)
    }

    /// A write of `rows` is about to be sent.
    pub fn begin(&mut self, rows: impl IntoIterator<Item = (Place, f64)>) -> Write {
        self.event += 1;
        let rows = rows.into_iter().map(|(place, value)| {
            let attempts = &mut self.cells.entry(place).or_default().attempts;
            attempts.push(Attempt {
                value: value.to_bits(),
                state: State::Open,
            });
            (place, attempts.len() - 1)
        });
        Write {
            rows: rows.collect(),
        }
    }

    /// The store decided every row of `write`.
    pub fn decided(&mut self, write: &Write, rejected: &[Rejection]) -> Result<(), Violation> {
        self.event += 1;
        let mut rejected = rejected.iter().peekable();
        for (row, &(place, attempt)) in write.rows.iter().enumerate() {
            match rejected.next_if(|rejection| rejection.row as usize == row) {
                None => self.row_stored(place, attempt)?,
                Some(rejection) => self.row_refused(place, attempt, rejection.reason)?,
            }
        }
        match rejected.next() {
            None => Ok(()),
            Some(r) => violation(format!("a rejection names row {} out of order", r.row)),
        }
    }

    /// The store promised that nothing of `write` was taken.
    pub fn not_taken(&mut self, write: &Write) {
        self.event += 1;
        for &(place, attempt) in &write.rows {
            self.cell(place).attempts[attempt].state = State::Refused;
        }
    }

    /// The mark a read takes before it is sent.
    pub fn started(&mut self) -> u64 {
        self.event += 1;
        self.event
    }

    /// A read of these series returned `found`, which must hold what was known at the event
    /// `since`.
    pub fn shown(
        &mut self,
        series: &RangeInclusive<u32>,
        found: &BTreeMap<Place, f64>,
        since: Option<u64>,
    ) -> Result<(), Violation> {
        self.event += 1;
        for (&place, value) in found {
            self.row_shown(place, value.to_bits())?;
        }
        let Some(since) = since else { return Ok(()) };
        let chosen = (*series.start(), i64::MIN)..=(*series.end(), i64::MAX);
        let missing = self
            .cells
            .range(chosen)
            .filter(|(place, _)| place.1 >= self.kept_from)
            .find(|(place, cell)| is_known_at(cell, since) && !found.contains_key(place));
        match missing {
            None => Ok(()),
            Some((place, cell)) => violation(format!(
                "lost: {place:?}, known at {since}, is missing from a read: {cell:?}"
            )),
        }
    }

    fn cell(&mut self, place: Place) -> &mut Cell {
        self.cells.get_mut(&place).expect("begun before it ended")
    }

    fn row_stored(&mut self, place: Place, attempt: usize) -> Result<(), Violation> {
        let event = self.event;
        let is_aged = place.1 < self.kept_from;
        self.stored += 1;
        let cell = self.cell(place);
        let value = cell.attempts[attempt].value;
        cell.attempts[attempt].state = State::Stored;
        match cell.known {
            Some((_, known)) if known != value && !is_aged => violation(format!(
                "two values: {place:?} was acknowledged as {value:x}, but is {known:x}: {cell:?}"
            )),
            Some((_, known)) if known == value => Ok(()),
            _ => {
                cell.known = Some((event, value));
                Ok(())
            }
        }
    }

    fn row_refused(
        &mut self,
        place: Place,
        attempt: usize,
        reason: Reason,
    ) -> Result<(), Violation> {
        self.refused += 1;
        let is_aged = place.1 < self.kept_from;
        let cell = self.cell(place);
        let value = cell.attempts[attempt].value;
        if cell.known.is_some_and(|(_, known)| known == value) && !is_aged {
            return violation(format!(
                "{place:?} is stored, its resend met {reason:?}: {cell:?}"
            ));
        }
        let rival = cell
            .attempts
            .iter()
            .any(|a| a.value != value && a.state != State::Refused);
        match reason {
            Reason::Duplicate if !rival => {
                return violation(format!(
                    "{place:?} refused for a value nobody wrote: {cell:?}"
                ));
            }
            Reason::Duplicate | Reason::TooOld | Reason::OutOfOrder => {}
            Reason::TooNew
            | Reason::Fenced
            | Reason::BadLabels
            | Reason::BadHistogram
            | Reason::SeriesLimit => {
                return violation(format!("{place:?} refused as {reason:?} without a cause"));
            }
        }
        // The place is taken by another value, or has left the window, for good: an earlier send
        // of this value that is still on its way meets the same.
        for same in cell.attempts.iter_mut().filter(|a| a.value == value) {
            same.state = State::Refused;
        }
        Ok(())
    }

    fn row_shown(&mut self, place: Place, value: u64) -> Result<(), Violation> {
        let event = self.event;
        let is_aged = place.1 < self.kept_from;
        let Some(cell) = self.cells.get_mut(&place) else {
            return violation(format!("phantom: nobody wrote anything at {place:?}"));
        };
        let possible = |a: &Attempt| a.value == value && (a.state != State::Refused || is_aged);
        if !cell.attempts.iter().any(possible) {
            return violation(format!("phantom: {value:x} at {place:?}: {cell:?}"));
        }
        match cell.known {
            Some((_, known)) if known != value && !is_aged => violation(format!(
                "two values: {place:?} shows {value:x}, was {known:x}: {cell:?}"
            )),
            Some((_, known)) if known == value => Ok(()),
            _ => {
                cell.known = Some((event, value));
                Ok(())
            }
        }
    }
}

fn is_known_at(cell: &Cell, event: u64) -> bool {
    cell.known.is_some_and(|(since, _)| since <= event)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = (0, 1_000);

    /// Checks a read of everything that found `value` at the only place there is.
    fn read(samples: &mut Samples, value: Option<f64>, since: Option<u64>) -> Option<String> {
        let found = value.map(|value| (PLACE, value)).into_iter().collect();
        samples.shown(&(0..=9), &found, since).err().map(|v| v.0)
    }

    fn rejected(reason: Reason) -> [Rejection; 1] {
        [Rejection { row: 0, reason }]
    }

    #[test]
    fn what_was_acknowledged_must_be_shown() {
        let mut samples = Samples::default();
        let early = samples.started();
        let write = samples.begin([(PLACE, 1.0)]);
        let open = samples.started();
        assert_eq!(read(&mut samples, None, Some(open)), None);
        samples.decided(&write, &[]).unwrap();
        assert_eq!(read(&mut samples, None, Some(early)), None);
        let late = samples.started();
        assert_eq!(read(&mut samples, Some(1.0), Some(late)), None);
        assert_eq!(read(&mut samples, None, None), None, "may be stale");
        let lost = read(&mut samples, None, Some(late)).unwrap();
        assert!(lost.starts_with("lost"), "{lost}");
    }

    #[test]
    fn what_was_seen_must_stay() {
        let mut samples = Samples::default();
        samples.begin([(PLACE, 1.0)]);
        let first = samples.started();
        assert_eq!(read(&mut samples, Some(1.0), Some(first)), None);
        let again = samples.started();
        assert!(read(&mut samples, None, Some(again)).is_some());
    }

    #[test]
    fn nothing_is_invented() {
        let mut samples = Samples::default();
        assert!(
            read(&mut samples, Some(1.0), None).is_some(),
            "nobody wrote"
        );
        let write = samples.begin([(PLACE, 1.0)]);
        assert!(
            read(&mut samples, Some(1.5), None).is_some(),
            "another value"
        );
        samples.not_taken(&write);
        assert!(read(&mut samples, Some(1.0), None).is_some(), "not taken");
    }

    #[test]
    fn a_place_has_one_value() {
        let mut samples = Samples::default();
        let one = samples.begin([(PLACE, 1.0)]);
        let two = samples.begin([(PLACE, 2.0)]);
        samples.decided(&one, &[]).unwrap();
        assert!(samples.decided(&two, &[]).is_err());
        assert!(read(&mut samples, Some(2.0), None).is_some());
    }

    #[test]
    fn a_refused_value_never_shows() {
        let mut samples = Samples::default();
        samples.begin([(PLACE, 1.0)]);
        let resend = samples.begin([(PLACE, 1.0)]);
        samples.decided(&resend, &rejected(Reason::TooOld)).unwrap();
        assert!(read(&mut samples, Some(1.0), None).is_some());
    }

    #[test]
    fn a_refusal_needs_a_cause() {
        let mut samples = Samples::default();
        let alone = samples.begin([(PLACE, 1.0)]);
        assert!(
            samples
                .decided(&alone, &rejected(Reason::Duplicate))
                .is_err()
        );
        assert!(samples.decided(&alone, &rejected(Reason::Fenced)).is_err());
        samples.begin([(PLACE, 2.0)]);
        samples
            .decided(&alone, &rejected(Reason::Duplicate))
            .unwrap();
    }

    #[test]
    fn a_resend_of_what_is_stored_is_never_refused() {
        let mut samples = Samples::default();
        let first = samples.begin([(PLACE, 1.0)]);
        samples.decided(&first, &[]).unwrap();
        let resend = samples.begin([(PLACE, 1.0)]);
        assert!(samples.decided(&resend, &rejected(Reason::TooOld)).is_err());
    }
}
