//! Where bits of a node's log may rot so that it matters to shards alone: the meta group does not heal, and
//! damage to what nobody has seen follow cannot be told from a torn end (docs/format/log.md).

use std::ops::Range;

use model::GroupId;

const MAGIC: &[u8] = b"QLB";
const HEADER_BYTES: usize = 64;
const DATA: u8 = 2;

/// Tables and payloads of a segment's batches that are of shards alone, but for the last two batches.
pub fn spots(segment: &[u8]) -> Vec<Range<u64>> {
    let mut spots = Vec::new();
    let mut at = 0;
    while let Some(batch) = segment.get(at..).and_then(Batch::of) {
        let end = at + batch.extent;
        // By one that was whole, too, when the one behind it was begun.
        let next = segment.get(end..).and_then(Batch::of);
        let behind = next.and_then(|next| segment.get(end + next.extent..));
        let is_proven = behind.is_some_and(|rest| rest.starts_with(MAGIC));
        if batch.is_of_shards && is_proven {
            let from = at + HEADER_BYTES;
            spots.push(from as u64..(from + batch.content) as u64);
        }
        at = end;
    }
    spots
}

struct Batch {
    is_of_shards: bool,
    /// Bytes of table and payloads.
    content: usize,
    extent: usize,
}

impl Batch {
    fn of(bytes: &[u8]) -> Option<Self> {
        let header = bytes.get(..HEADER_BYTES)?;
        let u32_at = |at: usize| Some(u32::from_le_bytes(header[at..at + 4].try_into().ok()?));
        let groups = u64::from_le_bytes(header[32..40].try_into().ok()?);
        let content = u32_at(48)? as usize + u32_at(56)? as usize;
        let fill = (u32_at(4)? >> 16) as usize;
        header.starts_with(MAGIC).then_some(Self {
            is_of_shards: header[4] == DATA && groups & (1 << GroupId::META.0) == 0 && content > 0,
            content,
            extent: HEADER_BYTES + content + fill,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(kind: u8, groups: u64, table: u32, payloads: u32, fill: u16) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[..4].copy_from_slice(b"QLB\x02");
        bytes[4] = kind;
        bytes[6..8].copy_from_slice(&fill.to_le_bytes());
        bytes[32..40].copy_from_slice(&groups.to_le_bytes());
        bytes[48..52].copy_from_slice(&table.to_le_bytes());
        bytes[56..60].copy_from_slice(&payloads.to_le_bytes());
        let rest = table as usize + payloads as usize + usize::from(fill);
        bytes.resize(HEADER_BYTES + rest, 7);
        bytes
    }

    #[test]
    fn what_is_of_shards_and_followed_may_rot() {
        let segment = [
            batch(1, 0, 40, 0, 0),
            batch(DATA, 0b110, 80, 20, 3),
            batch(DATA, 0b11, 40, 20, 0),
            batch(DATA, 0b100, 40, 0, 0),
            batch(DATA, 0b10, 40, 9, 0),
            batch(DATA, 0b10, 40, 9, 0),
        ]
        .concat();
        let second = 104 + 64;
        let fourth = second + 100 + 3 + 124 + 64;
        assert_eq!(spots(&segment), [second..second + 100, fourth..fourth + 40]);
        assert!(spots(b"").is_empty() && spots(&segment[1..]).is_empty());
    }
}
