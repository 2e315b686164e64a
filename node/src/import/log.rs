//! Prometheus' write-ahead log as records (its `tsdb/docs/format/wal.md`): files in pages of
//! 32 KiB, a record in one piece or in several, each with a checksum, compressed or not.

use std::io::Read;
use std::path::Path;

use super::input::{Broken, Input};

const PAGE_BYTES: u64 = 32 << 10;
/// Kind, length, checksum.
const HEADER_BYTES: u64 = 7;
/// One record's pieces, and what they decompress to.
const RECORD_BYTES_MAX: usize = 256 << 20;
/// Snappy's shortest copy has three bytes and stands for 64 (its `format_description.txt`).
const SNAPPY_TIMES_MAX: usize = 22;

const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;
const KIND: u8 = 0b111;
const SNAPPY: u8 = 1 << 3;
const ZSTD: u8 = 1 << 4;

/// Reads the records of one file; none goes over into the next.
pub struct Records {
    input: Input,
    at: u64,
    page: Vec<u8>,
    /// The file may end in the middle of what was written last.
    is_last: bool,
}

/// One piece of a record.
struct Piece {
    flags: u8,
    at: u64,
    data: Vec<u8>,
}

impl Records {
    pub fn open(path: &Path, is_last: bool) -> Result<Self, Broken> {
        Ok(Self {
            input: Input::open(path)?,
            at: 0,
            page: Vec::new(),
            is_last,
        })
    }

    pub fn broken(&self, what: impl Into<String>) -> Broken {
        self.input.broken(self.at, what)
    }

    /// The next record with the place where it begins; `None` at the end. Of the last file a torn
    /// end is its end, as for Prometheus when it starts: damage with nothing whole behind it.
    pub fn next(&mut self) -> Result<Option<(u64, Vec<u8>)>, Broken> {
        let begin = self.at;
        match self.read() {
            Err(broken) if self.is_last => self.torn(begin, broken),
            read => read,
        }
    }

    /// The end of the log, if what is wrong in the record at `begin` is a torn end.
    fn torn(&mut self, begin: u64, broken: Broken) -> Result<Option<(u64, Vec<u8>)>, Broken> {
        if let Some(whole) = self.whole_from(broken.offset)? {
            let what = format!("{}, no torn end: byte {whole} is whole", broken.what);
            return Err(self.input.broken(broken.offset, what));
        }
        let rest = self.input.len() - begin.min(self.input.len());
        eprintln!("{broken}: taken as the end of the log, {rest} bytes are left out");
        self.at = self.input.len();
        Ok(None)
    }

    /// The first place from `from` on where a whole piece of a record stands.
    fn whole_from(&self, from: u64) -> Result<Option<u64>, Broken> {
        let mut start = from - from % PAGE_BYTES;
        while start < self.input.len() {
            let page = self.input.read_upto(start, PAGE_BYTES)?;
            let skipped = from.saturating_sub(start) as usize;
            // Where pieces begin is known of whole pages; the damage may go into the file's last.
            let is_known = start > from && start + PAGE_BYTES < self.input.len();
            let end = if is_known { 1 } else { page.len() };
            let mut places = skipped..end;
            if let Some(place) = places.find(|place| is_whole(&page[*place..])) {
                return Ok(Some(start + place as u64));
            }
            start += PAGE_BYTES;
        }
        Ok(None)
    }

    fn read(&mut self) -> Result<Option<(u64, Vec<u8>)>, Broken> {
        let mut record = Vec::new();
        let mut begin = None;
        loop {
            let Some(piece) = self.piece()? else {
                return match begin {
                    None => Ok(None),
                    Some(_) => Err(self.broken("the file ends within a record")),
                };
            };
            let expected = match piece.flags & KIND {
                FULL | FIRST => begin.is_none(),
                MIDDLE | LAST => begin.is_some(),
                _ => false,
            };
            if !expected {
                return Err(self
                    .input
                    .broken(piece.at, "a piece of a record out of order"));
            }
            let begin = *begin.get_or_insert(piece.at);
            if record.len() + piece.data.len() > RECORD_BYTES_MAX {
                return Err(self.input.broken(begin, "a record too large"));
            }
            record.extend(piece.data);
            if matches!(piece.flags & KIND, FULL | LAST) {
                // None is written, and zeros have the checksum of nothing.
                if record.is_empty() {
                    return Err(self.input.broken(begin, "an empty record"));
                }
                let plain = decompress(piece.flags, record);
                let plain = plain.ok_or_else(|| {
                    self.input
                        .broken(begin, "a record that does not decompress")
                })?;
                return Ok(Some((begin, plain)));
            }
        }
    }

