//! Label sets by number, on one stream of writes: each is told once and named by its number from
//! then on.
//!
//! Numbers count up from zero in the order in which label sets are told, so both sides know them
//! without a word. Promise: what was encoded decodes to the same label sets, given every frame of the
//! stream in order. Memory is bounded on both sides by [`limits::WRITE_DICTIONARY_BYTES_MAX`] and one
//! frame: behind it the teller begins anew, and says so.

use bytes::Bytes;
use model::hash::Map;
use model::kept::kept;
use model::memo::Giver;
use model::{Labels, limits};

use crate::convert::{Malformed, labels_from_wire, labels_to_wire};

/// Of an entry beside its label set's canonical form.
const ENTRY_BYTES: usize = 72;

/// A frame's label sets as they travel.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Named {
    /// Numbers begin at zero again; whatever was told before is forgotten.
    pub anew: bool,
    /// The label sets' numbers, as differences to the one before; the first to zero.
    pub steps: Vec<i32>,
    /// Those without a number so far, in their order.
    pub new: Vec<Bytes>,
}

/// The side that writes.
#[derive(Debug, Default)]
pub struct Teller {
    giver: Giver,
    numbers: Map<Labels, u32>,
    bytes: usize,
}

/// The side that is written to.
#[derive(Debug, Default)]
pub struct Listener {
    labels: Vec<Labels>,
    bytes: usize,
}

impl Teller {
    /// Names the label sets of the stream's next frame.
    pub fn name(&mut self, series: &[Labels]) -> Named {
        let mut named = Named {
            anew: is_full(self.bytes),
            steps: Vec::with_capacity(series.len()),
            new: Vec::new(),
        };
        if named.anew {
            *self = Self::default();
        }
        let mut before = 0;
        for labels in series {
            let number = self.number(labels, &mut named.new);
            named.steps.push(number.wrapping_sub(before) as i32);
            before = number;
        }
        named
    }

    fn number(&mut self, labels: &Labels, new: &mut Vec<Bytes>) -> u32 {
        if let Some(number) = labels.memo(self.giver) {
            return number;
        }
        let next = self.numbers.len() as u32;
        let number = *self.numbers.entry(labels.clone()).or_insert_with(|| {
            self.bytes += size_of_entry(labels);
            new.push(labels_to_wire(labels));
            next
        });
        labels.set_memo(self.giver, number);
        number
    }
}

impl Listener {
    /// The label sets of the stream's next frame. After an error the stream has no meaning any more.
    pub fn resolve(&mut self, named: &Named) -> Result<Vec<Labels>, Malformed> {
        if named.anew {
            *self = Self::default();
        }
        if is_full(self.bytes) {
            return Err(Malformed::new("more label sets than a stream may name"));
        }
        for block in &named.new {
            let labels = kept(labels_from_wire(block)?);
            self.bytes += size_of_entry(&labels);
            self.labels.push(labels);
        }
        let mut number = 0u32;
        let one = |step: &i32| {
            number = number.wrapping_add(*step as u32);
            let labels = self.labels.get(number as usize).cloned();
            labels.ok_or_else(|| Malformed::new(format!("label set {number} was never told")))
        };
        named.steps.iter().map(one).collect()
    }
}

fn size_of_entry(labels: &Labels) -> usize {
    labels.as_canonical().len() + ENTRY_BYTES
}

fn is_full(bytes: usize) -> bool {
    bytes >= limits::WRITE_DICTIONARY_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Some of them one allocation, as a table of known label sets hands them out, some built anew.
    fn frames() -> impl Strategy<Value = Vec<Vec<Labels>>> {
        let shared: Vec<Labels> = (0..8).map(named).collect();
        let labels = (0usize..8, any::<bool>()).prop_map(move |(n, built)| match built {
            true => named(n),
            false => shared[n].clone(),
        });
        prop::collection::vec(prop::collection::vec(labels, 0..6), 0..8)
    }

    fn named(n: usize) -> Labels {
        Labels::from_pairs([("__name__", "up"), ("pod", &format!("{n:0>100}"))])
    }

    proptest! {
        #[test]
        fn label_sets_are_told_once_and_stay_the_same(frames in frames()) {
            let (mut teller, mut listener) = (Teller::default(), Listener::default());
            let mut told = 0;
            for series in &frames {
                let named = teller.name(series);
                told += named.new.len();
                prop_assert_eq!(&listener.resolve(&named).unwrap(), series);
            }
            let mut distinct: Vec<&Labels> = frames.iter().flatten().collect();
            distinct.sort();
            distinct.dedup();
            prop_assert_eq!(told, distinct.len());
        }

        #[test]
        fn arbitrary_frames_are_an_error_or_an_answer(
            anew in any::<bool>(),
            steps in prop::collection::vec(any::<i32>(), 0..4),
            new in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..8), 0..3),
        ) {
            let new = new.into_iter().map(Bytes::from).collect();
            let _ = Listener::default().resolve(&Named { anew, steps, new });
        }
    }

    #[test]
    fn two_streams_do_not_share_their_numbers() {
        let (mut one, mut other) = (Teller::default(), Teller::default());
        let (a, b) = (named(1), named(2));
        one.name(&[a.clone(), b.clone()]);
        let named = other.name(&[b.clone(), a.clone()]);
        assert_eq!((&named.steps[..], named.new.len()), (&[0, 1][..], 2));
        let again = one.name(&[b, a]);
        assert_eq!((&again.steps[..], again.new.len()), (&[1, -1][..], 0));
    }

    #[test]
    fn a_full_dictionary_begins_anew() {
        let (mut teller, mut listener) = (Teller::default(), Listener::default());
        let long =
            |n: usize| Labels::from_pairs([("pod", &format!("{n}{}", "x".repeat(1_000_000)))]);
        let frames = 2 * limits::WRITE_DICTIONARY_BYTES_MAX / 1_000_000;
        let mut beginnings = 0;
        for n in 0..frames {
            let series = [long(n), long(0)];
            let named = teller.name(&series);
            beginnings += usize::from(named.anew);
            assert_eq!(listener.resolve(&named).unwrap(), series);
        }
        assert!((1..=2).contains(&beginnings), "{beginnings}");
        assert!(listener.bytes < limits::WRITE_DICTIONARY_BYTES_MAX + 3_000_000);
        let boundless = Named {
            anew: false,
            ..teller.name(&[long(1)])
        };
        listener.bytes = limits::WRITE_DICTIONARY_BYTES_MAX;
        assert!(listener.resolve(&boundless).is_err());
    }
}
