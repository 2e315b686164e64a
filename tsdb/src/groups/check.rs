//! Whether a push agrees with the groups of this shard: a family has one type everywhere, no name
//! is taken by a histogram's or summary's parts, and no series stands in two groups. The words are
//! those of client_golang, which Pushgateway answers with; which group it is stands behind them.

use model::group::{Family, FamilyKind, FamilySample, Group, GroupingKey, PushOp, PushOptions};
use model::number;

use super::Groups;
use super::index::job_of;

impl Groups {
    /// Whether the group has every series of the push, as the same type, or the push brings none:
    /// then it agrees with every other group as long as what is stored agrees, and needs no room.
    pub fn holds(&self, key: &GroupingKey, op: &PushOp, options: PushOptions) -> bool {
        let families = match op {
            PushOp::Put(families) | PushOp::Post(families) | PushOp::Add { families, .. } => {
                families
            }
            PushOp::Delete | PushOp::Expire | PushOp::Reject => return true,
        };
        let Some(group) = self.get(key) else {
            return false;
        };
        // When it expires is a series too.
        let expires = options.ttl_ms.is_none() || group.expires.is_some();
        expires
            && families.iter().all(|family| {
                let own = group.family(&family.name);
                own.is_some_and(|own| own.kind == family.kind && holds_series(own, family))
            })
    }

    /// What the push contradicts here; `None` when nothing.
    pub fn conflict(&self, key: &GroupingKey, op: &PushOp) -> Option<String> {
        let (families, keeps) = match op {
            PushOp::Put(families) => (families, false),
            PushOp::Post(families) | PushOp::Add { families, .. } => (families, true),
            PushOp::Delete | PushOp::Expire | PushOp::Reject => return None,
        };
        let push = Push {
            groups: self,
            key,
            own: self.get(key),
            families,
            keeps,
        };
        families.iter().find_map(|family| {
            push.other_type(family)
                .or_else(|| push.taken_name(family))
                .or_else(|| push.same_series(family))
        })
    }

    /// Some group but `key`'s that holds the family as `kind`. Looks at all groups: for words only.
    fn holder(&self, key: &GroupingKey, name: &str, kind: FamilyKind) -> String {
        let holds = |g: &&Group| {
            let mut families = g.families.iter();
            g.key != *key && families.any(|f| f.name == name && f.kind == kind)
        };
        let holder = self.iter().find(holds);
        holder.map_or_else(String::new, |group| place(&group.key))
    }
}

/// Behind the words of a refusal: in which group.
fn place(key: &GroupingKey) -> String {
    let pairs: Vec<String> = key.iter().map(|(n, v)| format!("{n}={v:?}")).collect();
    format!(" (held by the group {{{}}})", pairs.join(","))
}

struct Push<'a> {
    groups: &'a Groups,
    key: &'a GroupingKey,
    own: Option<&'a Group>,
    families: &'a [Family],
    /// Whether families of the group that are not pushed stay.
    keeps: bool,
}

