//! A write as few bytes: ids and instants as differences, the values' bytes by their place in the
//! value, all of it compressed. The log and the way to the followers carry a third of the plain form.

use model::Timestamp;
use model::limits::WRITE_COMMAND_BYTES_MAX;

use super::{SeriesRef, WriteCommand, WriteRows, annex};
use crate::fields::{Fields, Malformed, put_varint, put_zigzag};

/// Fewer rows are hardly worth it.
pub const ROWS_MIN: usize = 32;
/// The fastest that looks at how often bytes come.
const ZSTD_LEVEL: i32 = 1;

/// The bytes behind version and kind. `None` if zstd fails, which it does for want of memory only.
pub fn encode(write: &WriteCommand) -> Option<Vec<u8>> {
    let mut raw = Vec::with_capacity(write.rows.len() * 11 + 64);
    super::put_head(&mut raw, write);
    put_rows(&mut raw, &write.rows);
    super::put_fences(&mut raw, write);
    annex::put(&mut raw, write);
    let mut out = Vec::new();
    put_varint(&mut out, raw.len() as u64);
    out.extend(zstd::bulk::compress(&raw, ZSTD_LEVEL).ok()?);
    Some(out)
}

pub fn decode(fields: &mut Fields<'_>) -> Result<WriteCommand, Malformed> {
    let raw_len = fields.varint()?;
    if raw_len > WRITE_COMMAND_BYTES_MAX {
        return Err(Malformed("a write too large"));
    }
    let small = fields.take(fields.remaining())?;
    let raw = zstd::bulk::decompress(small, raw_len as usize).unwrap_or_default();
    if raw.len() as u64 != raw_len {
        return Err(Malformed("does not decompress to its length"));
    }
    let mut fields = Fields::new(&raw);
    let mut write = super::take_head(&mut fields)?;
    write.rows = take_rows(&mut fields, write.labels.len())?;
    write.fences = super::take_fences(&mut fields, write.rows.len())?;
    annex::take(&mut fields, &mut write)?;
    fields.end()?;
    Ok(write)
}

fn put_rows(out: &mut Vec<u8>, rows: &WriteRows) {
    put_varint(out, rows.len() as u64);
    let mut last = 0;
    for &series in &rows.series {
        let word = match series {
            SeriesRef::Known(id) => id.0 << 1,
            SeriesRef::New(index) => u64::from(index) << 1 | 1,
        };
        put_zigzag(out, word.wrapping_sub(last) as i64);
        last = word;
    }
    let mut last = 0;
    for at in &rows.timestamps {
        put_zigzag(out, at.0.wrapping_sub(last));
        last = at.0;
    }
    for shift in (0..64).step_by(8).rev() {
        let bytes = rows.values.iter().map(|v| (v.to_bits() >> shift) as u8);
        out.extend(bytes);
    }
}

fn take_rows(fields: &mut Fields<'_>, labels: usize) -> Result<WriteRows, Malformed> {
    let count = fields.count(10)?;
    let mut rows = WriteRows::default();
    rows.series.reserve(count);
    let mut word = 0u64;
    for _ in 0..count {
        word = word.wrapping_add(fields.zigzag()? as u64);
        rows.series.push(super::series_ref(word, labels)?);
    }
    rows.timestamps.reserve(count);
    let mut last = 0i64;
    for _ in 0..count {
        last = last.wrapping_add(fields.zigzag()?);
        rows.timestamps.push(Timestamp(last));
    }
    let mut bits = vec![0u64; count];
    for _ in 0..8 {
        let bytes = fields.take(count)?;
        for (word, &byte) in bits.iter_mut().zip(bytes) {
            *word = *word << 8 | u64::from(byte);
        }
    }
    rows.values = bits.into_iter().map(f64::from_bits).collect();
    Ok(rows)
}
