//! A range as the instants it is made of.
//!
//! At each step a range query is to answer what an instant query answers there. Where Prometheus'
//! range says something else than its own instants, and quorate's says what those say, the
//! difference is Prometheus' own.

use std::collections::BTreeMap;

use super::answer::{Answer, Outcome, Row};
use super::question::{Asked, At};

/// The questions at each step of a range. None for an instant, and none where the query looks at
/// the range's ends.
pub fn of_range(asked: &Asked) -> Vec<Asked> {
    let At::Range {
        start_ms,
        end_ms,
        step_ms,
    } = asked.at
    else {
        return Vec::new();
    };
    if asked.query.contains("start()") || asked.query.contains("end()") {
        return Vec::new();
    }
    let steps = (start_ms..=end_ms).step_by(step_ms.max(1) as usize);
    steps
        .map(|at_ms| Asked {
            at: At::Instant(at_ms),
            ordered: false,
            ..asked.clone()
        })
        .collect()
}

/// The matrix that the answers to [`of_range`] are; `None` when one of them is an error.
pub fn joined(answers: &[Answer]) -> Option<Answer> {
    let mut rows: BTreeMap<_, Row> = BTreeMap::new();
    for answer in answers {
        let Outcome::Data { rows: found, .. } = &answer.outcome else {
            return None;
        };
        for row in found {
            let empty = || Row {
                labels: row.labels.clone(),
                points: Vec::new(),
            };
            let joined = rows.entry(row.labels.clone()).or_insert_with(empty);
            joined.points.extend(row.points.iter().cloned());
        }
    }
    Some(Answer {
        status: 200,
        outcome: Outcome::Data {
            kind: "matrix".to_owned(),
            rows: rows.into_values().collect(),
        },
        notes: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::answer::Sample;
    use super::*;

    fn range(query: &str) -> Asked {
        Asked {
            query: query.to_owned(),
            at: At::Range {
                start_ms: 0,
                end_ms: 25,
                step_ms: 10,
            },
            ordered: false,
        }
    }

    fn instant(at_ms: i64, names: &[&str]) -> Answer {
        let row = |name: &&str| Row {
            labels: [("n".to_owned(), (*name).to_owned())].into(),
            points: vec![(at_ms, Sample::Float(1.0))],
        };
        Answer {
            status: 200,
            outcome: Outcome::Data {
                kind: "vector".to_owned(),
                rows: names.iter().map(row).collect(),
            },
            notes: Vec::new(),
        }
    }

    #[test]
    fn a_range_is_its_instants() {
        let at: Vec<At> = of_range(&range("up"))
            .iter()
            .map(|asked| asked.at)
            .collect();
        assert_eq!(at, [0, 10, 20].map(At::Instant));
        assert!(of_range(&range("up @ end()")).is_empty());
    }

    #[test]
    fn answers_are_joined_by_labels() {
        let answers = [instant(0, &["a", "b"]), instant(10, &["b"])];
        let Outcome::Data { rows, .. } = joined(&answers).unwrap().outcome else {
            panic!("an error");
        };
        let points: Vec<_> = rows.iter().map(|row| row.points.len()).collect();
        assert_eq!(points, [1, 2]);
        assert!(joined(&[Answer::unreadable("no")]).is_none());
    }
}