impl Push<'_> {
    fn other_type(&self, family: &Family) -> Option<String> {
        let kinds = self.groups.index.kinds(&family.name);
        for (kind, _) in kinds.filter(|(kind, _)| *kind != family.kind) {
            if self.is_held(&family.name, kind) {
                let holder = self.groups.holder(self.key, &family.name, kind);
                return Some(format!(
                    "collected metric {} is not a {}{holder}",
                    describe(family),
                    kind.as_str().to_uppercase()
                ));
            }
        }
        None
    }

    /// Whether the family will still stand there as `kind` when the push is applied, beside what
    /// is pushed itself.
    fn is_held(&self, name: &str, kind: FamilyKind) -> bool {
        let own = self.own.into_iter().flat_map(|group| &group.families);
        let own = own.filter(|f| f.name == name && f.kind == kind).count();
        let is_pushed = self.families.iter().any(|f| f.name == name);
        let stays = own > 0 && self.keeps && !is_pushed;
        stays || self.groups.index.count(name, kind) > own
    }

    /// A histogram or summary takes the names of its parts.
    fn taken_name(&self, family: &Family) -> Option<String> {
        let collides = |part: &str, kind: FamilyKind, whole: &str, holder: String| {
            Some(format!(
                "collected metric named {part:?} collides with previously collected {} named {whole:?}{holder}",
                kind.as_str(),
            ))
        };
        for suffix in ["_count", "_sum", "_bucket"] {
            let stem = family.name.strip_suffix(suffix).unwrap_or_default();
            for kind in [FamilyKind::Histogram, FamilyKind::Summary] {
                if takes(kind, suffix) && self.is_held(stem, kind) {
                    let holder = self.groups.holder(self.key, stem, kind);
                    return collides(&family.name, kind, stem, holder);
                }
            }
            if !takes(family.kind, suffix) {
                continue;
            }
            let part = format!("{}{suffix}", family.name);
            let mut kinds = self.groups.index.kinds(&part);
            if let Some((kind, _)) = kinds.find(|(kind, _)| self.is_held(&part, *kind)) {
                let holder = self.groups.holder(self.key, &part, kind);
                return collides(&part, family.kind, &family.name, holder);
            }
        }
        None
    }

    /// A series also stands in another group of the job if the labels that tell that group apart
    /// are among the series' own: the group they name is looked up.
    fn same_series(&self, family: &Family) -> Option<String> {
        for names in self.groups.index.shapes(job_of(self.key)) {
            for sample in &family.samples {
                let value = |name: &String| {
                    let value = sample.labels.get(name);
                    value.map(|value| (name.clone(), value.to_owned()))
                };
                let pairs: Option<Vec<_>> = names.iter().map(value).collect();
                let Some(key) = pairs.and_then(GroupingKey::new) else {
                    continue;
                };
                if key == *self.key {
                    continue;
                }
                let other = self.groups.get(&key).into_iter();
                let mut same = other.flat_map(|g| &g.families);
                if let Some(other) = same.find(|f| f.name == family.name)
                    && other.samples.iter().any(|s| s.is_same_series(sample))
                {
                    return Some(format!(
                        "collected metric {} was collected before with the same name and label values{}",
                        describe(family),
                        place(&key)
                    ));
                }
            }
        }
        None
    }
}

fn takes(kind: FamilyKind, suffix: &str) -> bool {
    match kind {
        FamilyKind::Histogram => true,
        FamilyKind::Summary => suffix != "_bucket",
        FamilyKind::Counter | FamilyKind::Gauge | FamilyKind::Untyped => false,
    }
}

/// Nearly always the series come in the order they came in before.
fn holds_series<'a>(own: &'a Family, pushed: &'a Family) -> bool {
    let in_order = own.samples.iter().zip(&pushed.samples);
    if own.samples.len() >= pushed.samples.len()
        && in_order.into_iter().all(|(a, b)| a.is_same_series(b))
    {
        return true;
    }
    let identity = |s: &'a FamilySample| (s.suffix, &s.labels, s.empty_labels());
    let known: model::hash::Set<_> = own.samples.iter().map(identity).collect();
    let mut samples = pushed.samples.iter().map(identity);
    samples.all(|identity| known.contains(&identity))
}

/// The first metric of a family as the original's messages show it: protobuf's text form.
fn describe(family: &Family) -> String {
    let first = family.samples.first();
    let labels = first.into_iter().flat_map(|s| s.labels.iter());
    let bound = match family.kind {
        FamilyKind::Histogram => "le",
        FamilyKind::Summary => "quantile",
        _ => "",
    };
    let mut pairs: Vec<(&str, &str)> = labels.filter(|(name, _)| *name != bound).collect();
    let empty = first.map_or(&[][..], FamilySample::empty_labels);
    pairs.extend(empty.iter().map(|name| (name.as_str(), "")));
    pairs.sort_unstable();
    if !pairs.iter().any(|(name, _)| *name == "instance") {
        pairs.push(("instance", ""));
        pairs.sort_unstable();
    }
    let labels: String = pairs
        .iter()
        .map(|(n, v)| format!("label:{{name:{n:?}  value:{v:?}}}  "))
        .collect();
    let of = |suffix: &str| {
        let sample = family.samples.iter().find(|s| s.suffix == suffix);
        number::exposition(sample.map_or(0.0, |s| s.value))
    };
    let value = match bound {
        "" => format!("value:{}", of("")),
        _ => format!("sample_count:{}  sample_sum:{}", of("_count"), of("_sum")),
    };
    let kind = family.kind.as_str();
    format!("{:?} {{ {labels}{kind}:{{{value}}}}}", family.name)
}

#[cfg(test)]
mod tests {
    use model::{Labels, Timestamp};

    use super::*;
    use crate::command::PushCommand;

    fn key(pairs: &[(&str, &str)]) -> GroupingKey {
        let own = |&(n, v): &(&str, &str)| (n.to_owned(), v.to_owned());
        GroupingKey::new(pairs.iter().map(own)).unwrap()
    }

