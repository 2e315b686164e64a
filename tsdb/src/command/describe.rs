//! What a command says of families, as bytes.

use model::{FamilyMetadata, MetricKind, Timestamp};

use super::DescribeCommand;
use crate::fields::{Fields, Malformed, put_bytes, put_varint, put_zigzag};

pub fn put_describe(out: &mut Vec<u8>, describe: &DescribeCommand) {
    put_zigzag(out, describe.proposed_at.0);
    put_varint(out, describe.families.len() as u64);
    for family in &describe.families {
        put_metadata(out, family);
    }
}

pub fn take_describe(fields: &mut Fields<'_>) -> Result<DescribeCommand, Malformed> {
    let proposed_at = Timestamp(fields.zigzag()?);
    // Three texts and a type.
    let families = (0..fields.count(4)?)
        .map(|_| take_metadata(fields))
        .collect::<Result<_, _>>()?;
    Ok(DescribeCommand {
        proposed_at,
        families,
    })
}

/// Also the form in which checkpoints keep it.
pub(crate) fn put_metadata(out: &mut Vec<u8>, family: &FamilyMetadata) {
    put_bytes(out, family.name.as_bytes());
    out.push(family.kind.number());
    put_bytes(out, family.help.as_bytes());
    put_bytes(out, family.unit.as_bytes());
}

pub(crate) fn take_metadata(fields: &mut Fields<'_>) -> Result<FamilyMetadata, Malformed> {
    let name = fields.text()?.to_owned();
    if name.is_empty() {
        return Err(Malformed("a family without a name"));
    }
    let kind = MetricKind::of_number(fields.u8()?.into());
    Ok(FamilyMetadata {
        name,
        kind: kind.ok_or(Malformed("unknown type of family"))?,
        help: fields.text()?.to_owned(),
        unit: fields.text()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::Command;
    use super::*;

    #[test]
    fn the_bytes_are_fixed_and_come_back() {
        let describe = Command::Describe(DescribeCommand {
            proposed_at: Timestamp(-3),
            families: vec![FamilyMetadata {
                name: "up".to_owned(),
                kind: MetricKind::Gauge,
                help: "h".to_owned(),
                unit: String::new(),
            }],
        });
        let bytes = [3, 10, 5, 1, 2, b'u', b'p', 2, 1, b'h', 0];
        assert_eq!(describe.encode(), bytes[..]);
        assert_eq!(Command::decode(bytes.to_vec().into()), Ok(describe));
        let nameless = [3, 10, 5, 1, 0, 2, 0, 0];
        let of_no_type = [3, 10, 5, 1, 1, b'u', 8, 0, 0];
        let older = [2, 10, 5, 0];
        for bad in [&nameless[..], &of_no_type, &older, &bytes[..10]] {
            assert!(Command::decode(bad.to_vec().into()).is_err(), "{bad:?}");
        }
    }
}
