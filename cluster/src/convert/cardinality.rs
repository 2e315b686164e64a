//! A head in numbers, in pieces of bounded size.

use model::Timestamp;
use proto::node as wire;
use tsdb::cardinality::Cardinality;

use super::Malformed;

/// Label values in one piece of an answer.
const VALUES_PER_PIECE: usize = 64 << 10;

/// In pieces, at least one.
pub fn cardinality_to_wire(counted: &Cardinality) -> Vec<wire::CardinalityReply> {
    let mut pieces = vec![wire::CardinalityReply {
        series: counted.series,
        chunks: counted.chunks,
        first_ms: counted.range.map(|range| range.0.0),
        last_ms: counted.range.map(|range| range.1.0),
        ..Default::default()
    }];
    for (name, values) in &counted.labels {
        let values: Vec<(&String, &u64)> = values.iter().collect();
        for run in values.chunks(VALUES_PER_PIECE) {
            let label = wire::LabelCardinality {
                name: name.clone(),
                values: run.iter().map(|(value, _)| (*value).clone()).collect(),
                series: run.iter().map(|(_, series)| **series).collect(),
            };
            pieces.push(wire::CardinalityReply {
                labels: vec![label],
                ..Default::default()
            });
        }
    }
    pieces
}

pub fn cardinality_from_wire(piece: wire::CardinalityReply) -> Result<Cardinality, Malformed> {
    let range = piece.first_ms.zip(piece.last_ms);
    let mut counted = Cardinality {
        series: piece.series,
        chunks: piece.chunks,
        range: range.map(|(first, last)| (Timestamp(first), Timestamp(last))),
        ..Cardinality::default()
    };
    for label in piece.labels {
        if label.values.len() != label.series.len() {
            return Err(Malformed::new("columns of different length"));
        }
        let values = label.values.into_iter().zip(label.series).collect();
        counted.labels.insert(label.name, values);
    }
    Ok(counted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_survive_the_wire_in_pieces() {
        let values = (0..VALUES_PER_PIECE + 1).map(|n| (format!("{n:08}"), n as u64 + 1));
        let mut counted = Cardinality {
            series: 3,
            chunks: 4,
            range: Some((Timestamp(1), Timestamp(2))),
            ..Cardinality::default()
        };
        counted.labels.insert("many".to_owned(), values.collect());
        let pieces = cardinality_to_wire(&counted);
        assert_eq!(pieces.len(), 3);
        let mut again = Cardinality::default();
        for piece in pieces {
            let piece = cardinality_from_wire(piece).unwrap();
            again.series += piece.series;
            again.chunks += piece.chunks;
            again.range = again.range.or(piece.range);
            for (name, values) in piece.labels {
                again.labels.entry(name).or_default().extend(values);
            }
        }
        assert_eq!(again, counted);
    }
}
