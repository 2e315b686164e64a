//! A segment file: its name, its footer, and the scan that reads it when the footer cannot be
//! used. Drawn in `docs/format/log.md`.
//!
//! Promise: a scan finds every batch that can still be read and says what lies between them; it
//! judges nothing. Any bytes may come; none make it panic.

use std::io;
use std::path::{Path, PathBuf};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use model::port::Disk;

use crate::batch::{HEADER_BYTES, Header, Kind, Stamp, lay_out};
use crate::record::{RECORD_BYTES, Record};
use crate::state::States;
use crate::summary::Summary;

const TRAILER_BYTES: usize = 16;
const TRAILER_MAGIC: [u8; 4] = *b"QLF1";

/// The file of segment `number`.
pub(crate) fn path_of(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:010}.log"))
}

/// The number in a segment's file name.
pub(crate) fn number_of(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?.strip_suffix(".log")?;
    (name.len() == 10).then(|| name.parse().ok())?
}

/// Lays out the footer that seals a segment of `at` bytes.
pub(crate) fn lay_out_footer(
    log: u64,
    lsn: u64,
    groups_before: u64,
    summary: &Summary,
    at: u64,
) -> Vec<Bytes> {
    let stamp = Stamp {
        kind: Kind::Footer,
        log,
        lsn,
        groups: 0,
        groups_before,
        fill_at: None,
    };
    let mut index = BytesMut::new();
    summary.encode(&mut index);
    lay_out(&stamp, &index, vec![encode_trailer(at)]).0
}

pub(crate) fn encode_trailer(footer_at: u64) -> Bytes {
    let mut trailer = BytesMut::with_capacity(TRAILER_BYTES);
    trailer.put_u64_le(footer_at);
    trailer.put_slice(&TRAILER_MAGIC);
    let crc = crc32c::crc32c(&trailer);
    trailer.put_u32_le(crc);
    trailer.freeze()
}

fn decode_trailer(mut bytes: &[u8]) -> Option<u64> {
    let crc = crc32c::crc32c(bytes.get(..12)?);
    let footer_at = bytes.try_get_u64_le().ok()?;
    let magic = bytes.try_get_u32_le().ok()?.to_le_bytes();
    (magic == TRAILER_MAGIC && bytes.try_get_u32_le().ok()? == crc).then_some(footer_at)
}

/// What the end of a segment file says of its footer.
#[derive(Debug)]
pub(crate) enum Footer {
    Whole(Header, Summary),
    /// Something is wrong with it; where it starts, if that much is known.
    Damaged(Option<u64>),
}

/// Reads the footer of a file of `len` bytes.
pub(crate) async fn read_footer(
    disk: &dyn Disk,
    path: &Path,
    number: u32,
    log: u64,
    len: u64,
) -> io::Result<Footer> {
    let Some(trailer_at) = len.checked_sub(TRAILER_BYTES as u64) else {
        return Ok(Footer::Damaged(None));
    };
    let trailer = disk.read(path, trailer_at, TRAILER_BYTES).await?;
    let Some(at) = decode_trailer(&trailer).filter(|&at| at < trailer_at) else {
        return Ok(Footer::Damaged(None));
    };
    let footer_bytes = usize::try_from(len - at).map_err(io::Error::other)?;
    let bytes = disk.read(path, at, footer_bytes).await?;
    let whole = Header::parse(&bytes)
        .ok()
        .filter(|h| h.kind == Kind::Footer && h.log == log && h.extent() == len - at)
        .and_then(|h| Some((h, Summary::decode(h.index(&bytes)?, number, at)?)));
    Ok(match whole {
        Some((header, summary)) => Footer::Whole(header, summary),
        None => Footer::Damaged(Some(at)),
    })
}

/// A stretch of a scanned file: a batch, or bytes that are none.
#[derive(Debug)]
pub(crate) struct Piece {
    pub at: u64,
    /// None when no batch starts here.
    pub header: Option<Header>,
    pub body: Body,
}

/// What a batch holds.
#[derive(Debug)]
pub(crate) enum Body {
    Head(States),
    Footer(Summary),
    /// Records, where their payloads lie, and whether those are whole.
    Records(Vec<(Record, u64, bool)>),
    /// Cannot be read.
    Damaged,
}

impl Piece {
    /// Whether every byte of the batch is as it was written.
    pub fn is_whole(&self) -> bool {
        match &self.body {
            Body::Damaged => false,
            Body::Records(records) => records.iter().all(|(_, _, whole)| *whole),
            Body::Head(_) | Body::Footer(_) => true,
        }
    }

