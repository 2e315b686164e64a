//! A block of more series than a segment of its index tells of, as it stands on a disk.

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use model::matcher::{MatchOp, matches_all};
use model::port::{Disk, read_all};
use model::{Labels, Matcher, SeriesId, Timestamp};
use sim_world::SimDisk;
use support::replica::{run, world};
use tsdb::FileEntry;
use tsdb::block::{Among, IndexCheck, Reader, Writer};
use tsdb::chunk::Point;
use tsdb::part::Column;

const SERIES: u64 = 67_000;
const DIR: &str = "blocks";

fn labels(n: u64) -> Labels {
    let long = match n % 9_000 {
        7 => format!("{}{n:05}", "long".repeat(16 << 10)),
        _ => String::new(),
    };
    Labels::from_pairs([
        ("__name__", format!("metric_{}", n % 700)),
        (
            "instance",
            format!("10.0.{}.{}:9100", n / 700 / 250, n / 700 % 250),
        ),
        ("long", long),
        ("uid", format!("{:016x}", model::hash::split_mix(n))),
        ("zone", format!("z{}", n / 700 % 3)),
    ])
}

async fn written(disk: &dyn Disk, id: u64) -> FileEntry {
    let dir = Path::new(DIR);
    disk.create_dir_all(dir).await.unwrap();
    let mut writer = Writer::create(disk, dir, id).await.unwrap();
    let column = Column {
        floats: vec![Point::new(Timestamp(1), 1.0)],
        ..Column::default()
    };
    for n in 0..SERIES {
        writer
            .add(SeriesId(n * 2), labels(n), &column)
            .await
            .unwrap();
    }
    writer.finish().await.unwrap().0
}

#[test]
fn series_of_several_segments_are_found() {
    run(async {
        let disks = [1, 2].map(|seed| world(&SimDisk::new(seed)).disk);
        let entry = written(&*disks[0], 7).await;
        assert_eq!(written(&*disks[1], 7).await, entry, "equal bytes");
        let path = Path::new(DIR).join(&entry.name);
        let bytes = read_all(&*disks[0], &path).await.unwrap();
        assert_eq!(&bytes[..8], b"qblock\x05\n");

        let all: Vec<Labels> = (0..SERIES).map(labels).collect();
        let tables = Arc::default();
        let reader = Reader::open(disks[0].clone(), Path::new(DIR), entry, &tables).await;
        let reader = reader.unwrap();
        let mut check = IndexCheck::new(&reader);
        for some in all.chunks(1024) {
            check.add(some).await.unwrap();
        }
        for (op, name, value) in [
            (MatchOp::Equal, "__name__", "metric_17"),
            (
                MatchOp::Equal,
                "uid",
                &*format!("{:016x}", model::hash::split_mix(66_000)),
            ),
            (MatchOp::Equal, "long", all[63_007].get("long").unwrap()),
            (MatchOp::Equal, "long", ""),
            (MatchOp::NotEqual, "zone", "z1"),
            (MatchOp::Regex, "uid", "a7.*"),
            (MatchOp::Regex, "uid", ".*a7f.*"),
            (MatchOp::Regex, "instance", "10.0.0.(17|21):9100"),
            (MatchOp::NotRegex, "__name__", "metric_1.*|metric_2"),
            (MatchOp::NotRegex, "long", ".+7"),
        ] {
            let matchers = [Matcher::new(op, name, value).unwrap()];
            let found = reader.select_any(&[matchers.to_vec()]).await.unwrap();
            let chosen = (0..).zip(&all).filter(|(_, l)| matches_all(&matchers, l));
            let expected: Vec<SeriesId> = chosen.map(|(n, _)| SeriesId(n * 2)).collect();
            assert!(!expected.is_empty() && found == expected, "{}", found.len());
        }
        for n in [0, 7, 1_023, 1_024, 65_535, 65_536, 66_999] {
            let labels = &all[n];
            assert!(reader.may_have(labels));
            let found = reader.find(labels).await.unwrap();
            assert_eq!(found, Some(SeriesId(n as u64 * 2)));
            assert_eq!(reader.find(&labels.without("uid")).await.unwrap(), None);
        }
        let ids: Vec<SeriesId> = (0..SERIES)
            .step_by(9_000)
            .map(|n| SeriesId(n * 2))
            .collect();
        let some: Vec<Labels> = (0..SERIES).step_by(9_000).map(labels).collect();
        assert_eq!(reader.labels_of(&ids).await.unwrap(), some);
        assert!(all.iter().all(|labels| reader.may_have(labels)));
        let others = all.iter().map(|labels| labels.without("zone"));
        let mistaken = others.filter(|labels| reader.may_have(labels)).count();
        assert!(mistaken < SERIES as usize * 3 / 100, "{mistaken}");
        let mut instances = BTreeSet::new();
        let added = reader.add_values("instance", &Among::All, &mut instances);
        added.await.unwrap();
        // 93 or 94 targets in the first segment, and the others.
        assert_eq!(instances.len(), 96);
    });
}
