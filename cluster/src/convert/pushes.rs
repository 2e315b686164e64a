//! Groups, what is pushed to them, and what is said of families.

use std::sync::Arc;

use bytes::Bytes;
use model::group::{
    Family, FamilyKind, FamilySample, Group, GroupingKey, PushId, PushOp, PushOptions, Rare,
};
use model::{FamilyMetadata, Histogram, MetricKind, Timestamp};
use proto::node as wire;

use super::{Malformed, labels_from_wire, labels_to_wire};

const KINDS: [FamilyKind; 5] = [
    FamilyKind::Untyped,
    FamilyKind::Counter,
    FamilyKind::Gauge,
    FamilyKind::Histogram,
    FamilyKind::Summary,
];
const SUFFIXES: [&str; 4] = ["", "_bucket", "_sum", "_count"];

fn family_to_wire(family: &Family) -> wire::Family {
    let sample = |s: &FamilySample| wire::FamilySample {
        suffix: s.suffix.to_owned(),
        labels: labels_to_wire(&s.labels),
        value_bits: s.value.to_bits(),
        empty: s.empty_labels().to_vec(),
        native: s.native().map_or_else(Bytes::new, |native| {
            let mut bytes = Vec::new();
            native.encode(&mut bytes);
            bytes.into()
        }),
        implied: s.is_implied(),
    };
    wire::Family {
        name: family.name.clone(),
        help: family.help.clone(),
        kind: KINDS
            .iter()
            .position(|k| *k == family.kind)
            .expect("all are listed") as u32,
        samples: family.samples.iter().map(sample).collect(),
    }
}

fn family_from_wire(family: wire::Family) -> Result<Family, Malformed> {
    let sample = |s: wire::FamilySample| {
        let suffix = SUFFIXES.iter().find(|known| **known == s.suffix);
        Ok(FamilySample {
            suffix: suffix.ok_or_else(|| Malformed::new("suffix"))?,
            labels: labels_from_wire(&s.labels)?,
            value: f64::from_bits(s.value_bits),
            rare: rare_from_wire(s.empty, &s.native, s.implied)?,
        })
    };
    Ok(Family {
        name: family.name,
        help: family.help,
        kind: *KINDS
            .get(family.kind as usize)
            .ok_or_else(|| Malformed::new("kind"))?,
        samples: family
            .samples
            .into_iter()
            .map(sample)
            .collect::<Result<_, _>>()?,
    })
}

fn rare_from_wire(
    empty: Vec<String>,
    native: &[u8],
    implied: bool,
) -> Result<Option<Box<Rare>>, Malformed> {
    let native = match native {
        [] => None,
        bytes => {
            let histogram = Histogram::decode(bytes).map_err(|_| Malformed::new("native"))?;
            Some(Arc::new(histogram))
        }
    };
    let rare = Rare {
        empty,
        native,
        implied,
    };
    Ok(rare.boxed())
}

