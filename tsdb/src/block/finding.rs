//! Looks many label sets up in a block together: its index tells which tables may tell of any, and the labels of each of
//! those are read once. What is held meanwhile is as much as was asked for, and a table.

use model::hash::{Map, Set, xxh3};
use model::{Labels, SeriesId};

use super::index::SEGMENT_STRETCHES;
use super::lookup::SAMPLES_OF_LABELS;
use super::segment::OpenSegment;
use super::table::TABLE_SERIES;
use super::{Reader, filter};
use crate::error::StorageError;
use crate::select::Turn;

/// Looking so many labels up takes about as long as reading the labels of a table.
const LABELS_OF_TABLE: usize = 128;
/// Finding out the one table of so many label sets likewise.
const EXACT_OF_TABLE: u32 = 4;
/// Who reads the labels of more tables of a segment goes through them once: kept, they would be in the way of what
/// others ask for.
const TABLES_KEPT: u32 = if cfg!(test) { 1 } else { 16 };

/// Tables of a segment, a bit each.
pub type TableSet = u64;

const _: () = assert!(SEGMENT_STRETCHES <= TableSet::BITS as usize);

/// The first so many.
pub fn first_tables(count: usize) -> TableSet {
    match count {
        0 => 0,
        count => TableSet::MAX >> (TableSet::BITS as usize - count),
    }
}

impl Reader {
    /// Its series of exactly these labels, if it has it.
    pub async fn find(&self, labels: &Labels) -> Result<Option<SeriesId>, StorageError> {
        let found = self.find_all(&[labels]).await?;
        Ok(found.first().map(|(id, _)| *id))
    }

    /// Its series that have exactly the labels of any of these, each once, in any order.
    pub async fn find_all<'a>(
        &self,
        sought: &[&'a Labels],
    ) -> Result<Vec<(SeriesId, &'a Labels)>, StorageError> {
        let sought = sought.iter().copied();
        let mut sought: Vec<&Labels> = sought.filter(|labels| self.may_have(labels)).collect();
        let mut finding = Finding {
            reader: self,
            left: sought.iter().map(|l| (l.as_canonical(), *l)).collect(),
            hashes: sought.iter().map(|l| l.hash(0)).collect(),
            found: Vec::new(),
            turn: Turn::default(),
        };
        finding.turn.spend(sought.len()).await;
        let Some(segments) = self.segments() else {
            finding.read_all().await?;
            return Ok(finding.found);
        };
        // Who comes back was seen lately: his id is high.
        for segment in segments.rev() {
            if finding.left.is_empty() {
                break;
            }
            let tables = tables_of(&segment, &sought, &mut finding.turn).await?;
            finding.read(&segment, tables).await?;
            sought.retain(|labels| finding.left.contains_key(labels.as_canonical()));
        }
        Ok(finding.found)
    }
}

struct Finding<'r, 'a> {
    reader: &'r Reader,
    /// By their canonical form.
    left: Map<&'a [u8], &'a Labels>,
    /// Of what was sought: most of what is read is told from it by these.
    hashes: Set<u64>,
    found: Vec<(SeriesId, &'a Labels)>,
    turn: Turn,
}

impl Finding<'_, '_> {
    /// Takes the series at a place if its labels, in the canonical form and of this hash, are sought.
    fn take(&mut self, place: usize, hash: u64, labels: &[u8]) {
        if self.hashes.contains(&hash)
            && let Some(labels) = self.left.remove(labels)
        {
            let id = self.reader.ids().at(std::iter::once(place));
            self.found.extend(id.map(|id| (id, labels)));
        }
    }

    fn take_all(&mut self, first: usize, labels: &[Labels]) {
        for (place, labels) in (first..).zip(labels) {
            if self.left.is_empty() {
                break;
            }
            self.take(place, labels.hash(0), labels.as_canonical());
        }
    }

    /// Reads the labels of tables of a segment until all is found.
    async fn read(
        &mut self,
        segment: &OpenSegment<'_>,
        tables: TableSet,
    ) -> Result<(), StorageError> {
        let reader = self.reader;
        let keep = tables.count_ones() <= TABLES_KEPT;
        for nth in (0..SEGMENT_STRETCHES).filter(|nth| tables >> nth & 1 != 0) {
            if self.left.is_empty() {
                break;
            }
            let first = segment.first() + nth * TABLE_SERIES;
            let nth = first / TABLE_SERIES;
            match reader.kept_labels(nth) {
                Some(labels) => self.take_all(first, &labels),
                None if keep => self.take_all(first, &reader.labels(nth).await?),
                None => {
                    let take = |place, labels: &[u8]| {
                        self.take(first + place, xxh3(0, labels), labels);
                    };
                    reader.read_label_blocks(nth, take).await?;
                }
            }
            self.turn.spend(SAMPLES_OF_LABELS).await;
        }
        Ok(())
    }

