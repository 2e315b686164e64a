//! A batch: what one write and one flush make durable together. Header, index, payloads; drawn
//! in `docs/format/log.md`.
//!
//! Promise: a header that parses was written whole by this log (checksum and the log's own
//! random number), so a payload that happens to hold an old log can never pass for a batch. It
//! does not know what the records mean.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use model::GroupId;

pub(crate) const HEADER_BYTES: usize = 64;
const MAGIC: [u8; 3] = *b"QLB";
const VERSION: u8 = 2;
/// It has no filler, and zeros where that is told.
const VERSION_1: u8 = 1;
/// What a file is written in: a page of which a part is new is written whole.
const PAGE_BYTES: u64 = 4096;
/// What a filler may take of a page: one that is longer spares little more.
const FILLER_BYTES_MAX: u64 = PAGE_BYTES / 2;
/// And what part of its batch: a log of small ones is not to be mostly zeros.
const FILLER_SHARE: u64 = 4;
/// Payloads below this are copied together: one long buffer is cheaper to write than many
/// short ones.
const PIECE_BYTES_MIN: usize = 4096;

/// What a batch is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// First of a segment: the state of every group.
    Head = 1,
    /// Records and their payloads.
    Data = 2,
    /// Last of a sealed segment: its index.
    Footer = 3,
}

/// The fixed start of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub kind: Kind,
    /// Drawn when the log was created.
    pub log: u64,
    /// One more than the batch before. As one write is in flight at a time, that batch was
    /// durable before this one was begun.
    pub lsn: u64,
    /// Which groups have records here, see [`mask`].
    pub groups: u64,
    /// The same of the batch before: names the victims when that one cannot be read.
    pub groups_before: u64,
    pub index_bytes: u32,
    pub index_crc: u32,
    pub payload_bytes: u32,
    /// Zeros behind the payloads.
    pub filler_bytes: u16,
}

/// Why 64 bytes are no header of this log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoHeader {
    Damaged,
    /// Whole, but written by another version.
    Version(u8),
}

/// The bit that stands for `group` in a header; exact for the first 64 groups.
pub(crate) fn mask(group: GroupId) -> u64 {
    1 << (group.0 % 64)
}

impl Header {
    pub fn encode(&self, out: &mut BytesMut) {
        let start = out.len();
        out.put_slice(&MAGIC);
        out.put_u8(VERSION);
        out.put_u8(self.kind as u8);
        out.put_u8(0);
        out.put_u16_le(self.filler_bytes);
        out.put_u64_le(self.log);
        out.put_u64_le(self.lsn);
        out.put_u64_le(self.lsn - 1);
        out.put_u64_le(self.groups);
        out.put_u64_le(self.groups_before);
        out.put_u32_le(self.index_bytes);
        out.put_u32_le(self.index_crc);
        out.put_u32_le(self.payload_bytes);
        let crc = crc32c::crc32c(&out[start..]);
        out.put_u32_le(crc);
    }