pub fn key_to_wire(key: &GroupingKey) -> Vec<wire::GroupingLabel> {
    let label = |(name, value): (&str, &str)| wire::GroupingLabel {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    key.iter().map(label).collect()
}

pub fn key_from_wire(key: Vec<wire::GroupingLabel>) -> Result<GroupingKey, Malformed> {
    let pairs = key.into_iter().map(|label| (label.name, label.value));
    GroupingKey::new(pairs).ok_or_else(|| Malformed::new("grouping key without job"))
}

pub fn group_to_wire(group: &Group) -> wire::Group {
    wire::Group {
        key: key_to_wire(&group.key),
        families: group.families.iter().map(family_to_wire).collect(),
        push_time_ms: group.push_time.0,
        push_failure_time_ms: group.push_failure_time.0,
        expires_ms: group.expires.map(|at| at.0),
    }
}

pub fn group_from_wire(group: wire::Group) -> Result<Group, Malformed> {
    Ok(Group {
        key: key_from_wire(group.key)?,
        families: group
            .families
            .into_iter()
            .map(family_from_wire)
            .collect::<Result<_, _>>()?,
        push_time: Timestamp(group.push_time_ms),
        push_failure_time: Timestamp(group.push_failure_time_ms),
        expires: group.expires_ms.map(Timestamp),
    })
}

/// A request without its cluster and shard.
pub fn push_to_wire(key: &GroupingKey, op: &PushOp, options: PushOptions) -> wire::PushRequest {
    use wire::push_request::Op;
    let none = &Vec::new();
    let (kind, families, id) = match op {
        PushOp::Put(families) => (Op::Put, families, None),
        PushOp::Post(families) => (Op::Post, families, None),
        PushOp::Add { families, id } => (Op::Add, families, Some(id)),
        PushOp::Delete => (Op::Delete, none, None),
        PushOp::Reject => (Op::Reject, none, None),
        PushOp::Expire => unreachable!("a shard's leader alone decides what has expired"),
    };
    wire::PushRequest {
        key: key_to_wire(key),
        op: kind.into(),
        families: families.iter().map(family_to_wire).collect(),
        id: id
            .map(|id| id.as_bytes().to_vec().into())
            .unwrap_or_default(),
        ttl_ms: options.ttl_ms.unwrap_or(0),
        unchecked: options.unchecked,
        brief: options.brief,
        partial: options.partial,
        ..wire::PushRequest::default()
    }
}

pub fn push_from_wire(
    request: wire::PushRequest,
) -> Result<(GroupingKey, PushOp, PushOptions), Malformed> {
    use wire::push_request::Op;
    let kind = request.op();
    let options = PushOptions {
        ttl_ms: (request.ttl_ms > 0).then_some(request.ttl_ms),
        unchecked: request.unchecked,
        brief: request.brief,
        partial: request.partial,
    };
    if !options.is_valid() {
        return Err(Malformed::new("time to live"));
    }
    let families = request.families.into_iter().map(family_from_wire);
    let families = families.collect::<Result<Vec<_>, Malformed>>()?;
    let op = match kind {
        Op::Put => PushOp::Put(families),
        Op::Post => PushOp::Post(families),
        Op::Add => PushOp::Add {
            families,
            id: PushId::new(&request.id).ok_or_else(|| Malformed::new("push id"))?,
        },
        Op::Delete => PushOp::Delete,
        Op::Reject => PushOp::Reject,
    };
    Ok((key_from_wire(request.key)?, op, options))
}

pub fn metadata_families_to_wire(families: &[FamilyMetadata]) -> Vec<wire::FamilyMetadata> {
    let families = families.iter().map(|family| wire::FamilyMetadata {
        name: family.name.clone(),
        kind: family.kind.number().into(),
        help: family.help.clone(),
        unit: family.unit.clone(),
    });
    families.collect()
}

pub fn metadata_families_from_wire(
    families: Vec<wire::FamilyMetadata>,
) -> Result<Vec<FamilyMetadata>, Malformed> {
    let family = |family: wire::FamilyMetadata| {
        if family.name.is_empty() {
            return Err(Malformed::new("name of a family"));
        }
        let kind = MetricKind::of_number(family.kind.into());
        Ok(FamilyMetadata {
            name: family.name,
            kind: kind.ok_or_else(|| Malformed::new("kind"))?,
            help: family.help,
            unit: family.unit,
        })
    };
    families.into_iter().map(family).collect()
}

#[cfg(test)]
mod tests {
    use model::Labels;

    use super::*;

    #[test]
    fn groups_and_ops_survive_the_wire() {
        let families = vec![Family {
            name: "h".into(),
            help: Some("what".into()),
            kind: FamilyKind::Histogram,
            samples: vec![FamilySample {
                suffix: "_bucket",
                labels: Labels::from_pairs([("le", "+Inf")]),
                value: -0.0,
                rare: None,
            }],
        }];
        let key = [
            ("job".to_owned(), "a".to_owned()),
            ("zone".to_owned(), String::new()),
        ];
        let group = Group {
            key: GroupingKey::new(key).unwrap(),
            families: families.clone(),
            push_time: Timestamp(4),
            push_failure_time: Timestamp(0),
            expires: Some(Timestamp(9)),
        };
        let key = group.key.clone();
        let again = group_from_wire(group_to_wire(&group)).unwrap();
        let bits = |group: &Group| group.families[0].samples[0].value.to_bits();
        assert_eq!(bits(&again), bits(&group), "a zero keeps its sign");
        assert_eq!(again, group);
        for op in [
            PushOp::Put(families.clone()),
            PushOp::Add {
                families: families.clone(),
                id: PushId::new(b"one").unwrap(),
            },
            PushOp::Post(families),
            PushOp::Delete,
            PushOp::Reject,
        ] {
            for ttl_ms in [None, Some(7)] {
                let options = PushOptions {
                    ttl_ms,
                    unchecked: ttl_ms.is_some(),
                    brief: ttl_ms.is_none(),
                    partial: ttl_ms.is_some(),
                };
                let sent = push_to_wire(&key, &op, options);
                assert_eq!(push_from_wire(sent), Ok((key.clone(), op.clone(), options)));
            }
        }
        assert!(group_from_wire(wire::Group::default()).is_err());
    }
}
