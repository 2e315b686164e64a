//! Which series of a block have which label (docs/format/block.md): for every [`SEGMENT_SERIES`] of them names and
//! values, sorted, with the places of the series that have them, cut into pages that are read one by one.

use std::collections::{BTreeMap, btree_map};
use std::ops::Range;

use model::Labels;
use model::hash::Map;

use super::directory::Packed;
use super::page::{put_ints, take_ints};
use super::places;
use super::table::TABLE_SERIES;
use crate::fields::{Fields, Malformed, put_bytes, put_varint};

/// Stretches whose series a segment tells of; a place among them has 16 bits. Tests have segments of fewer.
pub const SEGMENT_STRETCHES: usize = if cfg!(test) { 2 } else { 64 };
pub const SEGMENT_SERIES: usize = SEGMENT_STRETCHES * TABLE_SERIES;

/// A page is cut once its names, values and places have so many bytes, and holds one entry at least.
const PAGE_BYTES: usize = if cfg!(test) { 300 } else { 16 << 10 };
/// What a directory says of the name and of the value that a page begins with: no more than so many bytes.
const KEY_BYTES_MAX: usize = if cfg!(test) { 9 } else { 128 };

/// The front of a name and of a value. Those of two labels are in the order of the labels, or equal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    name: Box<[u8]>,
    /// Nothing where the name is cut off.
    value: Box<[u8]>,
}

impl Key {
    pub fn of(name: &[u8], value: &[u8]) -> Self {
        let front = |text: &[u8]| text[..text.len().min(KEY_BYTES_MAX)].into();
        let name: Box<[u8]> = front(name);
        let value = match name.len() {
            KEY_BYTES_MAX => [].into(),
            _ => front(value),
        };
        Self { name, value }
    }

    /// Whether other labels may have the same.
    fn is_cut(&self) -> bool {
        self.name.len() == KEY_BYTES_MAX || self.value.len() == KEY_BYTES_MAX
    }

    pub fn put(&self, out: &mut Vec<u8>) {
        put_bytes(out, &self.name);
        put_bytes(out, &self.value);
    }

    pub fn take(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        let (name, value) = (fields.bytes()?, fields.bytes()?);
        let key = Self::of(name, value);
        match (&*key.name, &*key.value) == (name, value) {
            true => Ok(key),
            false => Err(Malformed("a page's first label is not cut off")),
        }
    }
}

/// Where a page stands, and the front of its first label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PagePlace {
    pub packed: Packed,
    pub first: Key,
}

/// Where the pages of [`SEGMENT_SERIES`] series stand, of the last ones of a block fewer.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Segment {
    pub pages: Vec<PagePlace>,
}

impl Segment {
    /// Those on one of which a label stands, if it does: one, but for texts that are cut off.
    pub fn pages_of(&self, name: &str, value: &str) -> Range<usize> {
        let key = Key::of(name.as_bytes(), value.as_bytes());
        let end = self.pages.partition_point(|page| page.first <= key);
        let behind = match key.is_cut() {
            true => self.pages.partition_point(|page| page.first < key),
            false => end,
        };
        behind.saturating_sub(1)..end
    }

    /// Those on which values of a label stand, from the first one that begins with `prefix`.
    pub fn pages_from(&self, name: &str, prefix: &str) -> Range<usize> {
        let key = Key::of(name.as_bytes(), prefix.as_bytes());
        let behind = self.pages.partition_point(|page| page.first < key);
        let end = self
            .pages
            .partition_point(|page| page.first.name <= key.name);
        // One that begins with the label itself stands behind all others of it.
        let start = match self.pages.get(behind) {
            Some(page) if page.first == key && !key.is_cut() => behind,
            _ => behind.saturating_sub(1),
        };
        start..end
    }

    /// The first page behind this one on which another name stands than the one that this one ends with.
    pub fn skip_name(&self, page: usize, name: &str) -> usize {
        let key = Key::of(name.as_bytes(), b"");
        let is_of = |nth: usize| {
            let page = self.pages.get(nth);
            page.is_some_and(|page| page.first.name == key.name)
        };
        let mut next = page + 1;
        while !key.is_cut() && is_of(next) && is_of(next + 1) {
            next += 1;
        }
        next
    }
}

/// The index of a segment being put together.
#[derive(Debug, Default)]
pub struct Builder {
    series: u32,
    names: BTreeMap<Box<[u8]>, Values>,
}

