//! Everything that a block says of its series, asked of its file.

use std::collections::BTreeSet;

use model::matcher::MatchOp;
use model::{Labels, Matcher, SeriesId};
use tsdb::StorageError;
use tsdb::block::Reader;

/// The series of a block.
pub async fn series(reader: &Reader) -> Result<Vec<(SeriesId, Labels)>, StorageError> {
    let (mut ids, mut sets) = (reader.ids().iter(), reader.label_sets());
    let mut all = Vec::new();
    for _ in 0..reader.tables() {
        let labels = sets.next().await?.into_iter();
        all.extend(labels.zip(ids.by_ref()).map(|(labels, id)| (id, labels)));
    }
    Ok(all)
}

fn matchers(all: &[(SeriesId, Labels)]) -> Vec<Matcher> {
    let mut matchers = vec![Matcher::equal("none", ""), Matcher::equal("none", "x")];
    let of = |op, name: &str, value: &str| Matcher::new(op, name, value).expect("a pattern");
    for (name, value) in all.iter().step_by(all.len() / 4 + 1).flat_map(|(_, l)| l) {
        let front: String = value.chars().take(1).collect();
        for op in [MatchOp::Equal, MatchOp::NotEqual] {
            matchers.extend([of(op, name, value), of(op, name, "")]);
        }
        for op in [MatchOp::Regex, MatchOp::NotRegex] {
            let patterns = [format!("{front}.*"), ".+".to_owned(), format!("{value}|x")];
            matchers.extend(patterns.map(|pattern| of(op, name, &pattern)));
        }
    }
    matchers
}

/// Values of a label, or names.
async fn texts(
    reader: &Reader,
    any_of: &[Vec<Matcher>],
    without: &[SeriesId],
    name: Option<&str>,
) -> Result<BTreeSet<String>, StorageError> {
    let among = reader.among(any_of, without.iter().copied()).await?;
    let mut texts = BTreeSet::new();
    match name {
        None => reader.add_names(&among, &mut texts).await?,
        Some(name) => reader.add_values(name, &among, &mut texts).await?,
    }
    Ok(texts)
}

/// What a block that has, or should have, these series answers to everything that it can be asked.
pub async fn answers(
    reader: &Reader,
    all: &[(SeriesId, Labels)],
) -> Vec<Result<String, StorageError>> {
    let mut answers = Vec::new();
    let matchers = matchers(all);
    for matcher in &matchers {
        let found = reader.select_any(&[vec![matcher.clone()]]).await;
        answers.push(found.map(|ids| format!("{matcher}: {ids:?}")));
    }
    let lists: Vec<Vec<Matcher>> = matchers.chunks(3).map(<[Matcher]>::to_vec).collect();
    let found = reader.select_any(&lists).await;
    answers.push(found.map(|ids| format!("any: {ids:?}")));
    let ids: Vec<SeriesId> = all.iter().map(|(id, _)| *id).step_by(3).collect();
    let found = reader.labels_of(&ids).await;
    answers.push(found.map(|labels| format!("labels: {labels:?}")));
    for (_, labels) in all.iter().step_by(all.len() / 10 + 1) {
        let other = labels.to_builder().set("other", "x").build();
        for labels in [labels, &other] {
            let found = reader.find(labels).await;
            answers.push(found.map(|id| format!("find: {id:?}")));
        }
    }
    let names = all.iter().flat_map(|(_, labels)| labels);
    let names: BTreeSet<&str> = names.map(|(name, _)| name).collect();
    for (any_of, without) in [(&[][..], &[][..]), (&lists[..1], &ids)] {
        let told = texts(reader, any_of, without, None).await;
        answers.push(told.map(|names| format!("names: {names:?}")));
        for name in &names {
            let told = texts(reader, any_of, without, Some(name)).await;
            answers.push(told.map(|values| format!("values of {name}: {values:?}")));
        }
    }
    answers
}
