//! The index of a block of Prometheus, version 2 (its `tsdb/docs/format/index.md`): symbols, and
//! the series one after the other. Postings are not needed by whoever reads everything.

use std::path::Path;

use proto::remote::Label;

use super::input::{Bad, Broken, Cursor, Input};

pub(super) const MAGIC: u32 = 0xBAAA_D700;
pub(super) const VERSION: u8 = 2;
/// Six places and a checksum, at the end.
const CONTENTS_BYTES: u64 = 6 * 8 + 4;
/// Series stand at multiples of this.
const ALIGN: u64 = 16;
/// Labels and chunks of one series.
const SERIES_BYTES_MAX: u64 = 64 << 20;
/// Read at a time.
const WINDOW_BYTES: u64 = 1 << 20;

/// One chunk of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    pub min: i64,
    pub max: i64,
    /// Segment and offset.
    pub place: u64,
}

/// A series as the index has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// What tombstones call it.
    pub reference: u64,
    pub labels: Vec<Label>,
    /// By time.
    pub chunks: Vec<Chunk>,
}

/// Goes through the series of an index.
pub struct Reader {
    input: Input,
    symbols: Symbols,
    at: u64,
    end: u64,
    window: Vec<u8>,
    window_at: u64,
}

/// All texts, one behind the other.
#[derive(Debug, Default)]
struct Symbols {
    texts: String,
    ends: Vec<usize>,
}

impl Symbols {
    fn read(section: &[u8]) -> Result<Self, Bad> {
        let mut cursor = Cursor::new(section);
        let count = cursor.be32()? as usize;
        let count = cursor.fits(count, 1)?;
        let mut symbols = Self::default();
        for _ in 0..count {
            symbols.texts.push_str(cursor.text()?);
            symbols.ends.push(symbols.texts.len());
        }
        Ok(symbols)
    }

    fn get(&self, number: u32) -> Option<&str> {
        let number = number as usize;
        let start = match number {
            0 => 0,
            _ => *self.ends.get(number - 1)?,
        };
        self.texts.get(start..*self.ends.get(number)?)
    }
}

impl Reader {
    pub fn open(path: &Path) -> Result<Self, Broken> {
        let input = Input::open(path)?;
        let head = input.read(0, 5)?;
        let mut cursor = Cursor::new(&head);
        let magic = cursor.be32().and_then(|magic| Ok((magic, cursor.u8()?)));
        match magic.map_err(|bad| input.bad(0, &bad))? {
            (MAGIC, VERSION) => {}
            (MAGIC, version) => {
                let what = format!("an index of version {version}, known is {VERSION}");
                return Err(input.broken(4, what));
            }
            _ => return Err(input.broken(0, "not an index of Prometheus")),
        }
        let places = contents(&input)?;
        let [symbols_at, series_at, others @ ..] = places;
        // One that begins where the series do says that there are none.
        let behind = others.iter().filter(|place| **place >= series_at);
        let behind = behind.chain(Some(&symbols_at).filter(|place| **place > series_at));
        let end = behind
            .copied()
            .min()
            .unwrap_or(input.len() - CONTENTS_BYTES);
        let section = section(&input, symbols_at)?;
        let symbols = Symbols::read(&section).map_err(|bad| input.bad(symbols_at + 4, &bad))?;
        Ok(Self {
            at: series_at.next_multiple_of(ALIGN),
            end,
            input,
            symbols,
            window: Vec::new(),
            window_at: 0,
        })
    }

    /// The next series; `None` behind the last.
    pub fn next(&mut self) -> Result<Option<Series>, Broken> {
        if self.at >= self.end {
            return Ok(None);
        }
        let at = self.at;
        let head = self.bytes(at, 10.min(self.end - at))?;
        let mut cursor = Cursor::new(head);
        let len = cursor.uvarint();
        let len_bytes = cursor.at() as u64;
        let len = len.map_err(|bad| self.input.bad(at, &bad))?;
        if len == 0 {
            // Zeros up to where the next section may begin.
            let rest = self.input.read(at, self.end - at)?;
            return match rest.iter().all(|byte| *byte == 0) {
                true => Ok(None),
                false => Err(self.input.broken(at, "a series of no bytes")),
            };
        }
        let whole = len_bytes + len.min(SERIES_BYTES_MAX) + 4;
        if len > SERIES_BYTES_MAX || whole > self.end - at {
            return Err(self.input.broken(at, format!("a series of {len} bytes")));
        }
        let entry = self.bytes(at, whole)?.to_vec();
        let content = checked(&entry[len_bytes as usize..]);
        let content = content.ok_or_else(|| self.input.broken(at, "wrong checksum of a series"))?;
        let series = self.series(at / ALIGN, content);
        let series = series.map_err(|bad| self.input.bad(at + len_bytes, &bad))?;
        self.at = (at + whole).next_multiple_of(ALIGN);
        Ok(Some(series))
    }

