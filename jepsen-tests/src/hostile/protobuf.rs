//! Bodies in protobuf, right or nearly so: families of an exposition, remote write of both versions,
//! OTLP. Fields are written by hand, so that each may be wrong.

use prost::encoding::encode_varint;

use super::words::{label_name, label_value, metric_name, mutate, pick};
use crate::splitmix::SplitMix64;

/// Of a push: messages behind their lengths.
pub fn exposition(dice: &mut SplitMix64) -> Vec<u8> {
    let mut body = Vec::new();
    for _ in 0..dice.between(1, 4) {
        let family = family(dice);
        let length = match dice.chance(2) {
            true => lying_length(dice),
            false => family.len() as u64,
        };
        encode_varint(length, &mut body);
        body.extend(family);
    }
    if dice.chance(15) {
        mutate(dice, &mut body);
    }
    body
}

/// One histogram whose buckets are many and its labels long: each bucket is a series of its own.
pub fn bucket_bomb(dice: &mut SplitMix64) -> Vec<u8> {
    let mut metric = Vec::new();
    for at in 0..dice.between(1, 12) {
        field(
            1,
            &pair(format!("l{at}").as_bytes(), &vec![b'x'; 60_000]),
            &mut metric,
        );
    }
    let mut histogram = Vec::new();
    for _ in 0..dice.between(1, 3_000_000) {
        histogram.extend([3 << 3 | 2, 0]);
    }
    field(7, &histogram, &mut metric);
    let mut family = Vec::new();
    field(1, b"bomb", &mut family);
    family.extend([3 << 3, 4]);
    field(4, &metric, &mut family);
    let mut body = Vec::new();
    encode_varint(family.len() as u64, &mut body);
    body.extend(family);
    body
}

fn lying_length(dice: &mut SplitMix64) -> u64 {
    *pick(
        dice,
        &[0, 1, 1 << 31, u64::from(u32::MAX), u64::MAX, 1 << 63],
    )
}

fn family(dice: &mut SplitMix64) -> Vec<u8> {
    let kind = if dice.chance(98) {
        dice.between(0, 5)
    } else {
        6
    } as u8;
    let mut out = Vec::new();
    field(1, metric_name(dice).as_bytes(), &mut out);
    if dice.chance(20) {
        field(2, &label_value(dice), &mut out);
    }
    if dice.chance(95) {
        out.extend([3 << 3, kind]);
    }
    for _ in 0..dice.between(0, 4) {
        let metric = metric(dice, kind);
        field(4, &metric, &mut out);
    }
    out
}

fn metric(dice: &mut SplitMix64, kind: u8) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..dice.between(0, 4) {
        let pair = pair(label_name(dice).as_bytes(), &label_value(dice));
        field(1, &pair, &mut out);
    }
    let kind = if dice.chance(5) {
        dice.between(0, 6) as u8
    } else {
        kind
    };
    let (number, value) = match kind {
        1 => (2, single(dice)),
        0 => (3, single(dice)),
        2 => (4, summary(dice)),
        4 | 5 => (7, histogram(dice)),
        _ => (5, single(dice)),
    };
    field(number, &value, &mut out);
    if dice.chance(3) {
        varint(6, dice.word(), &mut out);
    }
    out
}

fn single(dice: &mut SplitMix64) -> Vec<u8> {
    let mut out = Vec::new();
    double(1, float(dice), &mut out);
    out
}

fn float(dice: &mut SplitMix64) -> f64 {
    match dice.chance(80) {
        true => dice.between(0, 100) as f64,
        false => f64::from_bits(dice.word()),
    }
}

fn summary(dice: &mut SplitMix64) -> Vec<u8> {
    let mut out = Vec::new();
    varint(1, dice.between(0, 9), &mut out);
    double(2, float(dice), &mut out);
    for _ in 0..dice.between(0, 4) {
        let mut quantile = Vec::new();
        double(1, float(dice), &mut quantile);
        double(2, float(dice), &mut quantile);
        field(3, &quantile, &mut out);
    }
    out
}

