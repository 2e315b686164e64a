//! Where consecutive entries of one group lie on disk: the compact part of every index.
//!
//! What stays true: position `i` belongs to index `first + i`, without gaps.

use std::collections::VecDeque;

use model::NodeId;

use crate::LogId;

/// Where one entry's payload lies, and whose leadership made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub term: u64,
    pub node: NodeId,
    pub segment: u32,
    pub offset: u32,
    pub len: u32,
    pub crc: u32,
}

impl Position {
    /// Behind the last byte of its payload.
    pub fn end(&self) -> u64 {
        u64::from(self.offset) + u64::from(self.len)
    }
}

/// Positions of consecutive entries.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub first: u64,
    pub positions: VecDeque<Position>,
}

impl Run {
    /// One past the last index; `first` when empty.
    pub fn end(&self) -> u64 {
        self.first.saturating_add(self.positions.len() as u64)
    }

    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    pub fn get(&self, index: u64) -> Option<(LogId, Position)> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        let position = *self.positions.get(at)?;
        let id = LogId {
            term: position.term,
            node: position.node,
            index,
        };
        Some((id, position))
    }

    /// The newest entry.
    pub fn last(&self) -> Option<LogId> {
        self.get(self.end().checked_sub(1)?).map(|(id, _)| id)
    }

    /// Adds the entry `index`. What was there at and after it is gone; what does not reach up to
    /// it is gone too, as the run would have a gap.
    pub fn push(&mut self, index: u64, position: Position) {
        self.cut(index);
        if self.end() != index {
            self.positions.clear();
        }
        if self.positions.is_empty() {
            self.first = index;
        }
        self.positions.push_back(position);
    }

    /// Removes entries at and after `from`; returns how many.
    pub fn cut(&mut self, from: u64) -> usize {
        let before = self.positions.len();
        let keep = usize::try_from(from.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.positions.truncate(keep);
        before - self.positions.len()
    }

    /// Removes entries below `first`.
    pub fn drop_below(&mut self, first: u64) {
        let gone = usize::try_from(first.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.positions.drain(..gone.min(self.positions.len()));
        self.first = self.first.max(first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u32) -> Position {
        Position {
            term: 1,
            node: NodeId(1),
            segment: 1,
            offset,
            len: 1,
            crc: 0,
        }
    }

    fn offsets(run: &Run) -> Vec<(u64, u32)> {
        (run.first..run.end())
            .map(|i| (i, run.get(i).unwrap().1.offset))
            .collect()
    }

    #[test]
    fn pushing_overwrites_and_never_leaves_a_gap() {
        let mut run = Run::default();
        for i in 5..10 {
            run.push(i, at(i as u32));
        }
        run.push(7, at(70));
        assert_eq!(offsets(&run), [(5, 5), (6, 6), (7, 70)]);
        run.push(20, at(20));
        assert_eq!(offsets(&run), [(20, 20)]);
        run.push(3, at(3));
        assert_eq!(offsets(&run), [(3, 3)]);
    }

    #[test]
    fn cutting_either_end() {
        let mut run = Run::default();
        assert_eq!((run.cut(0), run.end(), run.last()), (0, 0, None));
        for i in 5..10 {
            run.push(i, at(i as u32));
        }
        assert_eq!(run.cut(9), 1);
        run.drop_below(7);
        assert_eq!(offsets(&run), [(7, 7), (8, 8)]);
        assert_eq!(run.last().map(|id| id.index), Some(8));
        run.drop_below(100);
        assert!(run.is_empty());
        assert_eq!(run.get(7), None);
    }
}