    /// Where the batch ends.
    pub fn end(&self) -> u64 {
        self.at + self.header.map_or(0, |h| h.extent())
    }
}

/// Cuts a segment's bytes into pieces. Batches must be of `log` and come after `lsn`.
pub(crate) fn scan(bytes: &[u8], number: u32, log: u64, mut lsn: u64) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = bytes.get(at..).unwrap_or_default();
        let header = header_at(rest, log, lsn);
        let mut piece = Piece {
            at: at as u64,
            header,
            body: Body::Damaged,
        };
        if let Some(header) = header {
            lsn = header.lsn;
            if let Some(body) = read_body(&header, rest, number, at as u64) {
                piece.body = body;
            }
        }
        at = match usize::try_from(piece.end()) {
            Ok(end) if header.is_some() && end <= bytes.len() => end,
            _ => find_batch(bytes, at + 1, log, lsn),
        };
        pieces.push(piece);
    }
    pieces
}

fn header_at(bytes: &[u8], log: u64, after_lsn: u64) -> Option<Header> {
    Header::parse(bytes)
        .ok()
        .filter(|h| h.log == log && h.lsn > after_lsn)
}

/// Where the next batch starts at or after `from`; the end of `bytes` when there is none.
fn find_batch(bytes: &[u8], from: usize, log: u64, lsn: u64) -> usize {
    let mut at = from;
    while let Some(rest) = bytes.get(at..).filter(|rest| rest.len() >= HEADER_BYTES) {
        if header_at(rest, log, lsn).is_some() {
            return at;
        }
        match rest.iter().skip(1).position(|&byte| byte == b'Q') {
            Some(skipped) => at += 1 + skipped,
            None => break,
        }
    }
    bytes.len()
}

fn read_body(header: &Header, bytes: &[u8], number: u32, at: u64) -> Option<Body> {
    let index = header.index(bytes)?;
    match header.kind {
        Kind::Head | Kind::Footer if header.extent() > bytes.len() as u64 => None,
        Kind::Head => States::decode(&mut &index[..]).map(Body::Head),
        Kind::Footer => Summary::decode(index, number, at).map(Body::Footer),
        Kind::Data => read_records(header, index, bytes, at).map(Body::Records),
    }
}

fn read_records(
    header: &Header,
    mut index: &[u8],
    bytes: &[u8],
    at: u64,
) -> Option<Vec<(Record, u64, bool)>> {
    let mut records = Vec::with_capacity(index.len() / RECORD_BYTES);
    let mut offset = header.payload_at();
    while !index.is_empty() {
        let record = Record::decode(&mut index)?;
        let end = offset + u64::from(record.payload_bytes());
        let payload = bytes.get(usize::try_from(offset).ok()?..usize::try_from(end).ok()?);
        let whole = match record.change {
            crate::record::Change::Append { crc, .. } => {
                payload.is_some_and(|payload| crc32c::crc32c(payload) == crc)
            }
            _ => true,
        };
        records.push((record, at + offset, whole));
        offset = end;
    }
    let filler_at = usize::try_from(header.payload_end()).ok()?;
    let filler = bytes.get(filler_at..usize::try_from(header.extent()).ok()?);
    // One that ends early was not flushed; one that changed means nothing, but that the disk lost what it was told.
    let is_flushed = header.filler_bytes == 0 || filler.is_some();
    if filler.is_some_and(|filler| filler.iter().any(|byte| *byte != 0)) {
        tracing::warn!(
            lsn = header.lsn,
            "zeros behind a batch of the log have changed: the disk is not to be trusted"
        );
    }
    (offset == header.payload_end() && is_flushed).then_some(records)
}

#[cfg(test)]
mod tests {
    use model::GroupId;
    use proptest::prelude::*;

    use super::*;
    use crate::LogId;
    use crate::record::Change;

    const LOG: u64 = 77;

    fn data(lsn: u64, payload: &[u8]) -> Vec<u8> {
        data_at(None, lsn, payload)
    }

    fn data_at(fill_at: Option<u64>, lsn: u64, payload: &[u8]) -> Vec<u8> {
        let stamp = Stamp {
            kind: Kind::Data,
            log: LOG,
            lsn,
            groups: 2,
            groups_before: 0,
            fill_at,
        };
        let record = Record {
            group: GroupId(1),
            change: Change::Append {
                id: LogId {
                    term: 1,
                    node: model::NodeId(1),
                    index: lsn,
                },
                len: payload.len() as u32,
                crc: crc32c::crc32c(payload),
            },
        };
        let mut index = BytesMut::new();
        record.encode(&mut index);
        let (pieces, _) = lay_out(&stamp, &index, vec![Bytes::copy_from_slice(payload)]);
        pieces.concat()
    }