    /// The next piece; `None` at the end of the file.
    fn piece(&mut self) -> Result<Option<Piece>, Broken> {
        loop {
            let in_page = self.at % PAGE_BYTES;
            if in_page == 0 || self.page.is_empty() {
                self.page = self.input.read_upto(self.at - in_page, PAGE_BYTES)?;
            }
            let rest = self.page.get(in_page as usize..).unwrap_or_default();
            let Some((&flags, behind)) = rest.split_first() else {
                return match self.at >= self.input.len() {
                    true => Ok(None),
                    false => Err(self.broken("a page ends early")),
                };
            };
            if flags & KIND == 0 {
                // Nothing more in this page.
                if behind.iter().any(|byte| *byte != 0) || flags != 0 {
                    return Err(self.broken("not zeros where a page is filled up"));
                }
                self.at += rest.len() as u64;
                continue;
            }
            let at = self.at;
            let header = rest.get(1..HEADER_BYTES as usize);
            let header = header.ok_or_else(|| self.broken("a piece of a record ends early"))?;
            let len = usize::from(u16::from_be_bytes([header[0], header[1]]));
            let sum = [header[2], header[3], header[4], header[5]];
            let data = rest.get(HEADER_BYTES as usize..).unwrap_or_default();
            let data = data.get(..len);
            let data = data.ok_or_else(|| self.broken("a piece of a record ends early"))?;
            if crc32c::crc32c(data).to_be_bytes() != sum {
                return Err(self.broken("wrong checksum of a record"));
            }
            let data = data.to_vec();
            self.at += HEADER_BYTES + len as u64;
            return Ok(Some(Piece { flags, at, data }));
        }
    }
}

/// Whether a piece with content begins here. Its kind, which no checksum covers, may be any.
fn is_whole(bytes: &[u8]) -> bool {
    let Some((header, behind)) = bytes.split_at_checked(HEADER_BYTES as usize) else {
        return false;
    };
    let len = usize::from(u16::from_be_bytes([header[1], header[2]]));
    let data = behind.get(..len).filter(|data| !data.is_empty());
    data.is_some_and(|data| crc32c::crc32c(data).to_be_bytes() == header[3..])
}

fn decompress(flags: u8, record: Vec<u8>) -> Option<Vec<u8>> {
    if flags & SNAPPY != 0 {
        snappy_len(&record)?;
        return snap::raw::Decoder::new().decompress_vec(&record).ok();
    }
    if flags & ZSTD != 0 {
        let mut plain = Vec::new();
        let decoder = zstd::stream::read::Decoder::new(&record[..]).ok()?;
        let mut bounded = decoder.take(RECORD_BYTES_MAX as u64 + 1);
        bounded.read_to_end(&mut plain).ok()?;
        return (plain.len() <= RECORD_BYTES_MAX).then_some(plain);
    }
    Some(record)
}

/// How long it says to be, and can be: so much is allocated before the rest is looked at.
fn snappy_len(record: &[u8]) -> Option<usize> {
    let most = record.len().saturating_mul(SNAPPY_TIMES_MAX);
    let len = snap::raw::decompress_len(record).ok()?;
    (len <= RECORD_BYTES_MAX.min(most)).then_some(len)
}

#[cfg(test)]
mod tests {
    use super::super::records::{self, Record};
    use super::*;

    /// Appends a record as Prometheus does.
    fn put(file: &mut Vec<u8>, record: &[u8], compression: u8) {
        let header = HEADER_BYTES as usize;
        let mut rest = record;
        let mut is_first = true;
        while is_first || !rest.is_empty() {
            let mut left = PAGE_BYTES as usize - file.len() % PAGE_BYTES as usize;
            if left < header {
                file.resize(file.len() + left, 0);
                left = PAGE_BYTES as usize;
            }
            let (part, behind) = rest.split_at(rest.len().min(left - header));
            let kind = match (is_first, behind.is_empty()) {
                (true, true) => FULL,
                (true, false) => FIRST,
                (false, false) => MIDDLE,
                (false, true) => LAST,
            };
            file.push(kind | compression);
            file.extend((part.len() as u16).to_be_bytes());
            file.extend(crc32c::crc32c(part).to_be_bytes());
            file.extend(part);
            (is_first, rest) = (false, behind);
        }
    }

    /// A record that names one series.
    fn series(reference: u64, value: &str) -> Vec<u8> {
        let mut record = vec![1];
        record.extend(reference.to_be_bytes());
        record.extend([1, 1, b'l']);
        let mut len = value.len();
        while len >= 0x80 {
            record.push(len as u8 | 0x80);
            len >>= 7;
        }
        record.push(len as u8);
        record.extend(value.as_bytes());
        record
    }

    fn deletion(reference: u64) -> Vec<u8> {
        let mut record = vec![3];
        record.extend(reference.to_be_bytes());
        record.extend([2, 8]);
        record
    }

