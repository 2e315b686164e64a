//! A number remembered beside what it was given to.
//!
//! Whoever numbers many things and is asked for the same ones over and over (a table of series, a
//! stream to a peer) is a [`Giver`]. A thing has room for one number; a giver finds the one that it
//! gave itself, or none. Nothing is decided by a memo: it only spares looking up what is known.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Somebody who gives numbers; no two of a process are the same.
///
/// What a giver said of a thing must be true for as long as it is asked: who forgets its numbers
/// or starts again takes a new `Giver`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Giver(u32);

/// A giver whose numbers are not remembered.
const NOBODY: u32 = 0;

static GIVERS: AtomicU32 = AtomicU32::new(NOBODY);

impl Giver {
    pub fn new() -> Self {
        let next = |last: u32| last.checked_add(1);
        let last = GIVERS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        Self(last.map_or(NOBODY, |last| last + 1))
    }
}

impl Default for Giver {
    fn default() -> Self {
        Self::new()
    }
}

/// Room for a number and who gave it. Both in one word, so that they are never mixed up.
#[derive(Debug, Default)]
pub(crate) struct Memo(AtomicU64);

impl Memo {
    pub fn get(&self, giver: Giver) -> Option<u32> {
        let word = self.0.load(Ordering::Relaxed);
        (giver.0 != NOBODY && (word >> 32) as u32 == giver.0).then_some(word as u32)
    }

    pub fn set(&self, giver: Giver, number: u32) {
        let word = u64::from(giver.0) << 32 | u64::from(number);
        self.0.store(word, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_giver_finds_its_own_number_only() {
        let (a, b) = (Giver::new(), Giver::new());
        let memo = Memo::default();
        assert_eq!(memo.get(a), None);
        memo.set(a, 0);
        assert_eq!((memo.get(a), memo.get(b)), (Some(0), None));
        memo.set(b, u32::MAX);
        assert_eq!((memo.get(a), memo.get(b)), (None, Some(u32::MAX)));
        memo.set(Giver(NOBODY), 7);
        assert_eq!(memo.get(Giver(NOBODY)), None);
    }
}