type Values = Map<Box<[u8]>, places::Builder>;
type Label<'a> = (&'a [u8], &'a [u8]);

impl Builder {
    /// How many series were added.
    pub fn series(&self) -> usize {
        self.series as usize
    }

    /// Adds series behind the others. Neighbours share most of their labels: one that stands in the same place of
    /// several is looked up once for all of them.
    pub fn add<'a>(&mut self, all: impl IntoIterator<Item = &'a Labels>) {
        // By place: a label, and the first of the series that have had it since.
        let mut shared: Vec<(Label<'_>, u32)> = Vec::new();
        for labels in all {
            let (mut places, here) = (0, self.series);
            for label in labels.iter_bytes() {
                match shared.get_mut(places) {
                    Some((before, _)) if *before == label => {}
                    Some(before) => {
                        let (before, from) = std::mem::replace(before, (label, here));
                        self.add_label(before, from..here);
                    }
                    None => shared.push((label, here)),
                }
                places += 1;
            }
            for (label, from) in shared.drain(places..) {
                self.add_label(label, from..here);
            }
            self.series += 1;
        }
        for (label, from) in shared {
            self.add_label(label, from..self.series);
        }
    }

    /// Without allocating the name or value when it is there.
    fn add_label(&mut self, (name, value): Label<'_>, places: Range<u32>) {
        if let Some(values) = self.names.get_mut(name) {
            match values.get_mut(value) {
                Some(held) => held.push(places),
                None => values.entry(value.into()).or_default().push(places),
            }
            return;
        }
        self.names.insert(name.into(), Values::default());
        self.add_label((name, value), places);
    }

    /// Its pages, each with the front of its first label. The builder is empty again.
    pub fn finish(&mut self) -> Pages {
        let names = std::mem::take(self).names;
        Pages {
            names: names.into_iter(),
            name: Box::default(),
            values: Vec::new().into_iter(),
        }
    }
}

/// Makes the pages of a segment.
#[derive(Debug)]
pub struct Pages {
    names: btree_map::IntoIter<Box<[u8]>, Values>,
    name: Box<[u8]>,
    /// Of that name, sorted.
    values: std::vec::IntoIter<(Box<[u8]>, places::Builder)>,
}

impl Pages {
    fn next_value(&mut self) -> Option<(Box<[u8]>, places::Builder)> {
        loop {
            if let Some(value) = self.values.next() {
                return Some(value);
            }
            let (name, values) = self.names.next()?;
            self.name = name;
            let mut values: Vec<_> = values.into_iter().collect();
            values.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            self.values = values.into_iter();
        }
    }
}

impl Iterator for Pages {
    type Item = (Key, Vec<u8>);

    fn next(&mut self) -> Option<(Key, Vec<u8>)> {
        let (value, places) = self.next_value()?;
        let key = Key::of(&self.name, &value);
        let mut page = PageBuilder::default();
        page.add(&self.name, &value, &places.finish());
        while page.bytes < PAGE_BYTES
            && let Some((value, places)) = self.next_value()
        {
            page.add(&self.name, &value, &places.finish());
        }
        Some((key, page.finish()))
    }
}

/// A page being put together: columns of its entries.
#[derive(Debug, Default)]
struct PageBuilder {
    /// With how many values each.
    names: Vec<(Box<[u8]>, u64)>,
    value: Box<[u8]>,
    shared: Vec<i64>,
    rests: Vec<i64>,
    texts: Vec<u8>,
    places_lens: Vec<i64>,
    places: Vec<u8>,
    bytes: usize,
}

impl PageBuilder {
    fn add(&mut self, name: &[u8], value: &[u8], places: &[u8]) {
        let shared = match self.names.last_mut() {
            Some((last, count)) if **last == *name => {
                *count += 1;
                shared_bytes(&self.value, value)
            }
            _ => {
                self.names.push((name.into(), 1));
                self.bytes += name.len();
                0
            }
        };
        self.value = value.into();
        self.shared.push(shared as i64);
        self.rests.push((value.len() - shared) as i64);
        self.texts.extend_from_slice(&value[shared..]);
        self.places_lens.push(places.len() as i64);
        self.places.extend_from_slice(places);
        self.bytes += value.len() + places.len();
    }

