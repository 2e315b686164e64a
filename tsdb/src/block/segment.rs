//! Asks one segment of a block's index, reading its pages as they are needed.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use model::matcher::MatchOp;
use model::{Labels, Matcher};

use super::finding::{TableSet, first_tables};
use super::index::{IndexPage, SEGMENT_SERIES, Segment};
use super::table::{Decoded, Piece, TABLE_SERIES};
use super::{Among, Reader};
use crate::error::StorageError;
use crate::index::{intersect, subtract};
use crate::select::Turn;

/// A segment, and of which block. Series are told by their places in it.
pub struct OpenSegment<'r> {
    reader: &'r Reader,
    segment: &'r Segment,
    nth: usize,
    /// How many series it tells of.
    series: usize,
}

/// Looking at a page of the index takes about as long as decoding so many samples.
pub const SAMPLES_OF_PAGE: usize = 4 << 10;

/// Places in a segment, ascending.
type Places = Vec<u32>;

impl<'r> OpenSegment<'r> {
    pub fn new(reader: &'r Reader, segment: &'r Segment, nth: usize) -> Self {
        let behind = reader.ids().count() - nth * SEGMENT_SERIES;
        Self {
            reader,
            segment,
            nth,
            series: behind.min(SEGMENT_SERIES),
        }
    }

    /// The place of its first series in the block.
    pub fn first(&self) -> usize {
        self.nth * SEGMENT_SERIES
    }

    pub async fn page(&self, nth: usize) -> Result<Arc<IndexPage>, StorageError> {
        let piece = Piece::IndexPage(self.nth, nth);
        if let Some(Decoded::IndexPage(page)) = self.reader.kept_piece(piece) {
            return Ok(page);
        }
        let (raw, place) = (self.reader.raw(), &self.segment.pages[nth]);
        let bytes = raw.unpack(&place.packed, "index").await?;
        let page = IndexPage::decode(&bytes, self.series as u32);
        let page = page.map_err(|e| raw.corrupt("index", e))?;
        if page.first().as_ref() != Some(&place.first) {
            return Err(raw.corrupt("index", "a page begins with another label"));
        }
        let page = Arc::new(page);
        self.reader
            .keep_piece(piece, Decoded::IndexPage(page.clone()));
        Ok(page)
    }

    /// Which value of which page a label is.
    async fn find(
        &self,
        name: &str,
        value: &str,
    ) -> Result<Option<(Arc<IndexPage>, usize)>, StorageError> {
        for nth in self.segment.pages_of(name, value) {
            let page = self.page(nth).await?;
            if let Some(found) = page.find(name, value) {
                return Ok(Some((page, found)));
            }
        }
        Ok(None)
    }

    /// All of its tables.
    pub fn tables(&self) -> TableSet {
        first_tables(self.series.div_ceil(TABLE_SERIES))
    }

    /// Those of them among which are all that tell of series that have a label.
    pub async fn tables_with(&self, name: &str, value: &str) -> Result<TableSet, StorageError> {
        let Some((page, value)) = self.find(name, value).await? else {
            return Ok(0);
        };
        let (mut tables, all) = (0, self.tables());
        if page.is_long(value) {
            return Ok(all);
        }
        let add = |places: Range<u32>| {
            let (first, last) = (places.start as usize, places.end as usize - 1);
            let before = first_tables(first / TABLE_SERIES);
            tables |= first_tables(last / TABLE_SERIES + 1) & !before;
            tables == all
        };
        page.has_any(value, add).map_err(|e| self.corrupt(e))?;
        Ok(tables)
    }

    /// Series among which are all that have exactly these labels: few, or all in one table.
    pub async fn candidates(&self, labels: &Labels) -> Result<Places, StorageError> {
        let mut found = Vec::new();
        for (name, value) in labels {
            match self.find(name, value).await? {
                Some(value) => found.push(value),
                None => return Ok(Vec::new()),
            }
        }
        found.sort_by_cached_key(|(page, value)| page.weight(*value));
        let mut found = found.iter();
        let Some((page, value)) = found.next() else {
            return Ok((0..self.series as u32).collect());
        };
        let mut places = Vec::new();
        let add = page.add_places(*value, &mut places);
        add.map_err(|e| self.corrupt(e))?;
        for (page, value) in found {
            // Who reads the labels of one reads those of all of its table.
            let table = |place: Option<&u32>| place.map(|place| *place as usize / TABLE_SERIES);
            if table(places.first()) == table(places.last()) {
                break;
            }
            let retain = page.retain(*value, &mut places);
            retain.map_err(|e| self.corrupt(e))?;
        }
        Ok(places)
    }

