//! What a command of differences says behind what a write does.

use model::Timestamp;
use model::batch::DeltaSpan;

use super::{AddCommand, WriteCommand};
use crate::fields::{Fields, Malformed, put_varint, put_zigzag};

pub fn put(out: &mut Vec<u8>, add: &AddCommand) {
    assert_eq!(add.deltas.len(), add.write.rows.len(), "a span a row");
    put_zigzag(out, add.stale_before.0);
    put_varint(out, u64::from(add.totals_max));
    let mut last = DeltaSpan::default();
    for span in &add.deltas {
        put_zigzag(out, span.start_ns.wrapping_sub(last.start_ns) as i64);
        put_zigzag(out, span.end_ns.wrapping_sub(last.end_ns) as i64);
        last = *span;
    }
}

pub fn take(fields: &mut Fields<'_>, write: WriteCommand) -> Result<AddCommand, Malformed> {
    let stale_before = Timestamp(fields.zigzag()?);
    let totals_max = fields.varint_u32()?;
    let mut last = DeltaSpan::default();
    let deltas = (0..write.rows.len()).map(|_| {
        last.start_ns = last.start_ns.wrapping_add(fields.zigzag()? as u64);
        last.end_ns = last.end_ns.wrapping_add(fields.zigzag()? as u64);
        Ok(last)
    });
    let deltas = deltas.collect::<Result<_, Malformed>>()?;
    Ok(AddCommand {
        write,
        deltas,
        stale_before,
        totals_max,
    })
}

#[cfg(test)]
mod tests {
    use model::{Labels, SeriesId};

    use super::super::{Command, SeriesRef};
    use super::*;

    #[test]
    fn the_bytes_come_back_and_a_span_may_not_be_missing() {
        let mut write = WriteCommand {
            proposed_at: Timestamp(9),
            labels: vec![Labels::from_pairs([("a", "b")])],
            ..WriteCommand::default()
        };
        write.rows.push(SeriesRef::New(0), Timestamp(2), 1.5);
        let known = SeriesRef::Known(SeriesId(7));
        write.rows.push(known, Timestamp(3), 2.0);
        let span = |start_ns, end_ns| DeltaSpan { start_ns, end_ns };
        let add = Command::Add(AddCommand {
            write,
            deltas: vec![span(u64::MAX, 2_000_000), span(5, 3_999_999)],
            stale_before: Timestamp(-1),
            totals_max: 10,
        });
        let bytes = add.encode();
        assert_eq!(bytes[..2], [13, 11]);
        assert_eq!(Command::decode(bytes.clone()), Ok(add));
        for end in 0..bytes.len() {
            assert!(Command::decode(bytes.slice(..end)).is_err());
        }
        let older = [&[3], &bytes[1..]].concat();
        assert!(Command::decode(older.into()).is_err());
    }
}
