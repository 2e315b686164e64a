//! What a write of version 2 says behind what one of version 1 does.

use bytes::Bytes;
use model::Histogram;
use model::limits::HISTOGRAM_BYTES_MAX;

use super::{WriteCommand, put_series_ref, take_series_ref};
use crate::exemplars::{put_content, take_content};
use crate::fields::{Fields, Malformed, put_bytes, put_varint};

pub fn put(out: &mut Vec<u8>, write: &WriteCommand) {
    put_varint(out, write.rows.histograms.len() as u64);
    let mut next = 0;
    for (row, bytes) in &write.rows.histograms {
        assert!(*row >= next, "histograms are sorted by row");
        put_varint(out, u64::from(row - next));
        put_bytes(out, bytes);
        next = row + 1;
    }
    put_varint(out, u64::from(write.exemplars_max));
    put_varint(out, write.exemplars.len() as u64);
    for (series, exemplar) in &write.exemplars {
        put_series_ref(out, *series);
        put_content(out, exemplar);
    }
}

/// `rows` is how many the write has.
pub fn take(
    fields: &mut Fields<'_>,
    write: &mut WriteCommand,
    rows: usize,
) -> Result<(), Malformed> {
    let rows = rows as u64;
    let mut next = 0u64;
    for _ in 0..fields.count(2)? {
        let row = next.checked_add(fields.varint()?).filter(|row| *row < rows);
        let row = row.ok_or(Malformed("a histogram behind the rows"))?;
        next = row + 1;
        write
            .rows
            .histograms
            .push((row as u32, take_histogram(fields)?));
    }
    write.exemplars_max = fields.varint_u32()?;
    for _ in 0..fields.count(18)? {
        let series = take_series_ref(fields, write.labels.len())?;
        write.exemplars.push((series, take_content(fields)?));
    }
    Ok(())
}

/// A copy: what is stored must not keep the whole command in memory.
fn take_histogram(fields: &mut Fields<'_>) -> Result<Bytes, Malformed> {
    let bytes = fields.bytes()?;
    if bytes.len() > HISTOGRAM_BYTES_MAX {
        return Err(Malformed("a histogram too large"));
    }
    Histogram::decode(bytes).map_err(|e| Malformed(e.0))?;
    Ok(Bytes::copy_from_slice(bytes))
}