    /// Those that all `matchers` choose; all when there is none. As [`crate::index::Index::select`].
    pub async fn select(
        &self,
        matchers: &[Matcher],
        turn: &mut Turn,
    ) -> Result<Places, StorageError> {
        let (taking, mut choosing): (Vec<_>, Vec<_>) =
            matchers.iter().partition(|m| m.matches_empty());
        // What is looked up before what is walked to: often there is nothing left to walk for.
        choosing.sort_by_key(|m| m.literals().map_or(usize::MAX, <[String]>::len));
        let mut chosen: Option<Places> = None;
        for matcher in choosing {
            if chosen.as_ref().is_some_and(Vec::is_empty) {
                break;
            }
            let places = self.chosen_by(matcher, turn).await?;
            chosen = Some(match chosen {
                Some(before) => intersect(&before, &places),
                None => places,
            });
        }
        let mut chosen = chosen.unwrap_or_else(|| (0..self.series as u32).collect());
        for matcher in taking {
            if chosen.is_empty() {
                break;
            }
            let places = self.taken_by(matcher, turn).await?;
            chosen = subtract(&chosen, &places);
        }
        Ok(chosen)
    }

    /// Series that a matcher chooses which does not choose the empty text.
    async fn chosen_by(&self, matcher: &Matcher, turn: &mut Turn) -> Result<Places, StorageError> {
        if let Some(literals) = matcher.literals() {
            return self.with_any(&matcher.name, literals, turn).await;
        }
        let wanted = |value: &str| matcher.matches(value);
        let values = (&*matcher.name, matcher.prefix());
        self.union(values, wanted, turn).await
    }

    /// Series that a matcher takes away which chooses the empty text.
    async fn taken_by(&self, matcher: &Matcher, turn: &mut Turn) -> Result<Places, StorageError> {
        if matcher.op == MatchOp::NotEqual && !matcher.value.is_empty() {
            let value = std::slice::from_ref(&matcher.value);
            return self.with_any(&matcher.name, value, turn).await;
        }
        let wanted = |value: &str| !matcher.matches(value);
        self.union((&matcher.name, ""), wanted, turn).await
    }

    /// Series that have any of these values, which are sorted, of a label.
    async fn with_any(
        &self,
        name: &str,
        values: &[String],
        turn: &mut Turn,
    ) -> Result<Places, StorageError> {
        let mut places = Vec::new();
        for value in values {
            if let Some((page, value)) = self.find(name, value).await? {
                let before = places.len();
                self.add_places(&page, value, &mut places)?;
                turn.spend(places.len() - before + SAMPLES_OF_VALUE).await;
            }
        }
        // Ascending runs, which the stable sort finds.
        places.sort();
        Ok(places)
    }

    /// Series whose value of a label begins with a text and satisfies `wanted`.
    async fn union(
        &self,
        (name, prefix): (&str, &str),
        wanted: impl Fn(&str) -> bool + Send,
        turn: &mut Turn,
    ) -> Result<Places, StorageError> {
        let mut places = Vec::new();
        for nth in self.segment.pages_from(name, prefix) {
            let page = self.page(nth).await?;
            for value in page.values_from(name, prefix) {
                let text = page.value(value);
                if !text.starts_with(prefix) {
                    break;
                }
                if wanted(text) {
                    self.add_places(&page, value, &mut places)?;
                }
            }
            turn.spend(SAMPLES_OF_PAGE).await;
        }
        places.sort();
        Ok(places)
    }

    fn add_places(
        &self,
        page: &IndexPage,
        value: usize,
        to: &mut Places,
    ) -> Result<(), StorageError> {
        let added = page.add_places(value, to);
        added.map_err(|e| self.corrupt(e))
    }

    /// Adds the values of a label that any `among` its series has.
    pub async fn add_values(
        &self,
        name: &str,
        among: &Among,
        to: &mut BTreeSet<String>,
        turn: &mut Turn,
    ) -> Result<(), StorageError> {
        for nth in self.segment.pages_from(name, "") {
            let page = self.page(nth).await?;
            for value in page.values_from(name, "") {
                let text = page.value(value);
                if !to.contains(text) && self.meets(&page, value, among)? {
                    to.insert(text.to_owned());
                }
            }
            turn.spend(SAMPLES_OF_PAGE).await;
        }
        Ok(())
    }

    /// Adds the names of labels that any `among` its series has.
    pub async fn add_names(
        &self,
        among: &Among,
        to: &mut BTreeSet<String>,
        turn: &mut Turn,
    ) -> Result<(), StorageError> {
        let mut nth = 0;
        while nth < self.segment.pages.len() {
            let page = self.page(nth).await?;
            for (name, values) in page.names() {
                if to.contains(name) {
                    continue;
                }
                for value in values {
                    if self.meets(&page, value, among)? {
                        to.insert(name.to_owned());
                        break;
                    }
                }
            }
            turn.spend(SAMPLES_OF_PAGE).await;
            nth = match page.names().last() {
                Some((name, _)) if to.contains(name) => self.segment.skip_name(nth, name),
                _ => nth + 1,
            };
        }
        Ok(())
    }

    /// Whether any `among` its series has a value.
    fn meets(&self, page: &IndexPage, value: usize, among: &Among) -> Result<bool, StorageError> {
        let first = self.first();
        let meets = |places: Range<u32>| {
            among.meets(first + places.start as usize..first + places.end as usize)
        };
        page.has_any(value, meets).map_err(|e| self.corrupt(e))
    }

    fn corrupt(&self, reason: impl ToString) -> StorageError {
        self.reader.raw().corrupt("index", reason)
    }
}

/// The same of a value that is looked up.
const SAMPLES_OF_VALUE: usize = 64;