    /// Reads the header at the front of `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoHeader> {
        Self::parse_checked(bytes).unwrap_or(Err(NoHeader::Damaged))
    }

    fn parse_checked(bytes: &[u8]) -> Option<Result<Self, NoHeader>> {
        let fields = bytes.get(..HEADER_BYTES - 4)?;
        let mut rest = bytes.get(HEADER_BYTES - 4..)?;
        if fields.get(..3)? != MAGIC || rest.try_get_u32_le().ok()? != crc32c::crc32c(fields) {
            return None;
        }
        let mut rest = fields.get(3..)?;
        let version = rest.try_get_u8().ok()?;
        if version != VERSION && version != VERSION_1 {
            return Some(Err(NoHeader::Version(version)));
        }
        let kind = match rest.try_get_u8().ok()? {
            1 => Kind::Head,
            2 => Kind::Data,
            3 => Kind::Footer,
            _ => return None,
        };
        rest.try_get_u8().ok()?;
        let filler_bytes = rest.try_get_u16_le().ok()?;
        let log = rest.try_get_u64_le().ok()?;
        let lsn = rest.try_get_u64_le().ok()?;
        let synced = rest.try_get_u64_le().ok()?;
        if synced.checked_add(1)? != lsn || lsn > i64::MAX as u64 {
            return None;
        }
        Some(Ok(Self {
            kind,
            log,
            lsn,
            groups: rest.try_get_u64_le().ok()?,
            groups_before: rest.try_get_u64_le().ok()?,
            index_bytes: rest.try_get_u32_le().ok()?,
            index_crc: rest.try_get_u32_le().ok()?,
            payload_bytes: rest.try_get_u32_le().ok()?,
            filler_bytes,
        }))
    }

    /// Bytes from this header's start to the first payload.
    pub fn payload_at(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.index_bytes)
    }

    /// Bytes from this header's start behind the last payload.
    pub fn payload_end(&self) -> u64 {
        self.payload_at() + u64::from(self.payload_bytes)
    }

    /// Bytes from this header's start to the next batch.
    pub fn extent(&self) -> u64 {
        self.payload_end() + u64::from(self.filler_bytes)
    }

    /// The index of the batch that starts at the front of `bytes`, when its checksum holds.
    pub fn index<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let end = HEADER_BYTES.checked_add(self.index_bytes as usize)?;
        let index = bytes.get(HEADER_BYTES..end)?;
        (crc32c::crc32c(index) == self.index_crc).then_some(index)
    }
}

/// The header's fields that the index and the payloads do not decide.
pub(crate) struct Stamp {
    pub kind: Kind,
    pub log: u64,
    pub lsn: u64,
    pub groups: u64,
    pub groups_before: u64,
    /// Where it will stand in its file, if what follows may begin with the page behind it.
    pub fill_at: Option<u64>,
}

/// How many zeros are put behind a batch that ends at `end`: where little is missing, they take the page to
/// its end, so that it is not written once more with the next batch.
fn filler(end: u64, extent: u64) -> u16 {
    let missing = end.next_multiple_of(PAGE_BYTES) - end;
    match missing <= FILLER_BYTES_MAX.min(extent / FILLER_SHARE) {
        true => missing as u16,
        false => 0,
    }
}