    fn finish(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes);
        put_varint(&mut out, self.names.len() as u64);
        for (name, count) in &self.names {
            put_bytes(&mut out, name);
            put_varint(&mut out, *count);
        }
        for column in [&self.shared, &self.rests, &self.places_lens] {
            put_ints(&mut out, column);
        }
        out.extend_from_slice(&self.texts);
        out.extend_from_slice(&self.places);
        out
    }
}

fn shared_bytes(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// A page that was read: labels, sorted, and which series have them.
#[derive(Debug)]
pub struct IndexPage {
    names: Names,
    /// Of each value where it ends, and where its places end.
    ends: Vec<(u32, u32)>,
    texts: String,
    places: Box<[u8]>,
    /// How many the segment has.
    series: u32,
}

/// Fewer say which series have a value where it is quick to count them.
const SHORT_BYTES: usize = 32;

/// Of more it takes longer than a microsecond.
const LONG_BYTES: usize = if cfg!(test) { 20 } else { 512 };

/// What a page takes in memory beside its content, and for each of its names.
const INDEX_PAGE_BYTES: usize = 200;
const NAME_BYTES: usize = 40;

impl IndexPage {
    /// Of a segment of so many series.
    pub fn decode(raw: &[u8], series: u32) -> Result<Self, Malformed> {
        let mut fields = Fields::new(raw);
        let (names, count) = take_names(&mut fields)?;
        let shared = take_ints(&mut fields, count)?;
        let rests = take_ints(&mut fields, count)?;
        let places = take_ints(&mut fields, count)?;
        let mut page = Self {
            names,
            ends: Vec::with_capacity(count),
            texts: String::new(),
            places: Box::default(),
            series,
        };
        let mut texts = Vec::new();
        let (mut value, mut places_end, mut bytes) = (0..0, 0u32, 0);
        let mut names = page.names.iter().map(|(name, end)| (name.len(), *end));
        let mut behind = 0;
        for (nth, ((shared, rest), places)) in shared.into_iter().zip(rests).zip(places).enumerate()
        {
            if nth > 0 && bytes >= PAGE_BYTES {
                return Err(Malformed("a page of the index is too large"));
            }
            let is_first = nth == behind;
            if is_first {
                let (name, end) = names.next().unwrap_or((0, count));
                (behind, bytes) = (end, bytes + name);
            }
            let shared = usize::try_from(shared).unwrap_or(usize::MAX);
            let fits = shared <= if is_first { 0 } else { value.len() };
            let rest = fields.take(usize::try_from(rest).unwrap_or(usize::MAX))?;
            let places = u32::try_from(places).ok().filter(|len| *len > 0 && fits);
            let places = places.ok_or(Malformed("a label of no series, or of no value before"))?;
            let start = texts.len();
            texts.extend_from_within(value.start..value.start + shared);
            texts.extend_from_slice(rest);
            if !is_first && texts[value.clone()] >= texts[start..] {
                return Err(UNORDERED);
            }
            value = start..texts.len();
            bytes = bytes
                .saturating_add(value.len())
                .saturating_add(places as usize);
            let end = u32::try_from(texts.len()).map_err(|_| Malformed("texts too long"))?;
            places_end = places_end.saturating_add(places);
            page.ends.push((end, places_end));
        }
        page.places = fields.take(places_end as usize)?.into();
        fields.end()?;
        texts.shrink_to_fit();
        page.texts = String::from_utf8(texts).map_err(|_| NOT_TEXT)?;
        let mut ends = page.ends.iter();
        match ends.all(|(end, _)| page.texts.is_char_boundary(*end as usize)) {
            true => Ok(page),
            false => Err(NOT_TEXT),
        }
    }

    /// The front of its first label.
    pub fn first(&self) -> Option<Key> {
        let (name, _) = self.names.first()?;
        Some(Key::of(name.as_bytes(), self.value(0).as_bytes()))
    }

    /// Its names, sorted, with which of its values are theirs.
    pub fn names(&self) -> impl Iterator<Item = (&str, Range<usize>)> {
        (0..self.names.len()).map(|nth| (&*self.names[nth].0, self.values_of(nth)))
    }

    fn values_of(&self, name: usize) -> Range<usize> {
        let start = name.checked_sub(1).map_or(0, |before| self.names[before].1);
        start..self.names[name].1
    }

    /// Which of its values are those of a name, from the first one on that is not below `from`.
    pub fn values_from(&self, name: &str, from: &str) -> Range<usize> {
        let found = self
            .names
            .binary_search_by(|(other, _)| (**other).cmp(name));
        let Ok(found) = found else {
            return 0..0;
        };
        let Range { start, end } = self.values_of(found);
        let (mut low, mut high) = (start, end);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.value(middle) < from {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        low..end
    }

    /// Which of its values this one of a name is.
    pub fn find(&self, name: &str, value: &str) -> Option<usize> {
        let from = self.values_from(name, value);
        let first = from.clone().next()?;
        (self.value(first) == value).then_some(first)
    }

    pub fn value(&self, nth: usize) -> &str {
        let start = nth.checked_sub(1).map_or(0, |before| self.ends[before].0);
        &self.texts[start as usize..self.ends[nth].0 as usize]
    }

    fn places(&self, nth: usize) -> &[u8] {
        let start = nth.checked_sub(1).map_or(0, |before| self.ends[before].1);
        &self.places[start as usize..self.ends[nth].1 as usize]
    }

    /// About how many series have a value: of a long list as many as it has bytes, which is mostly too few.
    pub fn weight(&self, nth: usize) -> usize {
        let bytes = self.places(nth);
        match bytes.len() {
            0..SHORT_BYTES => places::runs(bytes, self.series)
                .flatten()
                .map(|run| run.len())
                .sum(),
            long => long,
        }
    }

    /// Whether it takes long to go through the series that have a value, which are spread widely then.
    pub fn is_long(&self, nth: usize) -> bool {
        self.places(nth).len() > LONG_BYTES
    }

    /// Adds the places of the series that have a value. All of a name are as many as the segment has series, at
    /// most.
    pub fn add_places(&self, nth: usize, to: &mut Vec<u32>) -> Result<(), Malformed> {
        places::add_all(self.places(nth), self.series, self.series, to)
    }

    /// Keeps those of places, which ascend, whose series have a value.
    pub fn retain(&self, nth: usize, places: &mut Vec<u32>) -> Result<(), Malformed> {
        places::retain(self.places(nth), self.series, places)
    }

    /// Whether `meets` says so of any run of places of the series that have a value.
    pub fn has_any(
        &self,
        nth: usize,
        mut meets: impl FnMut(Range<u32>) -> bool,
    ) -> Result<bool, Malformed> {
        for run in places::runs(self.places(nth), self.series) {
            if meets(run?) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What it takes in memory.
    pub fn bytes(&self) -> usize {
        let names = self.names.iter().map(|(name, _)| NAME_BYTES + name.len());
        let ends = size_of_val(&self.ends[..]);
        INDEX_PAGE_BYTES + names.sum::<usize>() + ends + self.texts.len() + self.places.len()
    }
}

const UNORDERED: Malformed = Malformed("labels are not sorted");
const NOT_TEXT: Malformed = Malformed("text is not UTF-8");

/// Sorted, with where their values end.
type Names = Vec<(Box<str>, usize)>;

/// Names, and how many values there are: each has a byte for its places at least.
fn take_names(fields: &mut Fields<'_>) -> Result<(Names, usize), Malformed> {
    let mut names = Names::new();
    let mut end = 0usize;
    for _ in 0..fields.count(2)? {
        let name = fields.text()?;
        if names.last().is_some_and(|(before, _)| **before >= *name) {
            return Err(UNORDERED);
        }
        let count = usize::try_from(fields.varint()?).unwrap_or(usize::MAX);
        end = end.saturating_add(count);
        if count == 0 || end > fields.remaining() {
            return Err(Malformed(
                "more labels than there can be, or a name of none",
            ));
        }
        names.push((name.into(), end));
    }
    match names.is_empty() {
        true => Err(Malformed("a page of the index without labels")),
        false => Ok((names, end)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn series() -> impl Strategy<Value = Vec<Labels>> {
        let name = prop_oneof!["[a-c]", "[ä-ü]{1,2}", "abcdefgh[a-c]{0,3}"];
        let value = prop_oneof![
            "[xyz]{1,3}",
            "[ä-ü]{1,3}",
            "xxxxxxxxx[a-c]{0,3}",
            "y{1,700}"
        ];
        let labels = prop::collection::btree_map(name, value, 0..5)
            .prop_map(|pairs| Labels::from_pairs(&pairs));
        prop::collection::vec(labels, 1..150)
    }

    /// The pages of some series, and what a directory would say of them.
    fn built(series: &[Labels], pieces: usize) -> (Vec<Vec<u8>>, Segment) {
        let mut builder = Builder::default();
        series.chunks(pieces).for_each(|some| builder.add(some));
        assert_eq!(builder.series(), series.len());
        let (first, raw): (Vec<Key>, Vec<Vec<u8>>) = builder.finish().unzip();
        assert_eq!(builder.series(), 0);
        let places = first.into_iter().map(|first| PagePlace {
            packed: Packed::default(),
            first,
        });
        let pages = places.collect();
        (raw, Segment { pages })
    }

    fn labels_in(series: &[Labels]) -> BTreeMap<(&str, &str), Vec<u32>> {
        let mut all: BTreeMap<(&str, &str), Vec<u32>> = BTreeMap::new();
        for (place, labels) in (0..).zip(series) {
            labels
                .iter()
                .for_each(|label| all.entry(label).or_default().push(place));
        }
        all
    }

    proptest! {
        #[test]
        fn every_label_comes_back(series in series(), pieces in 1usize..150) {
            let (raw, segment) = built(&series, pieces);
            prop_assert_eq!(&built(&series, 150), &(raw.clone(), segment.clone()), "however it is cut");
            let count = series.len() as u32;
            let decode = |raw: &Vec<u8>| IndexPage::decode(raw, count).unwrap();
            let pages: Vec<IndexPage> = raw.iter().map(decode).collect();
            let mut expected = labels_in(&series);
            for (place, page) in segment.pages.iter().zip(&pages) {
                prop_assert_eq!(page.first(), Some(place.first.clone()));
                for (name, values) in page.names() {
                    for value in values {
                        let mut places = Vec::new();
                        page.add_places(value, &mut places).unwrap();
                        let found = expected.remove(&(name, page.value(value)));
                        prop_assert_eq!(found, Some(places));
                    }
                }
            }
            prop_assert!(expected.is_empty());
            // Each is found where the directory says, and nothing else is.
            let all = labels_in(&series);
            let has = |name: &str, value: &str| {
                segment.pages_of(name, value).filter(|&nth| pages[nth].find(name, value).is_some()).count()
            };
            for (name, value) in all.keys() {
                prop_assert_eq!(has(name, value), 1);
                let other = format!("{value}x");
                let expected = usize::from(all.contains_key(&(*name, &*other)));
                prop_assert_eq!(has(name, &other), expected);
                let prefix = &value[..value.char_indices().nth(1).map_or(0, |(at, _)| at)];
                let mut found = Vec::new();
                for nth in segment.pages_from(name, prefix) {
                    let values = pages[nth].values_from(name, prefix);
                    found.extend(values.map(|value| pages[nth].value(value)));
                }
                let listed = all.keys().filter(|(n, v)| n == name && *v >= prefix);
                prop_assert_eq!(found, listed.map(|(_, v)| *v).collect::<Vec<_>>());
            }
            for (nth, page) in pages.iter().enumerate() {
                for (name, _) in page.names() {
                    let next = segment.skip_name(nth, name);
                    let is_of_it_alone = |page: &IndexPage| page.names().all(|(other, _)| other == name);
                    prop_assert!(next > nth && pages[nth + 1..next].iter().all(is_of_it_alone));
                }
            }
        }

        #[test]
        fn damaged_pages_never_panic(series in series(), at in any::<prop::sample::Index>(), flip in 1u8..) {
            for mut raw in built(&series, 10).0 {
                let at = at.index(raw.len());
                raw[at] ^= flip;
                walk(&raw, series.len() as u32);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            walk(&bytes, 100);
        }
    }

    fn walk(raw: &[u8], series: u32) {
        let Ok(page) = IndexPage::decode(raw, series) else {
            return;
        };
        assert!(page.first().is_some());
        for (name, values) in page.names() {
            let mut places = Vec::new();
            for value in values {
                let _ = page.add_places(value, &mut places);
                assert_eq!(page.find(name, page.value(value)), Some(value));
            }
            assert!(places.len() <= series as usize);
        }
    }

    #[test]
    fn values_that_share_much_stay_within_a_page() {
        // Each takes three bytes and says that it is as long as the one before.
        let mut builder = PageBuilder::default();
        for nth in 0..100u8 {
            let value = [&[b'x'; 200][..], &[b'0' + nth / 10, b'0' + nth % 10]].concat();
            builder.add(b"name", &value, &[0]);
        }
        assert!(IndexPage::decode(&builder.finish(), 1).is_err());
    }
}
