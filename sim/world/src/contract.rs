//! What every [`Disk`] must do, written once and run over each implementation.
//!
//! [`check`] tries every promise of the port that can be seen without cutting the power, on an
//! empty disk; [`compare`] drives two disks with the same random operations and expects the same
//! answers, errors included. Both panic where a promise is broken.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use model::port::{Dice, Disk, File, read_all, replace};

use crate::SimDice;

/// Tries every promise on an empty disk.
pub async fn check(disk: &dyn Disk) {
    files_grow_and_are_read(disk).await;
    files_are_cut(disk).await;
    names_are_created_once(disk).await;
    names_move(disk).await;
    links_share_a_file(disk).await;
    directories_nest_and_go(disk).await;
    open_files_outlive_their_names(disk).await;
    replaced_files_are_whole(disk).await;
    paths_stay_inside(disk).await;
}

async fn files_grow_and_are_read(disk: &dyn Disk) {
    let mut file = disk.create(at("grow")).await.unwrap();
    assert_eq!(disk.len(at("grow")).await.unwrap(), 0);
    file.append(pieces(&["one", "", "two"])).await.unwrap();
    file.append(Vec::new()).await.unwrap();
    file.flush().await.unwrap();
    let read = async |offset, len| disk.read(at("grow"), offset, len).await.unwrap();
    assert_eq!(read(0, 6).await, "onetwo");
    assert_eq!(read(2, 2).await, "et");
    assert_eq!(read(4, 100).await, "wo");
    assert_eq!(read(6, 1).await, "");
    assert_eq!(read(u64::MAX, usize::MAX).await, "");
    drop(file);
    let mut file = disk.open(at("grow")).await.unwrap();
    file.append(pieces(&["three"])).await.unwrap();
    assert_eq!(read_all(disk, at("grow")).await.unwrap(), "onetwothree");
    // More pieces than one system call takes.
    let many: Vec<Bytes> = (0..3000u32)
        .map(|i| i.to_le_bytes().to_vec().into())
        .collect();
    let all = many.concat();
    file.append(many).await.unwrap();
    assert_eq!(read(11, all.len() + 1).await, all);
    drop(file);
    disk.remove(at("grow")).await.unwrap();
}

async fn files_are_cut(disk: &dyn Disk) {
    let mut file = disk.create(at("cut")).await.unwrap();
    file.append(pieces(&["keepdrop"])).await.unwrap();
    file.truncate(4).await.unwrap();
    assert_eq!(disk.len(at("cut")).await.unwrap(), 4);
    file.append(pieces(&["more"])).await.unwrap();
    file.flush().await.unwrap();
    assert_eq!(read_all(disk, at("cut")).await.unwrap(), "keepmore");
    assert_eq!(
        kind(file.truncate(9).await),
        Some(io::ErrorKind::InvalidInput)
    );
    file.truncate(8).await.unwrap();
    assert_eq!(disk.len(at("cut")).await.unwrap(), 8);
    drop(file);
    disk.remove(at("cut")).await.unwrap();
}

async fn names_are_created_once(disk: &dyn Disk) {
    use io::ErrorKind::{AlreadyExists, IsADirectory, NotFound};
    drop(disk.create(at("once")).await.unwrap());
    assert_eq!(kind(disk.create(at("once")).await), Some(AlreadyExists));
    disk.create_dir_all(at("dir")).await.unwrap();
    assert_eq!(kind(disk.create(at("dir")).await), Some(AlreadyExists));
    assert_eq!(kind(disk.open(at("dir")).await), Some(IsADirectory));
    assert_eq!(kind(disk.remove(at("dir")).await), Some(IsADirectory));
    for path in ["missing", "missing/file"] {
        assert_eq!(kind(disk.open(at(path)).await), Some(NotFound));
        assert_eq!(kind(disk.read(at(path), 0, 1).await), Some(NotFound));
        assert_eq!(kind(disk.len(at(path)).await), Some(NotFound));
        assert_eq!(kind(disk.remove(at(path)).await), Some(NotFound));
        assert_eq!(kind(disk.remove_dir_all(at(path)).await), Some(NotFound));
        assert_eq!(kind(disk.rename(at(path), at("x")).await), Some(NotFound));
        assert_eq!(kind(disk.link(at(path), at("x")).await), Some(NotFound));
        assert_eq!(kind(disk.flush_dir(at(path)).await), Some(NotFound));
        assert_eq!(disk.list(at(path)).await.unwrap(), Vec::<PathBuf>::new());
    }
    assert_eq!(kind(disk.create(at("missing/file")).await), Some(NotFound));
    disk.remove(at("once")).await.unwrap();
    disk.remove_dir_all(at("dir")).await.unwrap();
}

