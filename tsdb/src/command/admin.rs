//! What an administrator's commands look like as bytes.

use model::{MatchOp, Matcher, SeriesId, Timestamp};

use super::{CollectCommand, CompactCommand, DeleteCommand};
use crate::fields::{Fields, Malformed, put_bytes, put_varint, put_zigzag};

const OPS: [MatchOp; 4] = [
    MatchOp::Equal,
    MatchOp::NotEqual,
    MatchOp::Regex,
    MatchOp::NotRegex,
];

pub fn put_compact(out: &mut Vec<u8>, compact: &CompactCommand) {
    put_varint(out, compact.blocks.len() as u64);
    for &block in &compact.blocks {
        put_varint(out, block);
    }
}

pub fn take_compact(fields: &mut Fields<'_>) -> Result<CompactCommand, Malformed> {
    let count = fields.count(1)?;
    let blocks = (0..count)
        .map(|_| fields.varint())
        .collect::<Result<_, _>>()?;
    Ok(CompactCommand { blocks })
}

pub fn put_collect(out: &mut Vec<u8>, collect: &CollectCommand) {
    put_zigzag(out, collect.before.0);
    put_varint(out, collect.series.len() as u64);
    let mut next = 0;
    for SeriesId(id) in &collect.series {
        assert!(*id >= next, "series ascend");
        put_varint(out, id - next);
        next = id + 1;
    }
}

pub fn take_collect(fields: &mut Fields<'_>, rest: bool) -> Result<CollectCommand, Malformed> {
    let before = Timestamp(fields.zigzag()?);
    let count = fields.count(1)?;
    let mut next = 0u64;
    let take = |_| {
        let id = next.checked_add(fields.varint()?);
        let id = id.filter(|id| *id < u64::MAX);
        let id = id.ok_or(Malformed("a series behind all ids"))?;
        next = id + 1;
        Ok(SeriesId(id))
    };
    let series = (0..count).map(take).collect::<Result<_, Malformed>>()?;
    Ok(CollectCommand {
        before,
        series,
        rest,
    })
}

pub fn put_delete(out: &mut Vec<u8>, delete: &DeleteCommand) {
    put_varint(out, delete.any_of.len() as u64);
    for matchers in &delete.any_of {
        put_varint(out, matchers.len() as u64);
        for matcher in matchers {
            let op = OPS.iter().position(|op| *op == matcher.op);
            out.push(op.expect("every comparison has a number") as u8);
            put_bytes(out, matcher.name.as_bytes());
            put_bytes(out, matcher.value.as_bytes());
        }
    }
    put_zigzag(out, delete.start.0);
    put_zigzag(out, delete.end.0);
}

pub fn take_delete(fields: &mut Fields<'_>) -> Result<DeleteCommand, Malformed> {
    let any_of = (0..fields.count(1)?)
        .map(|_| {
            (0..fields.count(3)?)
                .map(|_| take_matcher(fields))
                .collect::<Result<Vec<_>, _>>()
        })
        .collect::<Result<_, _>>()?;
    Ok(DeleteCommand {
        any_of,
        start: Timestamp(fields.zigzag()?),
        end: Timestamp(fields.zigzag()?),
    })
}

/// The proposer has compiled the same pattern before.
fn take_matcher(fields: &mut Fields<'_>) -> Result<Matcher, Malformed> {
    let op = OPS.get(usize::from(fields.u8()?));
    let op = op.ok_or(Malformed("unknown comparison"))?;
    let (name, value) = (fields.text()?, fields.text()?);
    Matcher::new(*op, name, value).map_err(|_| Malformed("not a regular expression"))
}

#[cfg(test)]
mod tests {
    use super::super::{CleanCommand, Command};
    use super::*;

    #[test]
    fn the_bytes_are_fixed_and_come_back() {
        let delete = Command::Delete(DeleteCommand {
            any_of: vec![vec![
                Matcher::equal("a", "b"),
                Matcher::new(MatchOp::NotRegex, "c", "d|").unwrap(),
            ]],
            start: Timestamp(-1),
            end: Timestamp(2),
        });
        let bytes = [
            &[2, 5, 1, 2][..],
            &[0, 1, b'a', 1, b'b'],
            &[3, 1, b'c', 2, b'd', b'|'],
            &[1, 4],
        ]
        .concat();
        let clean = Command::Clean(CleanCommand { block: 7 });
        let collect = |rest| {
            Command::Collect(CollectCommand {
                before: Timestamp(-2),
                series: [0, 1, 9].map(SeriesId).to_vec(),
                rest,
            })
        };
        for (command, bytes) in [
            (delete, bytes),
            (clean, vec![2, 6, 7]),
            (collect(false), vec![2, 21, 3, 3, 0, 0, 7]),
            (collect(true), vec![2, 22, 3, 3, 0, 0, 7]),
        ] {
            assert_eq!(command.encode(), bytes);
            assert_eq!(Command::decode(bytes.clone().into()), Ok(command));
            let older = [&[1], &bytes[1..]].concat();
            assert!(Command::decode(older.into()).is_err());
        }
        let bad = [2, 5, 1, 1, 2, 1, b'a', 1, b'(', 0, 0];
        assert!(Command::decode(bad.to_vec().into()).is_err());
        let last = [&[0xff; 9][..], &[1]].concat();
        let behind_all = [&[2, 21, 0, 2, 0][..], &last].concat();
        assert!(Command::decode(behind_all.into()).is_err());
    }
}