    fn family(name: &str, kind: FamilyKind, labels: &[(&str, &str)]) -> Family {
        Family {
            name: name.to_owned(),
            kind,
            samples: vec![FamilySample {
                suffix: "",
                labels: Labels::from_pairs(labels.iter().copied()),
                value: 1.0,
                rare: None,
            }],
            ..Family::default()
        }
    }

    fn put(groups: &mut Groups, key: &GroupingKey, families: &[Family]) {
        groups.apply(&PushCommand {
            proposed_at: Timestamp(1),
            key: key.clone(),
            op: PushOp::Put(families.to_vec()),
            options: PushOptions::default(),
        });
    }

    #[test]
    fn another_type_is_told_with_the_group_that_has_it() {
        let mut groups = Groups::default();
        let (a, b) = (key(&[("job", "a")]), key(&[("job", "b")]));
        let counter = family("x", FamilyKind::Counter, &[("job", "a")]);
        let gauge = family("x", FamilyKind::Gauge, &[("job", "b")]);
        put(&mut groups, &a, std::slice::from_ref(&counter));
        let told = groups.conflict(&b, &PushOp::Put(vec![gauge.clone()]));
        assert_eq!(
            told.unwrap(),
            "collected metric \"x\" { label:{name:\"instance\"  value:\"\"}  \
             label:{name:\"job\"  value:\"b\"}  gauge:{value:1}} is not a COUNTER \
             (held by the group {job=\"a\"})"
        );
        // A group may change its own type while nobody else has the family.
        assert_eq!(groups.conflict(&a, &PushOp::Put(vec![gauge.clone()])), None);
        put(&mut groups, &a, &[]);
        assert_eq!(groups.conflict(&b, &PushOp::Put(vec![gauge])), None);
        let put = PushOp::Put(vec![counter]);
        assert!(!groups.holds(&a, &put, PushOptions::default()));
    }

    #[test]
    fn a_push_is_held_when_it_brings_no_series() {
        let mut groups = Groups::default();
        let (a, b) = (key(&[("job", "a")]), key(&[("job", "b")]));
        let x = family("x", FamilyKind::Gauge, &[]);
        put(
            &mut groups,
            &a,
            &[x.clone(), family("y", FamilyKind::Gauge, &[])],
        );
        let plain = PushOptions::default();
        let mortal = PushOptions {
            ttl_ms: Some(5),
            ..PushOptions::default()
        };
        let post = |families: &[Family]| PushOp::Post(families.to_vec());
        for (key, op, options, held) in [
            (&a, post(std::slice::from_ref(&x)), plain, true),
            (&a, post(&[]), plain, true),
            // A group has series of its own, the first time to live another one.
            (&a, post(&[]), mortal, false),
            (&b, post(&[]), plain, false),
            (&b, PushOp::Delete, plain, true),
            (&b, PushOp::Reject, plain, true),
        ] {
            assert_eq!(groups.holds(key, &op, options), held, "{key:?} {op:?}");
        }
    }

    #[test]
    fn parts_of_histograms_are_taken_names() {
        let mut groups = Groups::default();
        let (a, b) = (key(&[("job", "a")]), key(&[("job", "b")]));
        put(&mut groups, &a, &[family("h", FamilyKind::Histogram, &[])]);
        let sum = family("h_sum", FamilyKind::Gauge, &[]);
        for (key, op, refused) in [
            (&b, PushOp::Put(vec![sum.clone()]), true),
            (&a, PushOp::Post(vec![sum.clone()]), true),
            (&a, PushOp::Put(vec![sum.clone()]), false),
        ] {
            assert_eq!(groups.conflict(key, &op).is_some(), refused, "{op:?}");
        }
        put(&mut groups, &a, &[sum]);
        let op = PushOp::Put(vec![family("h", FamilyKind::Summary, &[])]);
        let told = groups.conflict(&b, &op).unwrap();
        assert!(told.contains("named \"h_sum\" collides with previously collected summary"));
    }

    #[test]
    fn a_series_of_another_group_is_found_by_its_labels() {
        let mut groups = Groups::default();
        let one = key(&[("job", "a"), ("instance", "i")]);
        let all = key(&[("job", "a")]);
        let labels = [("job", "a"), ("instance", "i")];
        let series = family("x", FamilyKind::Gauge, &labels);
        put(&mut groups, &one, std::slice::from_ref(&series));
        let told = groups.conflict(&all, &PushOp::Put(vec![series])).unwrap();
        assert!(told.contains("was collected before with the same name and label values"));
        let other = family("x", FamilyKind::Gauge, &[("job", "a"), ("instance", "k")]);
        assert_eq!(groups.conflict(&all, &PushOp::Put(vec![other])), None);
    }
}