/// Classic buckets, native ones, or both; spans that fit their buckets or lie.
fn histogram(dice: &mut SplitMix64) -> Vec<u8> {
    let mut out = Vec::new();
    varint(1, if dice.chance(95) { 3 } else { dice.word() }, &mut out);
    double(2, float(dice), &mut out);
    for _ in 0..dice.between(0, 3) {
        let mut bucket = Vec::new();
        varint(1, dice.between(0, 4), &mut bucket);
        double(2, float(dice), &mut bucket);
        field(3, &bucket, &mut out);
    }
    if dice.chance(50) {
        return out;
    }
    let schema = if dice.chance(90) { 1 } else { dice.word() };
    varint(5, zigzag(schema as i64), &mut out);
    double(
        6,
        if dice.chance(90) { 0.001 } else { float(dice) },
        &mut out,
    );
    if dice.chance(10) {
        double(4, float(dice), &mut out);
        double(8, float(dice), &mut out);
    }
    for (spans, deltas) in [(12, 13), (9, 10)] {
        let mut span = Vec::new();
        let offset = if dice.chance(90) {
            0
        } else {
            dice.word() as i32
        };
        varint(1, zigzag(offset.into()), &mut span);
        let length = if dice.chance(90) {
            2
        } else {
            dice.between(0, 1 << 33)
        };
        varint(2, length, &mut span);
        field(spans, &span, &mut out);
        for delta in [
            1,
            if dice.chance(90) {
                1
            } else {
                dice.word() as i64
            },
        ] {
            varint(deltas, zigzag(delta), &mut out);
        }
        if dice.chance(70) {
            break;
        }
    }
    out
}

/// Remote write, before it is compressed.
pub fn remote_write(dice: &mut SplitMix64, now_ms: i64) -> Vec<u8> {
    let mut body = Vec::new();
    for _ in 0..dice.between(1, 4) {
        let mut series = Vec::new();
        let name = metric_name(dice);
        field(1, &pair(b"__name__", name.as_bytes()), &mut series);
        for _ in 0..dice.between(0, 4) {
            let pair = pair(label_name(dice).as_bytes(), &label_value(dice));
            field(1, &pair, &mut series);
        }
        for _ in 0..dice.between(0, 3) {
            let mut sample = Vec::new();
            double(1, float(dice), &mut sample);
            varint(2, time(dice, now_ms), &mut sample);
            field(2, &sample, &mut series);
        }
        if dice.chance(20) {
            let mut histogram = histogram(dice);
            varint(15, time(dice, now_ms), &mut histogram);
            field(4, &histogram, &mut series);
        }
        field(1, &series, &mut body);
    }
    if dice.chance(15) {
        mutate(dice, &mut body);
    }
    body
}

/// Remote write 2.0: symbols, and references to them that may lead nowhere.
pub fn remote_write_2(dice: &mut SplitMix64, now_ms: i64) -> Vec<u8> {
    let mut body = Vec::new();
    let mut symbols = vec![
        Vec::new(),
        b"__name__".to_vec(),
        metric_name(dice).into_bytes(),
    ];
    for _ in 0..dice.between(0, 4) {
        symbols.push(label_name(dice).into_bytes());
        symbols.push(label_value(dice));
    }
    symbols.iter().for_each(|text| field(4, text, &mut body));
    for _ in 0..dice.between(1, 3) {
        let mut references = Vec::new();
        encode_varint(1, &mut references);
        encode_varint(2, &mut references);
        for _ in 0..dice.between(0, 5) {
            let beyond = if dice.chance(3) {
                u64::from(u32::MAX)
            } else {
                symbols.len() as u64
            };
            encode_varint(dice.between(0, beyond), &mut references);
        }
        let mut series = Vec::new();
        field(1, &references, &mut series);
        let mut sample = Vec::new();
        double(1, float(dice), &mut sample);
        varint(2, time(dice, now_ms), &mut sample);
        field(2, &sample, &mut series);
        told_2(dice, now_ms, &mut series);
        field(5, &series, &mut body);
    }
    if dice.chance(15) {
        mutate(dice, &mut body);
    }
    body
}

/// Histograms, exemplars, what a metric is, and when it was created.
fn told_2(dice: &mut SplitMix64, now_ms: i64, series: &mut Vec<u8>) {
    if dice.chance(15) {
        let mut histogram = histogram(dice);
        varint(15, time(dice, now_ms), &mut histogram);
        field(3, &histogram, series);
    }
    if dice.chance(10) {
        let mut exemplar = Vec::new();
        let references = [dice.between(0, 9) as u8, dice.between(0, 9) as u8];
        field(1, &references, &mut exemplar);
        double(2, float(dice), &mut exemplar);
        varint(3, time(dice, now_ms), &mut exemplar);
        field(4, &exemplar, series);
    }
    if dice.chance(10) {
        let mut metadata = Vec::new();
        varint(1, dice.between(0, 12), &mut metadata);
        varint(3, dice.between(0, 9), &mut metadata);
        varint(4, dice.between(0, 9), &mut metadata);
        field(5, &metadata, series);
    }
    if dice.chance(10) {
        varint(6, time(dice, now_ms), series);
    }
}

