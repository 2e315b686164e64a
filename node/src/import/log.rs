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
    /// end is its end, as for Prometheus when it starts.
    pub fn next(&mut self) -> Result<Option<(u64, Vec<u8>)>, Broken> {
        let begin = self.at;
        match self.read() {
            Err(broken) if self.is_last => {
                let rest = self.input.len() - begin.min(self.input.len());
                eprintln!("{broken}: taken as the end of the log, {rest} bytes are left out");
                self.at = self.input.len();
                Ok(None)
            }
            read => read,
        }
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

fn decompress(flags: u8, record: Vec<u8>) -> Option<Vec<u8>> {
    if flags & SNAPPY != 0 {
        let len = snap::raw::decompress_len(&record).ok()?;
        return match len <= RECORD_BYTES_MAX {
            true => snap::raw::Decoder::new().decompress_vec(&record).ok(),
            false => None,
        };
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
