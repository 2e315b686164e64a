//! What a block answers, held against the index in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use model::hash::split_mix;
use model::matcher::MatchOp;
use model::matcher::matches_all;
use model::port::Disk;
use proptest::prelude::*;
use sim_world::{SimClock, SimDisk};

use super::*;
use crate::block::{IndexCheck, Tables, Writer};
use crate::chunk::Point;
use crate::index::select_any;
use crate::index::tests::op;
use crate::part::Column;

const DIR: &str = "blocks";

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime").block_on(future)
}

/// No two alike; one without labels, now and then one with long values that begin alike.
fn labels(seed: u64, n: u64) -> Labels {
    let dice = split_mix(seed + n);
    if n == 17 {
        return Labels::default();
    }
    let long = match dice % 211 {
        0 => format!("{}{}", "long".repeat(16 << 10), n % 5),
        _ => String::new(),
    };
    let some = |is_some: bool, text: String| if is_some { text } else { String::new() };
    Labels::from_pairs([
        ("__name__", format!("m{}", n % 7)),
        ("host", format!("host-{}", n / 50)),
        ("long", long),
        ("n", n.to_string()),
        ("rare", some(n % 997 == 3, "yes".to_owned())),
        (
            "spread",
            some(!dice.is_multiple_of(3), format!("s{}", dice % 100)),
        ),
        (
            "größe",
            some(
                dice.is_multiple_of(2),
                "äöü".chars().cycle().take(dice as usize % 5).collect(),
            ),
        ),
    ])
}

struct Block {
    reader: Reader,
    all: Vec<(SeriesId, Labels)>,
    /// The same in memory.
    index: Index,
}

async fn block(seed: u64, count: u64, gaps: u64) -> Block {
    let all = (0..count).map(|n| labels(seed, n));
    block_of(seed, gaps, all.collect()).await
}

async fn block_of(seed: u64, gaps: u64, labels: Vec<Labels>) -> Block {
    let world = sim_world::world(0, &SimClock::new(), &SimDisk::new(seed));
    let disk: Arc<dyn Disk> = world.disk.clone();
    let dir = Path::new(DIR);
    disk.create_dir_all(dir).await.unwrap();
    let mut writer = Writer::create(&*disk, dir, 1).await.unwrap();
    let (mut all, mut index) = (Vec::new(), Index::default());
    for (n, labels) in (0..).zip(labels) {
        let id = SeriesId(n + n / gaps);
        let column = Column {
            floats: vec![Point::new(model::Timestamp(n as i64), 1.0)],
            ..Column::default()
        };
        writer.add(id, labels.clone(), &column).await.unwrap();
        index.add(id, &labels);
        all.push((id, labels));
    }
    let (entry, ..) = writer.finish().await.unwrap();
    let tables = Arc::<Tables>::default();
    let reader = Reader::open(disk, dir, entry, &tables).await.unwrap();
    Block { reader, all, index }
}

fn matcher() -> impl Strategy<Value = Matcher> {
    let name = prop_oneof![
        Just("__name__"),
        Just("host"),
        Just("long"),
        Just("n"),
        Just("rare"),
        Just("spread"),
        Just("größe"),
        Just("none"),
    ];
    let value = prop_oneof![
        Just(String::new()),
        Just(".*".to_owned()),
        Just(".+".to_owned()),
        Just("yes".to_owned()),
        Just("äö".to_owned()),
        Just("long.*3".to_owned()),
        Just("1.*".to_owned()),
        Just(".*7".to_owned()),
        Just("|s5".to_owned()),
        Just("m1|m3|m5".to_owned()),
        Just("host-1.*".to_owned()),
        (0u32..9).prop_map(|n| format!("m{n}")),
        (0u32..99).prop_map(|n| format!("host-{n}")),
        (0u32..99).prop_map(|n| format!("s{n}|s1{n}")),
        (0u32..5000).prop_map(|n| n.to_string()),
        (0u32..6).prop_map(|n| format!("{}{n}", "long".repeat(16 << 10))),
    ];
    // A pattern of so many bytes is too long to be one.
    let fits = |(op, _, value): &(MatchOp, &str, String)| {
        value.len() < 1_000 || matches!(op, MatchOp::Equal | MatchOp::NotEqual)
    };
    let parts = (op(), name, value).prop_filter("a pattern", fits);
    parts.prop_map(|(op, name, value)| Matcher::new(op, name, value).unwrap())
}