async fn names_move(disk: &dyn Disk) {
    write(disk, "from", "new").await;
    write(disk, "to", "old").await;
    // A cached handle must not survive the move.
    assert_eq!(read_all(disk, at("to")).await.unwrap(), "old");
    disk.rename(at("from"), at("to")).await.unwrap();
    disk.flush_dir(at("")).await.unwrap();
    assert_eq!(read_all(disk, at("to")).await.unwrap(), "new");
    assert_eq!(
        kind(disk.len(at("from")).await),
        Some(io::ErrorKind::NotFound)
    );
    disk.create_dir_all(at("d/e")).await.unwrap();
    disk.rename(at("to"), at("d/e/f")).await.unwrap();
    assert_eq!(read_all(disk, at("d/e/f")).await.unwrap(), "new");
    disk.rename(at("d"), at("g")).await.unwrap();
    assert_eq!(
        kind(disk.read(at("d/e/f"), 0, 1).await),
        Some(io::ErrorKind::NotFound)
    );
    assert_eq!(read_all(disk, at("g/e/f")).await.unwrap(), "new");
    let below_itself = disk.rename(at("g"), at("g/e/g")).await;
    assert_eq!(kind(below_itself), Some(io::ErrorKind::InvalidInput));
    disk.remove_dir_all(at("g")).await.unwrap();
}

async fn links_share_a_file(disk: &dyn Disk) {
    write(disk, "one", "shared").await;
    disk.link(at("one"), at("two")).await.unwrap();
    assert_eq!(
        kind(disk.link(at("one"), at("two")).await),
        Some(io::ErrorKind::AlreadyExists)
    );
    disk.open(at("two"))
        .await
        .unwrap()
        .append(pieces(&["!"]))
        .await
        .unwrap();
    assert_eq!(read_all(disk, at("one")).await.unwrap(), "shared!");
    disk.remove(at("one")).await.unwrap();
    assert_eq!(read_all(disk, at("two")).await.unwrap(), "shared!");
    disk.remove(at("two")).await.unwrap();
}

async fn directories_nest_and_go(disk: &dyn Disk) {
    disk.create_dir_all(at("a/b")).await.unwrap();
    disk.create_dir_all(at("a/b")).await.unwrap();
    for path in ["a/b/2", "a/b/10", "a/z"] {
        write(disk, path, path).await;
    }
    let names = |list: Vec<PathBuf>| -> Vec<_> {
        list.iter().map(|name| name.display().to_string()).collect()
    };
    assert_eq!(names(disk.list(at("a")).await.unwrap()), ["b", "z"]);
    assert_eq!(names(disk.list(at("a/b")).await.unwrap()), ["10", "2"]);
    assert_eq!(
        kind(disk.list(at("a/z")).await),
        Some(io::ErrorKind::NotADirectory)
    );
    assert_eq!(
        kind(disk.create_dir_all(at("a/z")).await),
        Some(io::ErrorKind::AlreadyExists)
    );
    disk.flush_dir(at("a/b")).await.unwrap();
    assert_eq!(read_all(disk, at("a/b/2")).await.unwrap(), "a/b/2");
    disk.remove_dir_all(at("a")).await.unwrap();
    assert_eq!(
        kind(disk.read(at("a/b/2"), 0, 1).await),
        Some(io::ErrorKind::NotFound)
    );
    assert_eq!(disk.list(at("")).await.unwrap(), Vec::<PathBuf>::new());
}

async fn open_files_outlive_their_names(disk: &dyn Disk) {
    let mut file = disk.create(at("going")).await.unwrap();
    disk.remove(at("going")).await.unwrap();
    disk.flush_dir(at("")).await.unwrap();
    file.append(pieces(&["into the void"])).await.unwrap();
    file.flush().await.unwrap();
    write(disk, "going", "another").await;
    file.append(pieces(&["!"])).await.unwrap();
    assert_eq!(read_all(disk, at("going")).await.unwrap(), "another");
    disk.remove(at("going")).await.unwrap();
}

async fn replaced_files_are_whole(disk: &dyn Disk) {
    for text in ["first", "second, longer", "3"] {
        replace(disk, at("state"), text.into()).await.unwrap();
        assert_eq!(read_all(disk, at("state")).await.unwrap(), text);
        assert_eq!(disk.list(at("")).await.unwrap(), [at("state")]);
    }
    disk.remove(at("state")).await.unwrap();
}