/// The value of a data point of a form, and the number of the field that has its attributes.
fn otlp_value(dice: &mut SplitMix64, form: u8, point: &mut Vec<u8>) -> u8 {
    let counts = |dice: &mut SplitMix64| -> Vec<u8> {
        let count = |dice: &mut SplitMix64| match dice.chance(95) {
            true => dice.between(0, 9),
            false => dice.word(),
        };
        let some = 0..dice.between(0, 5);
        some.flat_map(|_| count(dice).to_le_bytes()).collect()
    };
    match form {
        9 | 10 => {
            point.push(4 << 3 | 1);
            point.extend(dice.between(0, 20).to_le_bytes());
            double(5, float(dice), point);
        }
        11 => {
            double(5, float(dice), point);
            for _ in 0..dice.between(0, 3) {
                let mut quantile = Vec::new();
                double(1, float(dice), &mut quantile);
                double(2, float(dice), &mut quantile);
                field(6, &quantile, point);
            }
        }
        _ => double(4, float(dice), point),
    }
    match form {
        9 => {
            field(6, &counts(dice), point);
            let bounds = 0..dice.between(0, 5);
            let bounds: Vec<u8> = bounds.flat_map(|_| float(dice).to_le_bytes()).collect();
            field(7, &bounds, point);
            9
        }
        10 => {
            let scale = match dice.chance(80) {
                true => dice.between(0, 14) as i64,
                false => i64::from(dice.word() as i32),
            };
            varint(6, zigzag(scale), point);
            point.push(7 << 3 | 1);
            point.extend(dice.between(0, 5).to_le_bytes());
            for side in [8, 9] {
                let mut buckets = Vec::new();
                let offset = match dice.chance(90) {
                    true => dice.between(0, 40) as i64 - 20,
                    false => i64::from(dice.word() as i32),
                };
                varint(1, zigzag(offset), &mut buckets);
                let counts = 0..dice.between(0, 6);
                let counts: Vec<u8> = counts.map(|_| dice.between(0, 4) as u8).collect();
                field(2, &counts, &mut buckets);
                field(side, &buckets, point);
            }
            1
        }
        _ => 7,
    }
}

/// An OTLP request with one metric, its parts nested as the protocol has them.
pub fn otlp(dice: &mut SplitMix64, now_ms: i64) -> Vec<u8> {
    let form = *pick(dice, &[5, 5, 7, 9, 10, 11]);
    let mut point = Vec::new();
    point.push(3 << 3 | 1);
    point.extend((time(dice, now_ms).wrapping_mul(1_000_000)).to_le_bytes());
    let attributes = otlp_value(dice, form, &mut point);
    let mut attribute = Vec::new();
    field(1, label_name(dice).as_bytes(), &mut attribute);
    let mut any = Vec::new();
    let depth = if dice.chance(2) {
        dice.between(1, 20_000)
    } else {
        0
    };
    field(1, &label_value(dice), &mut any);
    // Lists in lists.
    for _ in 0..depth {
        let mut list = Vec::new();
        field(1, &any, &mut list);
        any.clear();
        field(5, &list, &mut any);
        if any.len() > 2 << 20 {
            break;
        }
    }
    field(2, &any, &mut attribute);
    field(attributes, &attribute, &mut point);
    let mut message = point;
    // data_points, their form, metric's name beside it, metrics, scope_metrics, resource_metrics.
    message = wrapped(1, &message);
    if [7, 9, 10].contains(&form) {
        varint(
            2,
            if dice.chance(95) { 2 } else { dice.word() },
            &mut message,
        );
        varint(3, dice.between(0, 2), &mut message);
    }
    message = wrapped(form, &message);
    field(1, metric_name(dice).as_bytes(), &mut message);
    for number in [2, 2, 1] {
        message = wrapped(number, &message);
    }
    if dice.chance(15) {
        mutate(dice, &mut message);
    }
    message
}

fn time(dice: &mut SplitMix64, now_ms: i64) -> u64 {
    match dice.chance(90) {
        true => (now_ms - dice.between(0, 60_000) as i64) as u64,
        false => *pick(dice, &[0, 1, u64::MAX, 1 << 63, i64::MAX as u64]),
    }
}

fn wrapped(number: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    field(number, body, &mut out);
    out
}

fn pair(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    field(1, name, &mut out);
    field(2, value, &mut out);
    out
}

fn field(number: u8, body: &[u8], out: &mut Vec<u8>) {
    out.push(number << 3 | 2);
    encode_varint(body.len() as u64, out);
    out.extend(body);
}

fn varint(number: u8, value: u64, out: &mut Vec<u8>) {
    out.push(number << 3);
    encode_varint(value, out);
}

fn double(number: u8, value: f64, out: &mut Vec<u8>) {
    out.push(number << 3 | 1);
    out.extend(value.to_le_bytes());
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}