fn lists() -> impl Strategy<Value = Vec<Vec<Matcher>>> {
    let lists = prop::collection::vec(prop::collection::vec(matcher(), 0..4), 0..3);
    // One of one matcher more often than not.
    prop_oneof![lists, matcher().prop_map(|matcher| vec![vec![matcher]])]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn a_block_answers_as_the_index_in_memory(
        seed in 0u64..1_000,
        count in prop_oneof![1u64..60, 1_000u64..1_100, 2_000u64..5_000],
        gaps in 1u64..400,
        lists in prop::collection::vec(lists(), 40),
        left_out in prop_oneof![Just(0), 1u64..10],
        wanted in prop::collection::vec(any::<prop::sample::Index>(), 1..60),
    ) {
        run(async {
            let block = block(seed, count, gaps).await;
            for any_of in lists {
                let expected = match any_of.is_empty() {
                    true => block.index.select(&[]),
                    false => select_any(&block.index, &any_of),
                };
                let found = block.reader.select_any(&any_of).await.unwrap();
                assert_eq!(found, expected, "{any_of:?}");
                let without = expected.iter().copied().filter(|id| split_mix(id.0) % 9 < left_out);
                check_texts(&block, &any_of, without.collect()).await;
            }
            let mut wanted: Vec<usize> = wanted.iter().map(|at| at.index(block.all.len())).collect();
            wanted.sort_unstable();
            wanted.dedup();
            let (ids, labels): (Vec<_>, Vec<_>) = wanted.iter().map(|&at| block.all[at].clone()).unzip();
            assert_eq!(block.reader.labels_of(&ids).await.unwrap(), labels);
            for (id, labels) in ids.iter().zip(&labels) {
                assert!(block.reader.may_have(labels));
                assert_eq!(block.reader.find(labels).await.unwrap(), Some(*id));
                // Every label that it has, and one more; one less.
                let more = labels.to_builder().set("extra", "x").build();
                assert_eq!(block.reader.find(&more).await.unwrap(), None);
                let less = labels.without("n");
                let with_less = block.all.iter().find(|(_, labels)| *labels == less);
                let found = block.reader.find(&less).await.unwrap();
                assert_eq!(found, with_less.map(|(id, _)| *id));
            }
        });
    }
}

/// No label of any is its own, and neighbours have few in common.
fn mixed(seed: u64, count: u64) -> Vec<Labels> {
    let mut order: Vec<u64> = (0..count).collect();
    order.sort_by_key(|n| split_mix(seed + n));
    let labels = |n: u64| {
        let digits = [("a", n % 23), ("b", n / 23 % 29), ("c", n / 667)];
        Labels::from_pairs(digits.map(|(name, digit)| (name, digit.to_string())))
    };
    order.into_iter().map(labels).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn many_are_found_together_as_one_by_one(
        seed in 0u64..1_000,
        count in prop_oneof![1u64..60, 1_000u64..1_100, 2_000u64..5_000],
        gaps in 1u64..400,
        is_mixed in any::<bool>(),
        (from, of_hundred) in (any::<prop::sample::Index>(), prop_oneof![Just(1), Just(20), Just(100)]),
        most in prop_oneof![1usize..4, 30usize..300, Just(usize::MAX)],
    ) {
        run(async {
            let all = match is_mixed {
                true => mixed(seed, count),
                false => (0..count).map(|n| labels(seed, n)).collect(),
            };
            let from = from.index(all.len());
            let is_wanted = |n: &usize| split_mix(seed + *n as u64) % 100 < of_hundred;
            let wanted = (from..all.len()).filter(is_wanted).take(most);
            let mut sought: Vec<Labels> = Vec::new();
            for (nth, at) in wanted.enumerate() {
                let labels = all[at].clone();
                match nth % 5 {
                    // Twice, and one that differs by a label more, by one less.
                    0 => sought.extend([labels.clone(), labels]),
                    1 => sought.extend([labels.to_builder().set("extra", "x").build(), labels]),
                    2 => sought.extend([labels.without("a"), labels.without("n"), labels]),
                    _ => sought.push(labels),
                }
            }
            let block = block_of(seed, gaps, all).await;
            let ids: BTreeMap<&Labels, SeriesId> =
                block.all.iter().map(|(id, labels)| (labels, *id)).collect();
            let there = sought.iter().filter_map(|labels| Some((*ids.get(labels)?, labels)));
            let expected: BTreeMap<SeriesId, &Labels> = there.collect();
            let sought: Vec<&Labels> = sought.iter().collect();
            // The second time there are tables in memory.
            for _ in 0..2 {
                let mut found = block.reader.find_all(&sought).await.unwrap();
                found.sort_by_key(|(id, _)| *id);
                assert!(found.into_iter().eq(expected.clone()));
            }
        });
    }
}

