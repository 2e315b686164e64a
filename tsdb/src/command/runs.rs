//! A write of which nobody needs the rows one by one: series and instants stay the runs that the log has, and
//! values lie in one column, behind those of the writes before.

use bytes::Bytes;

use super::columns::Rows;
use super::{
    CommandError, VERSION_10, VERSION_13, WRITE, WriteCommand, annex, take_fences, take_head,
};
use crate::fields::Fields;

/// Takes a write of version 10 or later to pieces: its rows join `rows`, all else of it is given. `None`, and
/// nothing is done, if the bytes are of another version or kind.
///
/// # Errors
/// As [`Command::decode`](super::Command::decode); what `rows` then holds of it means nothing.
pub fn decode(bytes: &Bytes, rows: &mut Rows) -> Result<Option<WriteCommand>, CommandError> {
    let mut fields = Fields::new(bytes);
    let version = fields.u8()?;
    if !(VERSION_10..=VERSION_13).contains(&version) || fields.u8()? != WRITE {
        return Ok(None);
    }
    let mut write = take_head(&mut fields, version)?;
    let count = rows.take(&mut fields, write.labels.len(), version)?;
    write.fences = take_fences(&mut fields, count)?;
    annex::take(&mut fields, &mut write, count)?;
    fields.end()?;
    Ok(Some(write))
}