async fn paths_stay_inside(disk: &dyn Disk) {
    for path in ["/etc/passwd", "../up", "a/../../up"] {
        let refused = Some(io::ErrorKind::InvalidInput);
        assert_eq!(kind(disk.create(at(path)).await), refused, "{path}");
        assert_eq!(kind(disk.read(at(path), 0, 1).await), refused, "{path}");
        assert_eq!(kind(disk.remove_dir_all(at(path)).await), refused, "{path}");
    }
}

/// Drives both disks with `steps` random operations and expects the same answers.
pub async fn compare(one: &dyn Disk, other: &dyn Disk, seed: u64, steps: usize) {
    let dice = SimDice::new(seed);
    let mut handles: Vec<[Box<dyn File>; 2]> = Vec::new();
    for step in 0..steps {
        let path = random_path(&dice);
        let told = match dice.below(14) {
            kind @ (0 | 1) => {
                let both = match kind {
                    0 => [one.create(&path).await, other.create(&path).await],
                    _ => [one.open(&path).await, other.open(&path).await],
                };
                let told = both.each_ref().map(|r| told(r.as_ref().map(|_| ())));
                if let [Ok(a), Ok(b)] = both {
                    handles.push([a, b]);
                }
                told
            }
            2..=5 if !handles.is_empty() => {
                let index = dice.below(handles.len() as u64) as usize;
                let seed = dice.roll();
                let mut told = [String::new(), String::new()];
                for (file, told) in handles[index].iter_mut().zip(&mut told) {
                    *told = change(file.as_mut(), &SimDice::new(seed)).await;
                }
                told
            }
            6 if !handles.is_empty() => {
                handles.swap_remove(dice.below(handles.len() as u64) as usize);
                continue;
            }
            _ => {
                let seed = dice.roll();
                [
                    rearrange(one, &path, &SimDice::new(seed)).await,
                    rearrange(other, &path, &SimDice::new(seed)).await,
                ]
            }
        };
        assert_eq!(told[0], told[1], "seed {seed}, step {step}, {path:?}");
        let lists = [one.list(&path).await, other.list(&path).await].map(told_of);
        assert_eq!(
            lists[0], lists[1],
            "list: seed {seed}, step {step}, {path:?}"
        );
        let bytes = [read_all(one, &path).await, read_all(other, &path).await].map(told_of);
        assert_eq!(
            bytes[0], bytes[1],
            "read: seed {seed}, step {step}, {path:?}"
        );
    }
}

async fn change(file: &mut dyn File, dice: &SimDice) -> String {
    let pieces = || {
        let count = dice.below(5);
        let pieces = (0..count).map(|_| vec![dice.roll() as u8; dice.up_to(20)].into());
        pieces.collect()
    };
    match dice.below(5) {
        0 => told(file.flush().await),
        1 => told(file.truncate(dice.below(40)).await),
        2 => told(file.append_durably(pieces()).await),
        _ => told(file.append(pieces()).await),
    }
}

async fn rearrange(disk: &dyn Disk, path: &Path, dice: &SimDice) -> String {
    let other = random_path(dice);
    match dice.below(9) {
        0 => told(disk.create_dir_all(path).await),
        1 | 2 => told(disk.rename(path, &other).await),
        3 => told(disk.link(path, &other).await),
        4 => told(disk.remove(path).await),
        5 if dice.one_in(3) => told(disk.remove_dir_all(path).await),
        6 => told(disk.flush_dir(path).await),
        7 => told(disk.len(path).await),
        _ => told(disk.read(path, dice.below(30), dice.up_to(30)).await),
    }
}

/// One to three names out of three, so that they meet often.
fn random_path(dice: &SimDice) -> PathBuf {
    (0..=dice.below(3))
        .map(|_| ["a", "b", "c"][dice.below(3) as usize])
        .collect()
}

fn told<T: std::fmt::Debug, E: std::borrow::Borrow<io::Error>>(result: Result<T, E>) -> String {
    format!("{:?}", result.map_err(|e| e.borrow().kind()))
}

fn told_of<T: std::fmt::Debug>(result: io::Result<T>) -> String {
    told(result)
}

fn at(path: &str) -> &Path {
    Path::new(path)
}

fn kind<T>(result: io::Result<T>) -> Option<io::ErrorKind> {
    result.err().map(|e| e.kind())
}

fn pieces(texts: &[&'static str]) -> Vec<Bytes> {
    texts
        .iter()
        .map(|text| Bytes::from_static(text.as_bytes()))
        .collect()
}

async fn write(disk: &dyn Disk, path: &str, text: &'static str) {
    let mut file = disk.create(at(path)).await.unwrap();
    file.append(pieces(&[text])).await.unwrap();
}
