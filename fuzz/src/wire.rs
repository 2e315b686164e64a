//! What clients and scraped targets send. Only what is read is believed: a batch keeps the data model.

use ingest::exposition::{Entry, Parser};
use ingest::lines::Parsed;
use ingest::push::Names;
use ingest::remote::v2;
use ingest::{graphite, influx, jsonlines, openmetrics as om, otlp as ot, remote as rw, textlines};
use model::Timestamp;

const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// As files and requests of many lines are read.
const IMPORT: textlines::Options<'_> = textlines::Options {
    now: NOW,
    extra: &[],
};

fn drain(mut parser: Parser<'_>) {
    while let Ok(Some(entry)) = parser.next_entry() {
        if let Entry::Sample(_) = entry {
            let _ = parser.labels();
        }
    }
}

pub fn text(bytes: &[u8]) {
    if let Ok(parser) = ingest::text::Parser::new(bytes) {
        drain(Parser::Text(parser));
    }
    let (mut place, mut parsed) = (textlines::Place::default(), Parsed::default());
    let done = textlines::read(bytes, true, &IMPORT, &mut place, &mut parsed);
    assert!(done <= bytes.len());
    assert_eq!(parsed.batch.validate(), Ok(()));
}

pub fn openmetrics(bytes: &[u8]) {
    if let Ok(parser) = om::Parser::new(bytes) {
        drain(Parser::OpenMetrics(parser));
    }
    if let Ok(parsed) = textlines::read_openmetrics(bytes, &IMPORT) {
        assert_eq!(parsed.batch.validate(), Ok(()));
    }
}

pub fn protobuf(bytes: &[u8]) {
    for keep_classic in [false, true] {
        let mut parser = ingest::protobuf::Parser::new(bytes, keep_classic);
        while let Ok(Some(_)) = parser.next_entry() {}
    }
}

pub fn push(bytes: &[u8]) {
    let key = ingest::push::path::parse("/metrics/job/t", Names::Legacy).expect("a path");
    let _ = ingest::push::parse(bytes, &key, Names::Utf8);
}

pub fn remote(bytes: &[u8]) {
    let Some((&version, message)) = bytes.split_first() else {
        return;
    };
    let decoded = match version % 2 {
        0 => rw::decode_message(message),
        _ => v2::decode_message(message),
    };
    if let Ok(decoded) = decoded {
        assert_eq!(decoded.batch.validate(), Ok(()));
    }
    let _ = rw::decode(message);
}

pub fn otlp(bytes: &[u8]) {
    let Some((&kind, message)) = bytes.split_first() else {
        return;
    };
    let settings = ot::Settings {
        convert_histograms: kind & 2 != 0,
        ..ot::Settings::default()
    };
    let decoded = match kind % 2 {
        0 => ot::decode(message, &settings),
        _ => ot::decode_json(message, &settings),
    };
    if let Ok(decoded) = decoded {
        assert_eq!(decoded.batch.validate(), Ok(()));
        assert_eq!(decoded.points.len(), decoded.batch.rows.len());
    }
}

pub fn influx(bytes: &[u8]) {
    let options = influx::Options {
        precision: influx::Precision::Nanoseconds,
        now: NOW,
        database: "",
    };
    let mut parsed = Parsed::default();
    let done = influx::read(bytes, true, &options, &mut 0, &mut parsed);
    assert!(done <= bytes.len());
    assert_eq!(parsed.batch.validate(), Ok(()));
}

pub fn graphite(bytes: &[u8]) {
    let _ = graphite::pickle::read(bytes);
}

pub fn statsd(bytes: &[u8]) {
    let mut tally = ingest::statsd::Tally::default();
    for line in String::from_utf8_lossy(bytes).lines() {
        ingest::statsd::parse(line, &mut tally);
    }
}

pub fn jsonlines(bytes: &[u8]) {
    let mut parsed = Parsed::default();
    let done = jsonlines::read(bytes, true, &[], &mut 0, &mut parsed);
    assert!(done <= bytes.len());
    assert_eq!(parsed.batch.validate(), Ok(()));
}

pub fn read(bytes: &[u8]) {
    let _ = federation::read::decode(bytes);
    let mut decoder = federation::stream::Decoder::default();
    decoder.push(bytes);
    while let Ok(Some(_)) = decoder.next_frame() {}
}