    fn snappy(record: &[u8]) -> Vec<u8> {
        snap::raw::Encoder::new().compress_vec(record).unwrap()
    }

    fn all(dir: &Path, file: &[u8], is_last: bool) -> Result<Vec<Record>, Broken> {
        let path = dir.join("00000000");
        std::fs::write(&path, file).unwrap();
        let mut records = Records::open(&path, is_last)?;
        let mut all = Vec::new();
        while let Some((at, record)) = records.next()? {
            let record = records::decode(&record);
            all.push(record.map_err(|bad| records.input.bad(at, &bad))?);
        }
        Ok(all)
    }

    /// Changes a byte: that is an error, or only the last record may be missing.
    fn flip(dir: &Path, whole: &[u8], places: impl Iterator<Item = usize>, masks: &[u8]) {
        let expected = all(dir, whole, true).unwrap();
        assert_eq!(all(dir, whole, false).unwrap(), expected);
        let (mut errors, mut torn) = (0, 0);
        for place in places {
            for mask in masks {
                let mut file = whole.to_vec();
                file[place] ^= mask;
                let Ok(found) = all(dir, &file, true) else {
                    errors += 1;
                    continue;
                };
                let least = &expected[..expected.len() - 1];
                let is_prefix = found == expected || found == least;
                assert!(is_prefix, "byte {place} by {mask:#x}: {found:?}");
                torn += usize::from(found == least);
                let elsewhere = all(dir, &file, false);
                assert!(elsewhere.is_err() || elsewhere == Ok(expected.clone()));
            }
        }
        assert!(errors > 0 && torn > 0, "{errors} errors, {torn} torn ends");
    }

    #[test]
    fn no_more_is_believed_than_snappy_can_hold() {
        let zeros = snappy(&vec![0; 1 << 20]);
        assert!(zeros.len() < (1 << 20) / 20);
        assert_eq!(snappy_len(&zeros), Some(1 << 20));
        // The length alone: 200 MiB.
        assert_eq!(
            snap::raw::decompress_len(&[0x80, 0x80, 0x80, 0x64]),
            Ok(200 << 20)
        );
        assert_eq!(snappy_len(&[0x80, 0x80, 0x80, 0x64]), None);
    }

    #[test]
    fn a_flipped_byte_hides_no_record_behind_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = Vec::new();
        put(&mut file, &series(1, "one"), 0);
        put(&mut file, &snappy(&series(2, &"two".repeat(20))), SNAPPY);
        put(&mut file, &deletion(1), 0);
        put(&mut file, &snappy(&deletion(2)), SNAPPY);
        let masks: Vec<u8> = (0..8).map(|bit| 1 << bit).chain([0xff, 3, 7]).collect();
        flip(dir.path(), &file, 0..file.len(), &masks);
        // As a file is filled up that another one follows.
        file.resize(file.len() + 20, 0);
        flip(dir.path(), &file, 0..file.len(), &masks);
    }

    #[test]
    fn nor_does_one_in_a_record_of_many_pages() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = Vec::new();
        put(&mut file, &series(1, &"many".repeat(20_000)), 0);
        put(&mut file, &deletion(1), 0);
        let page = PAGE_BYTES as usize;
        let heads = (0..3).flat_map(|n| n * page..n * page + 9);
        let places = heads.chain((0..file.len()).step_by(5_003));
        flip(
            dir.path(),
            &file,
            places.chain(file.len() - 20..file.len()),
            &[1, 2, 3, 7],
        );
    }

    #[test]
    fn what_ends_early_is_torn_only_in_the_last_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = Vec::new();
        put(&mut file, &series(1, "one"), 0);
        let first = file.len();
        // Longer than its page: of it a first piece may be whole.
        put(&mut file, &series(2, &"x".repeat(40_000)), 0);
        let expected = all(dir.path(), &file[..first], true).unwrap();
        assert_eq!(expected.len(), 1);
        let page = PAGE_BYTES as usize;
        for end in [
            first + 1,
            first + 7,
            first + 8,
            page - 1,
            page,
            page + 3,
            file.len() - 1,
        ] {
            assert_eq!(
                all(dir.path(), &file[..end], true),
                Ok(expected.clone()),
                "{end}"
            );
            assert!(all(dir.path(), &file[..end], false).is_err(), "{end}");
        }
        // Damage over a page's end, with something whole behind it.
        put(&mut file, &deletion(1), 0);
        file[first + 9..page + 9].fill(0x55);
        let broken = all(dir.path(), &file, true).unwrap_err();
        assert_eq!(broken.offset, first as u64);
        assert!(broken.to_string().contains("no torn end"), "{broken}");
    }
}
