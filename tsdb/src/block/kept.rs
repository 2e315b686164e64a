//! Columns of a block that questions wanted lately, coded as they stand in their pages.
//!
//! Series stand in a block by id, so those of one metric are spread over all of its pages, and a
//! question about them reads a page for the few bytes that it wants of it. Who asks it again, as a
//! dashboard does, finds them here. Bounded; of a page of which much is wanted nothing is kept.

use model::hash::Map;
use model::limits::BLOCK_COLUMNS_KEPT_BYTES;

use super::page::{Coded, Page};
use crate::fields::Malformed;

/// Of a page's columns one of so many, at most, may be wanted: otherwise it is read again.
const WANTED_OF: usize = 4;
/// Of a block's bytes one of so many, at most, is kept.
const BYTES_OF: u64 = 8;
/// What a column takes beside its bytes.
const COLUMN_BYTES: usize = 96;

/// By where the page begins and the slot in it.
#[derive(Debug)]
pub struct Kept {
    columns: Map<(u64, u16), Coded>,
    bytes: usize,
    bytes_max: usize,
}

impl Kept {
    /// Of a block of so many bytes.
    pub fn of_block(len: u64) -> Self {
        let share = usize::try_from(len / BYTES_OF).unwrap_or(usize::MAX);
        Self {
            columns: Map::default(),
            bytes: 0,
            bytes_max: share.min(BLOCK_COLUMNS_KEPT_BYTES),
        }
    }

    /// A page of these slots alone, which ascend, if all of them are kept.
    pub fn page(&self, offset: u64, slots: &[u16]) -> Option<Page> {
        let column = |&slot: &u16| Some((slot, self.columns.get(&(offset, slot))?));
        let columns = slots.iter().map(column).collect::<Option<Vec<_>>>()?;
        Some(Page::of(&columns))
    }

    /// Keeps these slots of a page. What was kept goes, all at once, when there is no room.
    pub fn keep(&mut self, offset: u64, slots: &[u16], page: &Page) -> Result<(), Malformed> {
        if slots.len() * WANTED_OF > page.columns() {
            return Ok(());
        }
        for &slot in slots {
            let column = page.coded_column(slot)?;
            let bytes = COLUMN_BYTES + column.bytes();
            if bytes > self.bytes_max {
                continue;
            }
            if self.bytes + bytes > self.bytes_max {
                self.columns.clear();
                self.bytes = 0;
            }
            let before = self.columns.insert((offset, slot), column);
            self.bytes += bytes;
            self.bytes -= before.map_or(0, |before| COLUMN_BYTES + before.bytes());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use model::Timestamp;

    use super::super::page::Builder;
    use super::*;
    use crate::chunk::Point;

    fn page(columns: i64) -> Page {
        let mut builder = Builder::default();
        for column in 0..columns {
            let point =
                |at: i64| Point::new(Timestamp(at * 15_000 + column % 3), (at * column) as f64);
            builder.add(&(0..100).map(point).collect::<Vec<_>>());
        }
        Page::open(builder.finish().unwrap()).unwrap()
    }

    #[test]
    fn what_is_kept_reads_as_the_page_did() {
        let (page, mut kept) = (page(64), Kept::of_block(1 << 20));
        kept.keep(8, &[3, 5, 60], &page).unwrap();
        assert!(kept.page(8, &[3, 4]).is_none() && kept.page(9, &[3]).is_none());
        let few = kept.page(8, &[3, 5, 60]).unwrap();
        for slot in [3, 5, 60] {
            assert!(few.has(slot));
            assert_eq!(few.points(slot).unwrap(), page.points(slot).unwrap());
        }
        assert!(!few.has(4) && few.points(4).is_err());
        let together = Page::values_together([(&few, 3), (&page, 60)]).unwrap();
        assert_eq!(
            together,
            [page.values(3).unwrap(), page.values(60).unwrap()]
        );
    }

    #[test]
    fn no_more_is_kept_than_the_bound_says() {
        let (page, mut kept) = (page(64), Kept::of_block(8 << 10));
        for slot in (0..64).cycle().take(200) {
            kept.keep(8, &[slot], &page).unwrap();
            let held: usize = kept
                .columns
                .values()
                .map(|c| COLUMN_BYTES + c.bytes())
                .sum();
            assert_eq!(kept.bytes, held);
            assert!(held <= 1 << 10);
            assert!(kept.page(8, &[slot]).is_some());
        }
    }

    #[test]
    fn of_a_page_that_is_wanted_nothing_is_kept() {
        let (page, mut kept) = (page(11), Kept::of_block(1 << 20));
        kept.keep(8, &[0, 1, 2], &page).unwrap();
        assert!(kept.columns.is_empty());
        let empty = Kept::of_block(0).page(8, &[]);
        assert_eq!(empty.map(|page| page.columns()), Some(0));
    }
}
