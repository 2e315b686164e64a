//! The label sets of a write's new series. They stand one after the other and have nearly all in common, so
//! since version 13 they are compressed together where that makes them shorter: a series is told once, but of
//! what a log holds of a young one that is most.

use model::Labels;
use model::limits::COMMAND_LABELS_PACKED_BYTES_MAX as PACKED_BYTES_MAX;

use super::VERSION_13;
use crate::fields::{Fields, Malformed, put_bytes, put_varint, varint_len};

const ZSTD_LEVEL: i32 = 1;
/// Below, they are not worth the memory that compressing takes.
const PACKED_BYTES_MIN: usize = 512;
/// Bit 0 of the count.
const PACKED: u64 = 1;

pub fn put(out: &mut Vec<u8>, labels: &[Labels]) {
    let count = (labels.len() as u64) << 1;
    if let Some((len, packed)) = pack(labels) {
        put_varint(out, count | PACKED);
        put_varint(out, len as u64);
        return put_bytes(out, &packed);
    }
    put_varint(out, count);
    put_plainly(out, labels);
}

fn put_plainly(out: &mut Vec<u8>, labels: &[Labels]) {
    for labels in labels {
        put_bytes(out, labels.as_canonical());
    }
}

/// How long they are and what they become, if that is shorter.
fn pack(labels: &[Labels]) -> Option<(usize, Vec<u8>)> {
    let blocks = labels.iter().map(|labels| labels.as_canonical().len());
    let len = blocks
        .map(|block| varint_len(block as u64) + block)
        .sum::<usize>();
    if !(PACKED_BYTES_MIN..=PACKED_BYTES_MAX).contains(&len) {
        return None;
    }
    let mut plain = Vec::with_capacity(len);
    put_plainly(&mut plain, labels);
    let packed = zstd::bulk::compress(&plain, ZSTD_LEVEL).expect("memory is all it takes");
    (packed.len() < len).then_some((len, packed))
}

pub fn take(fields: &mut Fields<'_>, version: u8) -> Result<Vec<Labels>, Malformed> {
    if version < VERSION_13 {
        return take_plainly(fields);
    }
    let word = fields.varint()?;
    let count = word >> 1;
    if word & PACKED == 0 {
        return take_counted(fields, count);
    }
    let len = fields.varint()?;
    if len > PACKED_BYTES_MAX as u64 {
        return Err(Malformed("too many packed labels"));
    }
    // Bounded, so room for all of it may be made at once.
    let plain = zstd::bulk::decompress(fields.bytes()?, len as usize).ok();
    let plain = plain.filter(|plain| plain.len() as u64 == len);
    let plain = plain.ok_or(Malformed("labels do not decompress to their length"))?;
    let mut fields = Fields::new(&plain);
    let labels = take_counted(&mut fields, count)?;
    fields.end()?;
    Ok(labels)
}

fn take_plainly(fields: &mut Fields<'_>) -> Result<Vec<Labels>, Malformed> {
    let count = fields.varint()?;
    take_counted(fields, count)
}

fn take_counted(fields: &mut Fields<'_>, count: u64) -> Result<Vec<Labels>, Malformed> {
    if count > fields.remaining() as u64 {
        return Err(Malformed("count larger than the bytes left"));
    }
    (0..count).map(|_| fields.labels()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods(count: usize) -> Vec<Labels> {
        let pod = |n: usize| {
            let pod = format!("app-{:x}-{n:x}", n * n);
            let name = "http_requests_total";
            Labels::from_pairs([("__name__", name), ("job", "api"), ("pod", &pod)])
        };
        (0..count).map(pod).collect()
    }

    fn bytes(labels: &[Labels]) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, labels);
        out
    }

    #[test]
    fn labels_come_back_in_their_order() {
        for count in [0, 1, 5, 20, 1_000] {
            let labels = pods(count);
            let bytes = bytes(&labels);
            let mut fields = Fields::new(&bytes);
            assert_eq!(take(&mut fields, VERSION_13), Ok(labels));
            assert_eq!(fields.end(), Ok(()));
        }
    }

    #[test]
    fn many_that_are_alike_take_a_fraction() {
        let labels = pods(1_000);
        let mut plain = Vec::new();
        put_plainly(&mut plain, &labels);
        let bytes = bytes(&labels);
        assert!(bytes.len() * 4 < plain.len(), "{} bytes", bytes.len());
    }

    #[test]
    fn what_does_not_hold_what_it_says_is_refused() {
        let labels = pods(100);
        let (len, packed) = pack(&labels).unwrap();
        let of = |count: u64, len: usize, packed: &[u8]| {
            let mut out = Vec::new();
            put_varint(&mut out, count << 1 | PACKED);
            put_varint(&mut out, len as u64);
            put_bytes(&mut out, packed);
            take(&mut Fields::new(&out), VERSION_13).is_ok()
        };
        assert!(of(100, len, &packed));
        assert!(!of(99, len, &packed));
        assert!(!of(101, len, &packed));
        assert!(!of(u64::MAX >> 1, len, &packed));
        assert!(!of(100, len - 1, &packed));
        assert!(!of(100, len + 1, &packed));
        assert!(!of(100, len, &packed[1..]));
        let bomb = zstd::bulk::compress(&vec![0; PACKED_BYTES_MAX + 1], 1).unwrap();
        assert!(!of(
            PACKED_BYTES_MAX as u64 + 1,
            PACKED_BYTES_MAX + 1,
            &bomb
        ));
    }
}