/// Names and values of the series that are chosen and not left out.
async fn check_texts(block: &Block, any_of: &[Vec<Matcher>], without: Vec<SeriesId>) {
    let chosen = block.all.iter().filter(|(id, labels)| {
        let is_chosen = |matchers: &Vec<Matcher>| matches_all(matchers, labels);
        (any_of.is_empty() || any_of.iter().any(is_chosen)) && !without.contains(id)
    });
    let mut texts: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (name, value) in chosen.flat_map(|(_, labels)| labels) {
        texts.entry(name).or_default().insert(value.to_owned());
    }
    // One that it does not have.
    let others = [SeriesId(u64::MAX)].into_iter().chain(without);
    let among = block.reader.among(any_of, others).await.unwrap();
    let mut names = BTreeSet::new();
    block.reader.add_names(&among, &mut names).await.unwrap();
    assert!(names.iter().eq(texts.keys()), "{any_of:?}: {names:?}");
    let none = BTreeSet::new();
    for name in block.index.names().chain(["none"]) {
        let mut values = BTreeSet::new();
        let added = block.reader.add_values(name, &among, &mut values).await;
        added.unwrap();
        assert_eq!(
            &values,
            texts.get(name).unwrap_or(&none),
            "{any_of:?}: {name}"
        );
        // Those that are known already stay.
        let before = values.clone();
        let added = block.reader.add_values(name, &Among::All, &mut values);
        added.await.unwrap();
        assert!(values.is_superset(&before));
        assert!(
            values
                .iter()
                .eq(block.index.values(name).map(|(value, _)| value))
        );
    }
}

#[test]
fn the_index_is_that_of_the_labels_and_of_no_others() {
    run(async {
        let block = block(5, 4_500, 100).await;
        let check = async |labels: &dyn Fn(usize) -> Labels| {
            let mut check = IndexCheck::new(&block.reader);
            let all: Vec<Labels> = (0..block.all.len()).map(labels).collect();
            for some in all.chunks(TABLE_SERIES) {
                check.add(some).await?;
            }
            Ok::<(), StorageError>(())
        };
        check(&|at| block.all[at].1.clone()).await.unwrap();
        for other in [0, 1_500, 2_100, 4_499] {
            // One label too many, one too few, two changed places.
            let more = |at: usize| {
                let mut labels = block.all[at].1.to_builder();
                if at == other {
                    labels.set("rare", "so");
                }
                labels.build()
            };
            let less = |at: usize| match at == other {
                true => block.all[at].1.without("n"),
                false => block.all[at].1.clone(),
            };
            let swapped = |at: usize| match at {
                at if at == other => block.all[at / 2 + 7].1.clone(),
                at if at == other / 2 + 7 => block.all[other].1.clone(),
                at => block.all[at].1.clone(),
            };
            for labels in [&more as &dyn Fn(usize) -> Labels, &less, &swapped] {
                let found = check(labels).await.unwrap_err();
                assert!(found.to_string().contains("index is corrupt"), "{found}");
            }
        }
    });
}

#[test]
fn labels_of_series_that_it_does_not_have_are_an_error() {
    run(async {
        let block = block(5, 10, 3).await;
        assert!(block.reader.labels_of(&[SeriesId(3)]).await.is_err());
        assert_eq!(block.reader.labels_of(&[]).await.unwrap(), []);
    });
}