/// Lays a batch out as pieces for one append; returns them with their whole length.
pub(crate) fn lay_out(stamp: &Stamp, index: &[u8], payloads: Vec<Bytes>) -> (Vec<Bytes>, u64) {
    let payload_bytes: usize = payloads.iter().map(Bytes::len).sum();
    let extent = (HEADER_BYTES + index.len() + payload_bytes) as u64;
    let filler_bytes = stamp.fill_at.map_or(0, |at| filler(at + extent, extent));
    let header = Header {
        kind: stamp.kind,
        log: stamp.log,
        lsn: stamp.lsn,
        groups: stamp.groups,
        groups_before: stamp.groups_before,
        index_bytes: u32::try_from(index.len()).expect("a batch is far below 4 GiB"),
        index_crc: crc32c::crc32c(index),
        payload_bytes: u32::try_from(payload_bytes).expect("a batch is far below 4 GiB"),
        filler_bytes,
    };
    let mut gathered = BytesMut::with_capacity(HEADER_BYTES + index.len() + PIECE_BYTES_MIN);
    header.encode(&mut gathered);
    gathered.put_slice(index);
    let mut pieces = Vec::new();
    for payload in payloads {
        if payload.len() < PIECE_BYTES_MIN {
            gathered.put_slice(&payload);
        } else {
            if !gathered.is_empty() {
                pieces.push(gathered.split().freeze());
            }
            pieces.push(payload);
        }
    }
    gathered.put_bytes(0, usize::from(filler_bytes));
    if !gathered.is_empty() {
        pieces.push(gathered.freeze());
    }
    (pieces, header.extent())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp() -> Stamp {
        Stamp {
            kind: Kind::Data,
            log: 7,
            lsn: 12,
            groups: 3,
            groups_before: 4,
            fill_at: None,
        }
    }

    fn joined(pieces: &[Bytes]) -> Vec<u8> {
        pieces.iter().flat_map(|p| p.iter().copied()).collect()
    }

    #[test]
    fn a_batch_reads_back_whatever_the_size_of_its_payloads() {
        let payloads: Vec<Bytes> = [3, PIECE_BYTES_MIN, 0, 10, 3 * PIECE_BYTES_MIN, 1]
            .iter()
            .map(|&len| Bytes::from(vec![len as u8 | 1; len]))
            .collect();
        let expected: Vec<u8> = joined(&payloads);
        let (pieces, extent) = lay_out(&stamp(), b"index", payloads);
        let bytes = joined(&pieces);
        assert_eq!(bytes.len() as u64, extent);
        let header = Header::parse(&bytes).unwrap();
        assert_eq!(
            (header.lsn, header.groups, header.groups_before),
            (12, 3, 4)
        );
        assert_eq!(header.extent(), extent);
        assert_eq!(header.index(&bytes), Some(&b"index"[..]));
        assert_eq!(&bytes[header.payload_at() as usize..], &expected[..]);
    }

    #[test]
    fn a_page_of_which_little_is_missing_is_taken_to_its_end() {
        let laid_out = |len: usize, at: u64| {
            let stamp = Stamp {
                fill_at: Some(at),
                ..stamp()
            };
            let payloads = vec![Bytes::from(vec![7; len])];
            let (pieces, extent) = lay_out(&stamp, b"index", payloads);
            let bytes = joined(&pieces);
            assert_eq!(bytes.len() as u64, extent);
            let header = Header::parse(&bytes).unwrap();
            assert_eq!(header.extent(), extent);
            let filler = &bytes[header.payload_end() as usize..];
            assert!(filler.iter().all(|&byte| byte == 0));
            (filler.len() as u64, at + extent)
        };
        for at in (0..3 * PAGE_BYTES).step_by(7) {
            for len in [1, 3_000, 20_000] {
                let (filler, end) = laid_out(len, at);
                let bare = end - filler;
                let missing = bare.next_multiple_of(PAGE_BYTES) - bare;
                let is_little = missing <= PAGE_BYTES / 2 && missing <= (bare - at) / 4;
                assert_eq!(filler, if is_little { missing } else { 0 }, "{at} {len}");
            }
        }
    }

    #[test]
    fn batches_of_version_1_are_read() {
        let (pieces, extent) = lay_out(&stamp(), b"", Vec::new());
        let mut bytes = joined(&pieces);
        bytes[3] = 1;
        let crc = crc32c::crc32c(&bytes[..HEADER_BYTES - 4]);
        bytes[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Header::parse(&bytes).map(|h| h.extent()), Ok(extent));
    }

    #[test]
    fn every_flipped_bit_of_a_header_or_index_is_seen() {
        let (pieces, _) = lay_out(&stamp(), b"index", Vec::new());
        let whole = joined(&pieces);
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let seen = match Header::parse(&bytes) {
                Err(_) => true,
                Ok(header) => header.index(&bytes).is_none(),
            };
            assert!(seen, "bit {bit}");
        }
    }

    #[test]
    fn another_version_is_told_from_damage() {
        let (pieces, _) = lay_out(&stamp(), b"", Vec::new());
        let mut bytes = joined(&pieces);
        bytes[3] = 3;
        assert_eq!(Header::parse(&bytes), Err(NoHeader::Damaged));
        let crc = crc32c::crc32c(&bytes[..HEADER_BYTES - 4]);
        bytes[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Header::parse(&bytes), Err(NoHeader::Version(3)));
        assert_eq!(Header::parse(&bytes[..40]), Err(NoHeader::Damaged));
    }
}
