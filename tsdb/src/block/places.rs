//! Which series of an index segment have a label: their places in it, ascending, as runs of neighbours.
//!
//! Series of one target get their ids one after the other, so most labels stand on few long runs; what repeats
//! otherwise, as the distance between series of one metric does, zstd finds. A run is
//!
//! ```text
//! varint   (places left out since the run before and one more, which ends it) * 2, plus 1 if it is of several
//! varint   of several: how many, less two
//! ```

use std::ops::Range;

use crate::fields::{Fields, Malformed, put_varint};

/// Places being put together.
#[derive(Debug, Default)]
pub struct Builder {
    /// Of all runs but the last one.
    bytes: Vec<u8>,
    /// The first place that the last run may begin at.
    from: u32,
    last: Range<u32>,
}

impl Builder {
    /// Adds places above all others, not none.
    pub fn push(&mut self, places: Range<u32>) {
        match self.last.end == places.start && !self.last.is_empty() {
            true => self.last.end = places.end,
            false => {
                self.put_last();
                self.last = places;
            }
        }
    }

    fn put_last(&mut self) {
        let (several, last) = (self.last.len() > 1, &self.last);
        if last.is_empty() {
            return;
        }
        let left_out = u64::from(last.start - self.from);
        put_varint(&mut self.bytes, left_out << 1 | u64::from(several));
        if several {
            put_varint(&mut self.bytes, last.len() as u64 - 2);
        }
        self.from = last.end + 1;
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.put_last();
        self.bytes
    }
}

/// The runs of places in a segment of so many series.
pub fn runs(bytes: &[u8], series: u32) -> impl Iterator<Item = Result<Range<u32>, Malformed>> {
    let (mut fields, mut from) = (Fields::new(bytes), 0);
    std::iter::from_fn(move || {
        if fields.is_empty() {
            return None;
        }
        let run = take_run(&mut fields, from, series);
        match &run {
            Ok(run) => from = run.end + 1,
            Err(_) => fields = Fields::new(&[]),
        }
        Some(run)
    })
}

fn take_run(fields: &mut Fields<'_>, from: u32, series: u32) -> Result<Range<u32>, Malformed> {
    let word = fields.short_varint()?;
    let len = match word & 1 {
        0 => 1,
        _ => fields.short_varint()?.saturating_add(2),
    };
    let start = u64::from(from) + (word >> 1);
    match start.checked_add(len) {
        Some(end) if end <= u64::from(series) => Ok(start as u32..end as u32),
        _ => Err(Malformed("a place that no series has")),
    }
}

/// Adds all places, as long as there are not more than `most` then: no label has two values.
pub fn add_all(bytes: &[u8], series: u32, most: u32, to: &mut Vec<u32>) -> Result<(), Malformed> {
    for run in runs(bytes, series) {
        let run = run?;
        if to.len() + run.len() > most as usize {
            return Err(Malformed("more places than there are series"));
        }
        to.extend(run);
    }
    Ok(())
}

/// Keeps those of `places`, which ascend, that are among these.
pub fn retain(bytes: &[u8], series: u32, places: &mut Vec<u32>) -> Result<(), Malformed> {
    let (mut runs, mut damage) = (runs(bytes, series), None);
    let mut run = 0..0;
    places.retain(|place| {
        while run.end <= *place {
            match runs.next() {
                Some(Ok(next)) => run = next,
                end => {
                    damage = damage.take().or(end.and_then(Result::err));
                    return false;
                }
            }
        }
        run.contains(place)
    });
    damage.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SERIES: u32 = 400;

    fn coded(places: &[u32]) -> Vec<u8> {
        let mut builder = Builder::default();
        places.iter().for_each(|at| builder.push(*at..*at + 1));
        builder.finish()
    }

    fn places() -> impl Strategy<Value = Vec<u32>> {
        let runs = prop::collection::btree_set(0..SERIES, 1..40);
        let many = prop::collection::vec(any::<bool>(), SERIES as usize);
        let many = many.prop_map(|is_in| (0..SERIES).filter(|at| is_in[*at as usize]).collect());
        prop_oneof![runs.prop_map(|set| set.into_iter().collect()), many]
    }

    proptest! {
        #[test]
        fn places_come_back(some in places(), others in places()) {
            let bytes = coded(&some);
            let mut found = Vec::new();
            add_all(&bytes, SERIES, SERIES, &mut found).unwrap();
            prop_assert_eq!(&found, &some);
            let mut kept = others.clone();
            retain(&bytes, SERIES, &mut kept).unwrap();
            let both: Vec<u32> = others.into_iter().filter(|at| some.contains(at)).collect();
            prop_assert_eq!(kept, both);
            if let Some(last) = some.last() {
                prop_assert!(add_all(&bytes, *last, SERIES, &mut Vec::new()).is_err());
                prop_assert!(add_all(&bytes, SERIES, some.len() as u32 - 1, &mut Vec::new()).is_err());
            }
        }

        #[test]
        fn arbitrary_bytes_stay_in_bounds(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut found = Vec::new();
            if add_all(&bytes, SERIES, SERIES, &mut found).is_ok() {
                prop_assert!(found.is_sorted_by(|a, b| a < b));
                prop_assert!(found.iter().all(|at| *at < SERIES));
            }
            let mut all: Vec<u32> = (0..SERIES).collect();
            let _ = retain(&bytes, SERIES, &mut all);
        }
    }

    #[test]
    fn one_run_is_a_few_bytes_however_long() {
        assert_eq!(coded(&(0..400).collect::<Vec<_>>()), [1, 142 | 128, 3]);
        assert_eq!(coded(&[0]), [0]);
        assert_eq!(coded(&[5, 7, 8]), [10, 1, 0]);
    }
}