    fn shape(pieces: &[Piece]) -> Vec<(u64, Option<u64>, bool)> {
        pieces
            .iter()
            .map(|p| (p.at, p.header.map(|h| h.lsn), p.is_whole()))
            .collect()
    }

    #[test]
    fn names_sort_as_numbers() {
        let path = path_of(Path::new("wal"), 42);
        assert_eq!(path, Path::new("wal/0000000042.log"));
        assert_eq!(number_of(&path), Some(42));
        for other in ["wal/42.log", "wal/0000000042.tmp", "wal/00000000xx.log"] {
            assert_eq!(number_of(Path::new(other)), None);
        }
    }

    #[test]
    fn a_scan_goes_on_behind_damage() {
        let [a, b, c] = [data(1, b"one"), data(2, b"two"), data(3, b"three")];
        let (second, third) = (a.len() as u64, (a.len() + b.len()) as u64);
        let whole = [a, b, c].concat();
        let expected = [
            (0, Some(1), true),
            (second, Some(2), true),
            (third, Some(3), true),
        ];
        assert_eq!(shape(&scan(&whole, 1, LOG, 0)), expected);

        let mut header_hit = whole.clone();
        header_hit[second as usize + 10] ^= 1;
        let expected = [
            (0, Some(1), true),
            (second, None, false),
            (third, Some(3), true),
        ];
        assert_eq!(shape(&scan(&header_hit, 1, LOG, 0)), expected);

        let mut payload_hit = whole.clone();
        payload_hit[third as usize - 1] ^= 1;
        let expected = [
            (0, Some(1), true),
            (second, Some(2), false),
            (third, Some(3), true),
        ];
        assert_eq!(shape(&scan(&payload_hit, 1, LOG, 0)), expected);

        let torn = [&whole[..whole.len() - 2]].concat();
        assert_eq!(
            shape(&scan(&torn, 1, LOG, 0)).get(2),
            Some(&(third, Some(3), false))
        );
        let zeros = [&whole[..third as usize], &[0; 300]].concat();
        assert_eq!(
            shape(&scan(&zeros, 1, LOG, 0)).get(2),
            Some(&(third, None, false))
        );
    }

    #[test]
    fn zeros_behind_a_batch_may_change_and_may_not_be_missing() {
        let first = data_at(Some(0), 1, &[7; 3_500]);
        assert_eq!(first.len(), 4_096);
        let second = data_at(Some(4_096), 2, b"two");
        let expected = [(0, Some(1), true), (4_096, Some(2), true)];
        for flipped in [None, Some(3_700), Some(4_095)] {
            let mut whole = [&first[..], &second].concat();
            if let Some(at) = flipped {
                whole[at] ^= 1;
            }
            assert_eq!(shape(&scan(&whole, 1, LOG, 0)), expected);
        }
        for end in [3_650, 4_095] {
            assert_eq!(
                shape(&scan(&first[..end], 1, LOG, 0)),
                [(0, Some(1), false)]
            );
        }
    }

    #[test]
    fn a_batch_inside_a_payload_is_no_batch() {
        let foreign = data(9, b"inner");
        let mut own = foreign.clone();
        let salt = 78u64.to_le_bytes();
        own[8..16].copy_from_slice(&salt);
        let mut outer = data(1, &own);
        outer[3] ^= 0xff;
        assert_eq!(shape(&scan(&outer, 1, LOG, 0)), [(0, None, false)]);
    }

    #[test]
    fn the_trailer_points_to_the_footer() {
        let trailer = encode_trailer(1234);
        assert_eq!(decode_trailer(&trailer), Some(1234));
        for bit in 0..TRAILER_BYTES * 8 {
            let mut bytes = trailer.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_trailer(&bytes), None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_scan(
            noise in proptest::collection::vec(any::<u8>(), 0..300),
            cut in 0..200usize,
            flip in any::<(prop::sample::Index, u8)>(),
        ) {
            let mut bytes = [data(1, b"payload"), data(2, b"other"), noise].concat();
            bytes.drain(..cut.min(bytes.len()));
            if !bytes.is_empty() {
                let at = flip.0.index(bytes.len());
                bytes[at] ^= flip.1;
            }
            let pieces = scan(&bytes, 1, LOG, 0);
            prop_assert!(pieces.windows(2).all(|pair| pair[0].at < pair[1].at));
        }
    }
}
