//! What an administrator's commands look like as bytes.

use model::{MatchOp, Matcher, Timestamp};

use super::{CompactCommand, DeleteCommand};
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
        for (command, bytes) in [(delete, bytes), (clean, vec![2, 6, 7])] {
            assert_eq!(command.encode(), bytes);
            assert_eq!(Command::decode(bytes.clone().into()), Ok(command));
            let older = [&[1], &bytes[1..]].concat();
            assert!(Command::decode(older.into()).is_err());
        }
        let bad = [2, 5, 1, 1, 2, 1, b'a', 1, b'(', 0, 0];
        assert!(Command::decode(bad.to_vec().into()).is_err());
    }
}
