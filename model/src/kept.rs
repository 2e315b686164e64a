//! Label sets that are kept for long stand in memory once, however many keep them.
//!
//! A series' label set is kept by the cache of an edge, by the register of its shard and by the
//! streams between nodes, and each of them reads it from bytes of its own. Whoever keeps one asks
//! here first whether it is there already. It makes no difference to what anybody computes: equal
//! label sets are equal wherever they stand. Only their memos are then shared.
//!
//! What nobody else keeps is forgotten from time to time: what is held here is at most a quarter
//! more than what is kept, and a few.

use std::sync::{LazyLock, Mutex};

use crate::Labels;
use crate::hash::Set;

/// Parts that are locked each for itself.
const PARTS: usize = 16;
/// Label sets that may come to a part, whatever it holds, before it is looked through.
const FEW: usize = 64;

static KEPT: LazyLock<[Mutex<Kept>; PARTS]> = LazyLock::new(Default::default);

/// The one of the label sets equal to `labels` that is kept: `labels` itself if it is the first.
pub fn kept(labels: Labels) -> Labels {
    let part = labels.hash(0) as usize % PARTS;
    KEPT[part].lock().expect(NO_PANIC).take(labels)
}

const NO_PANIC: &str = "no panic under this lock";

/// Invariant: there are no more than `most` of them.
#[derive(Debug, Default)]
struct Kept {
    labels: Set<Labels>,
    most: usize,
}

impl Kept {
    fn take(&mut self, labels: Labels) -> Labels {
        if let Some(known) = self.labels.get(&labels) {
            return known.clone();
        }
        if self.labels.len() >= self.most {
            self.forget();
        }
        self.labels.insert(labels.clone());
        labels
    }

    /// Those that nobody else keeps. Nobody can begin to meanwhile: they would be given from here.
    fn forget(&mut self) {
        self.labels.retain(Labels::is_shared);
        self.most = self.labels.len() + self.labels.len() / 4 + FEW;
        self.labels.shrink_to(self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(n: usize) -> Labels {
        Labels::from_pairs([("__name__", "kept"), ("n", &n.to_string())])
    }

    #[test]
    fn equal_label_sets_become_one() {
        let mut kept = Kept::default();
        let first = kept.take(named(1));
        let again = kept.take(named(1));
        assert!(again.is_clone_of(&first));
        assert_eq!(kept.take(named(2)), named(2));
        assert!(super::kept(named(3)).is_clone_of(&super::kept(named(3))));
    }

    #[test]
    fn what_nobody_keeps_is_forgotten() {
        let mut kept = Kept::default();
        let held: Vec<Labels> = (0..1_000).map(|n| kept.take(named(n))).collect();
        (1_000..9_000).for_each(|n| drop(kept.take(named(n))));
        assert!(kept.labels.len() <= 1_250 + FEW, "{}", kept.labels.len());
        assert!(kept.labels.capacity() < 4_000);
        let same = |(n, labels): (usize, &Labels)| kept.take(named(n)).is_clone_of(labels);
        assert!(held.iter().enumerate().all(same));
    }
}
