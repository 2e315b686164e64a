//! One file's bytes: which are on the medium, which only in the page cache.
//!
//! Knows neither names nor handles. The file as readers see it is `data`; the file as a power cut
//! would certainly leave it is `data[..floor]` followed by `cut`, with `holes` read as zeros.

use std::ops::Range;

use model::port::Dice;

use crate::SimDice;

/// What a power cut may tear a write into.
const SECTOR_BYTES: usize = 512;

/// Invariants: `floor <= data.len()`; holes are ascending, disjoint and inside `data`.
#[derive(Debug, Default, Clone)]
pub(super) struct Content {
    data: Vec<u8>,
    /// The front of `data` that is the same on the medium.
    floor: usize,
    /// Durable bytes from `floor` on that an unflushed truncation took away.
    cut: Vec<u8>,
    /// Parts of `data` that a failed flush marked clean without writing them.
    holes: Vec<Range<usize>>,
}

impl Content {
    pub(super) fn data(&self) -> &[u8] {
        &self.data
    }

    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.data.extend_from_slice(bytes);
    }

    pub(super) fn truncate(&mut self, len: usize) {
        assert!(len <= self.data.len(), "a truncation never grows a file");
        if len < self.floor {
            let mut taken = self.on_medium(len..self.floor);
            taken.append(&mut self.cut);
            self.cut = taken;
            self.floor = len;
        }
        self.data.truncate(len);
        self.holes.retain_mut(|hole| {
            hole.end = hole.end.min(len);
            hole.start < hole.end
        });
    }

    pub(super) fn flush(&mut self) {
        self.floor = self.data.len();
        self.cut.clear();
    }

    /// The system reports the error once, calls the pages clean and goes on showing them; they
    /// never reach the medium, whatever later flushes say.
    pub(super) fn fail_flush(&mut self) {
        let from = self
            .holes
            .last()
            .map_or(self.floor, |h| h.end.max(self.floor));
        if from < self.data.len() {
            self.holes.push(from..self.data.len());
        }
    }

    /// Bytes at the front that no power cut can take.
    pub(super) fn durable_len(&self) -> usize {
        self.holes
            .first()
            .map_or(self.floor, |h| h.start.min(self.floor))
    }

    /// Rots one bit, in the cache and on the medium.
    pub(super) fn flip(&mut self, offset: usize, bit: u8) {
        self.data[offset] ^= 1 << bit;
    }

    /// Settles what a power cut leaves, by the dice. Afterwards all of it is durable.
    pub(super) fn settle(&mut self, dice: &SimDice) {
        let appended = self.on_medium(self.floor..self.data.len());
        let mut left = self.on_medium(0..self.floor);
        if self.cut.is_empty() {
            left.extend(torn(&appended, dice));
        } else {
            left.extend(half_truncated(&self.cut, &appended, dice));
        }
        *self = Self {
            floor: left.len(),
            data: left,
            ..Self::default()
        };
    }

    /// Bytes of `data` as they would be read from the medium had they been written there.
    fn on_medium(&self, range: Range<usize>) -> Vec<u8> {
        let mut bytes = self.data[range.clone()].to_vec();
        for hole in &self.holes {
            let start = hole.start.clamp(range.start, range.end);
            let end = hole.end.clamp(range.start, range.end);
            bytes[start - range.start..end - range.start].fill(0);
        }
        bytes
    }
}

/// A file whose truncation was not flushed: it happened, or it did not, or the bytes written after
/// it landed over the old ones while the old length stayed.
fn half_truncated(old: &[u8], appended: &[u8], dice: &SimDice) -> Vec<u8> {
    match dice.below(3) {
        0 => old.to_vec(),
        1 => torn(appended, dice),
        _ => {
            let mut mixed = old.to_vec();
            let landed = dice.up_to(appended.len().min(old.len()));
            mixed[..landed].copy_from_slice(&appended[..landed]);
            mixed
        }
    }
}

/// What is left of an append that was not flushed.
fn torn(appended: &[u8], dice: &SimDice) -> Vec<u8> {
    let mut left = appended.to_vec();
    let landed = dice.up_to(left.len());
    match dice.below(6) {
        0 => left.clear(),
        1 => {}
        2 => left.truncate(landed),
        // The length was written before the bytes.
        3 => left[landed..].fill(0),
        // The length was written; the blocks hold what was there before.
        4 => left[landed..]
            .iter_mut()
            .for_each(|byte| *byte = dice.roll() as u8),
        // Sectors reached the medium in any order.
        _ => {
            for sector in left.chunks_mut(SECTOR_BYTES) {
                if dice.one_in(2) {
                    sector.fill(0);
                }
            }
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flushed(bytes: &[u8]) -> Content {
        let mut content = Content::default();
        content.append(bytes);
        content.flush();
        content
    }

    /// Every outcome that a thousand seeds find.
    fn outcomes(content: &Content) -> std::collections::BTreeSet<Vec<u8>> {
        (0..1000)
            .map(|seed| {
                let mut content = content.clone();
                content.settle(&SimDice::new(seed));
                assert_eq!(content.durable_len(), content.data().len());
                content.data().to_vec()
            })
            .collect()
    }

    #[test]
    fn flushed_bytes_stay_and_appended_ones_may_tear() {
        let mut content = flushed(b"safe");
        assert_eq!(outcomes(&content).len(), 1);
        content.append(b"risk");
        let outcomes = outcomes(&content);
        assert!(outcomes.iter().all(|o| o.starts_with(b"safe")));
        for expected in [&b"safe"[..], b"saferisk", b"saferi", b"saferi\0\0"] {
            assert!(outcomes.contains(expected), "{expected:?}");
        }
        assert!(
            outcomes
                .iter()
                .any(|o| o.len() == 8 && o[6..] != *b"sk" && o[6..] != [0, 0])
        );
    }

    #[test]
    fn an_unflushed_truncation_may_not_have_happened() {
        let mut content = flushed(b"headtail");
        content.truncate(4);
        assert_eq!(content.durable_len(), 4);
        let expected = [b"head".to_vec(), b"headtail".to_vec()];
        assert_eq!(outcomes(&content), expected.into());
        content.append(b"NEW");
        let outcomes_after = outcomes(&content);
        for expected in [
            &b"headtail"[..],
            b"head",
            b"headNEW",
            b"headNEWl",
            b"headNail",
        ] {
            assert!(outcomes_after.contains(expected), "{expected:?}");
        }
        content.flush();
        assert_eq!(outcomes(&content), [b"headNEW".to_vec()].into());
    }

    #[test]
    fn a_failed_flush_loses_its_bytes_even_when_the_next_one_succeeds() {
        let mut content = flushed(b"one");
        content.append(b"two");
        content.fail_flush();
        content.append(b"three");
        content.flush();
        assert_eq!(content.data(), b"onetwothree");
        assert_eq!(content.durable_len(), 3);
        assert_eq!(outcomes(&content), [b"one\0\0\0three".to_vec()].into());
    }
}