    /// Where there is no index. The first time it is remembered which label sets the block may have.
    async fn read_all(&mut self) -> Result<(), StorageError> {
        let reader = self.reader;
        let mut sets = reader.label_sets();
        let mut filter = match reader.filter.get() {
            Some(_) => None,
            None => Some(filter::Builder::default()),
        };
        for nth in 0..reader.tables() {
            if self.left.is_empty() && filter.is_none() {
                break;
            }
            let labels = sets.next().await?;
            if let Some(filter) = &mut filter {
                labels.iter().for_each(|labels| filter.add(labels));
            }
            self.take_all(nth * TABLE_SERIES, &labels);
            self.turn.spend(SAMPLES_OF_LABELS).await;
        }
        if let Some(filter) = filter {
            reader.filter.get_or_init(|| filter.finish());
        }
        Ok(())
    }
}

/// Tables of a segment among which are all that tell of any of these label sets.
async fn tables_of(
    segment: &OpenSegment<'_>,
    sought: &[&Labels],
    turn: &mut Turn,
) -> Result<TableSet, StorageError> {
    let tables = segment.tables();
    let most = tables.count_ones() as usize * LABELS_OF_TABLE;
    let Some(spread) = Spread::of(sought, most) else {
        return Ok(tables);
    };
    let with = spread.tables(segment, turn).await?;
    let (mut chosen, mut unsure): (TableSet, Vec<(&Labels, TableSet)>) = (0, Vec::new());
    for (labels, numbers) in sought.iter().zip(spread.sets()) {
        let of_all = |tables, number: &u32| tables & with[*number as usize];
        let may_tell = numbers.iter().fold(tables, of_all);
        match may_tell.count_ones() {
            0 | 1 => chosen |= may_tell,
            _ => unsure.push((labels, may_tell)),
        }
    }
    let any = unsure.iter().fold(0, |any, (_, tables)| any | tables);
    let mut exact = (any & !chosen).count_ones() * EXACT_OF_TABLE;
    for (labels, may_tell) in unsure {
        if may_tell & !chosen == 0 {
            continue;
        }
        chosen |= match exact {
            0 => may_tell,
            _ => tables_at(&segment.candidates(labels).await?),
        };
        exact = exact.saturating_sub(1);
        turn.spend(SAMPLES_OF_EXACT).await;
    }
    Ok(chosen)
}

/// Finding out candidates takes about as long as decoding so many samples.
const SAMPLES_OF_EXACT: usize = SAMPLES_OF_LABELS / EXACT_OF_TABLE as usize;
/// The same of a label.
const SAMPLES_OF_LABEL: usize = SAMPLES_OF_LABELS / LABELS_OF_TABLE;

fn tables_at(places: &[u32]) -> TableSet {
    let table = |place: &u32| 1 << (*place as usize / TABLE_SERIES);
    places.iter().map(table).fold(0, std::ops::BitOr::bitor)
}

type Label<'a> = (&'a str, &'a str);

/// The labels of label sets, each once, and of each set which of them it has.
struct Spread<'a> {
    labels: Vec<Label<'a>>,
    numbers: Vec<u32>,
    /// Of each set where its numbers end.
    ends: Vec<usize>,
}

impl<'a> Spread<'a> {
    /// Nothing where there are more than `most`.
    fn of(sets: &[&'a Labels], most: usize) -> Option<Self> {
        let mut spread = Self {
            labels: Vec::new(),
            numbers: Vec::new(),
            ends: Vec::with_capacity(sets.len()),
        };
        let mut known: Map<Label<'a>, u32> = Map::default();
        for set in sets {
            let before = spread.ends.len().checked_sub(1);
            let before = before.map_or(0..0, |before| spread.range(before));
            for (label, nth) in set.iter().zip(before.start..) {
                // Neighbours share most of their labels.
                let shared = (nth < before.end).then(|| spread.numbers[nth]);
                let shared = shared.filter(|number| spread.labels[*number as usize] == label);
                let number = shared.unwrap_or_else(|| {
                    *known.entry(label).or_insert_with(|| {
                        spread.labels.push(label);
                        spread.labels.len() as u32 - 1
                    })
                });
                spread.numbers.push(number);
            }
            spread.ends.push(spread.numbers.len());
            if spread.labels.len() > most {
                return None;
            }
        }
        Some(spread)
    }

    fn range(&self, nth: usize) -> std::ops::Range<usize> {
        let start = nth.checked_sub(1).map_or(0, |before| self.ends[before]);
        start..self.ends[nth]
    }

    fn sets(&self) -> impl Iterator<Item = &[u32]> {
        (0..self.ends.len()).map(|nth| &self.numbers[self.range(nth)])
    }

    /// In which tables of a segment series have each label. In the order of the labels, so that each page of the index
    /// is met once.
    async fn tables(
        &self,
        segment: &OpenSegment<'_>,
        turn: &mut Turn,
    ) -> Result<Vec<TableSet>, StorageError> {
        let mut sorted: Vec<usize> = (0..self.labels.len()).collect();
        sorted.sort_unstable_by_key(|nth| self.labels[*nth]);
        let mut tables = vec![0; sorted.len()];
        for nth in sorted {
            let (name, value) = self.labels[nth];
            tables[nth] = segment.tables_with(name, value).await?;
            turn.spend(SAMPLES_OF_LABEL).await;
        }
        Ok(tables)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_tables() {
        assert_eq!([0, 1, 3, 64].map(first_tables), [0, 1, 7, u64::MAX]);
        assert_eq!(tables_at(&[]), 0);
        assert_eq!(tables_at(&[5, 1023, 1024, 63 * 1024]), 1 << 63 | 3);
    }

    #[test]
    fn labels_are_there_once() {
        let sets = [
            Labels::from_pairs([("a", "1"), ("b", "1")]),
            Labels::default(),
            Labels::from_pairs([("a", "1"), ("b", "2"), ("c", "1")]),
            Labels::from_pairs([("b", "2"), ("c", "1")]),
            Labels::from_pairs([("a", "2"), ("c", "1")]),
        ];
        let sets: Vec<&Labels> = sets.iter().collect();
        let spread = Spread::of(&sets, 5).unwrap();
        let all = [("a", "1"), ("b", "1"), ("b", "2"), ("c", "1"), ("a", "2")];
        assert_eq!(spread.labels, all);
        let again = spread.sets().map(|numbers| {
            let labels = numbers.iter().map(|nth| spread.labels[*nth as usize]);
            Labels::from_pairs(labels)
        });
        assert!(again.eq(sets.iter().map(|set| (*set).clone())));
        assert!(Spread::of(&sets, 4).is_none());
    }
}