    fn series(&self, reference: u64, content: &[u8]) -> Result<Series, Bad> {
        let mut cursor = Cursor::new(content);
        let symbol = |cursor: &mut Cursor<'_>| {
            let number = cursor.uvarint32()?;
            let text = self.symbols.get(number).map(str::to_owned);
            text.ok_or(cursor.bad("a symbol that is not there"))
        };
        let labels = (0..cursor.count(2)?).map(|_| {
            let name = symbol(&mut cursor)?;
            let value = symbol(&mut cursor)?;
            Ok(Label { name, value })
        });
        let labels = labels.collect::<Result<_, Bad>>()?;
        let count = cursor.count(3)?;
        let mut chunks: Vec<Chunk> = Vec::with_capacity(count);
        for _ in 0..count {
            let (min, place) = match chunks.last() {
                None => (cursor.varint()?, None),
                Some(before) => {
                    let gap = cursor.uvarint()? as i64;
                    (before.max.wrapping_add(gap), Some(before.place))
                }
            };
            let max = min.wrapping_add(cursor.uvarint()? as i64);
            let place = match place {
                None => cursor.uvarint()?,
                Some(before) => before.wrapping_add_signed(cursor.varint()?),
            };
            chunks.push(Chunk { min, max, place });
        }
        match cursor.is_empty() {
            true => Ok(Series {
                reference,
                labels,
                chunks,
            }),
            false => Err(cursor.bad("bytes behind a series")),
        }
    }

    /// Bytes of the file, read ahead.
    fn bytes(&mut self, at: u64, len: u64) -> Result<&[u8], Broken> {
        let inside = at >= self.window_at && at + len <= self.window_at + self.window.len() as u64;
        if !inside {
            self.window = self.input.read_upto(at, len.max(WINDOW_BYTES))?;
            self.window_at = at;
        }
        let from = (at - self.window_at) as usize;
        let bytes = self.window.get(from..from + len as usize);
        bytes.ok_or_else(|| self.input.broken(at, "the index ends early"))
    }
}

/// Content in front of its checksum.
fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (content, sum) = bytes.split_last_chunk::<4>()?;
    (crc32c::crc32c(content) == u32::from_be_bytes(*sum)).then_some(content)
}

/// Where the sections stand.
fn contents(input: &Input) -> Result<[u64; 6], Broken> {
    let at = input.len().checked_sub(CONTENTS_BYTES);
    let at = at.ok_or_else(|| input.broken(0, "the index ends early"))?;
    let bytes = input.read(at, CONTENTS_BYTES)?;
    let content = checked(&bytes);
    let content = content.ok_or_else(|| input.broken(at, "wrong checksum of the contents"))?;
    let mut cursor = Cursor::new(content);
    let mut places = [0; 6];
    for place in &mut places {
        *place = cursor.be64().map_err(|bad| input.bad(at, &bad))?;
        if *place > at {
            return Err(input.broken(at, "a section behind the end"));
        }
    }
    Ok(places)
}

/// A section's content: a length, so many bytes, their checksum.
fn section(input: &Input, at: u64) -> Result<Vec<u8>, Broken> {
    let len = input.read(at, 4)?;
    let mut cursor = Cursor::new(&len);
    let len = cursor.be32().map_err(|bad| input.bad(at, &bad))?;
    let mut bytes = input.read(at + 4, u64::from(len) + 4)?;
    if checked(&bytes).is_none() {
        return Err(input.broken(at, "wrong checksum of a section"));
    }
    bytes.truncate(len as usize);
    Ok(bytes)
}

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;

    use super::super::laid_out::index;
    use super::*;

    fn all(file: &[u8]) -> Result<Vec<Series>, Broken> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        std::fs::write(&path, file).unwrap();
        let mut reader = Reader::open(&path)?;
        std::iter::from_fn(|| reader.next().transpose()).collect()
    }

    /// `{a="b"}` with two chunks, `{a="cc"}` with one.
    pub fn two_series() -> Vec<u8> {
        let symbols = b"\0\0\0\x03\x01a\x01b\x02cc";
        // Labels; chunks: first, length and place, then what is between, length and how much further.
        let first = vec![1, 0, 1, 2, 20, 5, 8, 3, 4, 6];
        let second = vec![1, 0, 2, 1, 1, 0, 30];
        index(symbols, &[first, second])
    }

    #[test]
    fn series_have_labels_and_chunks() {
        let label = |value: &str| Label {
            name: "a".to_owned(),
            value: value.to_owned(),
        };
        let chunk = |min, max, place| Chunk { min, max, place };
        let expected = vec![
            Series {
                reference: 2,
                labels: vec![label("b")],
                chunks: vec![chunk(10, 15, 8), chunk(18, 22, 11)],
            },
            Series {
                reference: 3,
                labels: vec![label("cc")],
                chunks: vec![chunk(-1, -1, 30)],
            },
        ];
        assert_eq!(all(&two_series()), Ok(expected));
    }

    #[test]
    fn there_may_be_no_series() {
        let none = [0; 4];
        assert_eq!(all(&index(&none, &[])), Ok(Vec::new()));
        let written = crate::blocks::index::encode(&Default::default());
        assert_eq!(all(&written), Ok(Vec::new()));
    }

    #[test]
    fn a_flipped_bit_is_told_or_says_nothing() {
        let whole = two_series();
        let expected = all(&whole);
        let mut told = 0;
        for place in 0..whole.len() * 8 {
            let mut file = whole.clone();
            file[place / 8] ^= 1 << (place % 8);
            match all(&file) {
                Err(_) => told += 1,
                // Zeros between sections are looked at by nobody.
                found => assert_eq!(found, expected, "bit {place}"),
            }
        }
        assert!(told > whole.len() * 4, "{told} of {} bits", whole.len() * 8);
    }

    proptest! {
        /// With right checksums, as whoever means harm would have them.
        #[test]
        fn arbitrary_bytes_are_series_or_told(
            symbols in prop::collection::vec(any::<u8>(), 0..40),
            count in 0u8..4,
            series in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..4),
            cut in 0usize..400,
        ) {
            let symbols = [&[0, 0, 0, count], &symbols[..]].concat();
            let file = index(&symbols, &series);
            all(&file).ok();
            if cut < file.len() {
                prop_assert!(all(&file[..cut]).is_err());
            }
        }
    }
}
