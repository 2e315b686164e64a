//! Label sets seen before, found again by the bytes that a `TimeSeries` begins with: what a sender
//! repeats with every sample is neither read nor built a second time.
//!
//! Senders mostly name their series in one order, so the one that was learnt behind the last one
//! found is looked at first: no hash, no table, and memory read from front to back. Whatever is not
//! there is found by a hash.
//!
//! Promise: a batch is the same as without. A place or a hash finds the label set, but it counts only
//! when the bytes are, label by label, what its canonical form says; whatever is written in another way
//! than usual (labels out of order or empty, histograms, exemplars) is left to the slow way. Memory is
//! bounded by [`limits::SEEN_LABELS_BYTES_MAX`]: of two generations the older one is forgotten when
//! the younger is full.

use std::sync::{Mutex, RwLock, RwLockReadGuard};

use model::hash::{Map, xxh3};
use model::kept::kept;
use model::{Batch, Labels, Timestamp, limits};

use super::{Decoded, RemoteError, decompress_into, read_message};

/// Of an entry beside its labels' canonical form.
const ENTRY_BYTES: usize = 72;
/// Label sets whose memory is asked for together.
const TOUCHED_SETS: usize = 16;
/// Decompressed bodies whose memory is kept for the next ones, and how large each may be.
const SPARE_MAX: usize = 8;
const SPARE_BYTES_MAX: usize = 1 << 20;
/// First byte of a field: its number and that its length follows.
const LABEL: u8 = 1 << 3 | 2;
const SAMPLE: u8 = 2 << 3 | 2;
const NAME: u8 = 1 << 3 | 2;
const VALUE: u8 = 2 << 3 | 2;
/// Of a sample: its value as eight bytes, its timestamp as a varint.
const SAMPLE_VALUE: u8 = 1 << 3 | 1;
const SAMPLE_TIME: u8 = 2 << 3;

/// What a node remembers between requests.
pub struct Seen {
    seed: u64,
    generations: RwLock<Generations>,
    /// Memory of earlier bodies.
    spare: Mutex<Vec<Vec<u8>>>,
}

#[derive(Default)]
struct Generations {
    young: Generation,
    old: Generation,
}

/// Label sets in the order in which they were learnt, each at one place.
#[derive(Default)]
struct Generation {
    entries: Vec<Labels>,
    /// By hash of the encoded labels.
    places: Map<u64, u32>,
    bytes: usize,
}

/// One request being read.
pub(super) struct Reading<'a> {
    seen: &'a Seen,
    generations: RwLockReadGuard<'a, Generations>,
    /// Where in the younger generation the next series is expected.
    next: usize,
    /// How many were found there, one behind the other.
    in_order: usize,
    /// What there is to remember, by hash.
    learnt: Vec<(u64, Labels)>,
}

impl Seen {
    /// `seed` keeps senders from choosing labels whose hashes are the same.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            generations: RwLock::default(),
            spare: Mutex::default(),
        }
    }

    /// Decompresses and decodes a body, as [`super::decode`] does.
    pub fn decode(&self, body: &[u8]) -> Result<Decoded, RemoteError> {
        let mut memory = self.spare.lock().expect(NO_PANIC).pop().unwrap_or_default();
        let decoded = decompress_into(&mut memory, body).and_then(|message| {
            let mut reading = self.begin();
            let decoded = read_message(message, Some(&mut reading));
            reading.finish();
            decoded
        });
        self.keep(memory);
        decoded
    }

    fn keep(&self, memory: Vec<u8>) {
        let mut spare = self.spare.lock().expect(NO_PANIC);
        if spare.len() < SPARE_MAX && memory.capacity() <= SPARE_BYTES_MAX {
            spare.push(memory);
        }
    }

    pub(super) fn begin(&self) -> Reading<'_> {
        Reading {
            seen: self,
            generations: self.generations.read().expect(NO_PANIC),
            next: 0,
            in_order: 0,
            learnt: Vec::new(),
        }
    }
}

const NO_PANIC: &str = "no panic under this lock";

impl Reading<'_> {
    /// Adds a `TimeSeries` of known labels and floats only; false, and nothing added, for any other.
    pub(super) fn read(&mut self, message: &[u8], batch: &mut Batch) -> bool {
        let Some((labels, mut rest)) = self.find(message) else {
            return false;
        };
        let rows = &mut batch.rows;
        let before = rows.len();
        while !rest.is_empty() {
            match take_sample(&mut rest) {
                Some((at, value)) => {
                    rows.timestamps.push(at);
                    rows.values.push(value);
                }
                None => {
                    rows.timestamps.truncate(before);
                    rows.values.truncate(before);
                    return false;
                }
            }
        }
        let series = batch.series.len() as u32;
        rows.series.resize(rows.timestamps.len(), series);
        batch.add_series(labels);
        true
    }

    /// Remembers, behind the request, what labels `message` begins with.
    pub(super) fn learn(&mut self, message: &[u8], labels: &Labels) {
        if let Some((block, _)) = split(message)
            && is_same(block, labels.as_canonical())
        {
            let hash = xxh3(self.seen.seed, block);
            self.learnt.push((hash, kept(labels.clone())));
        }
    }

    /// The label set that `message` begins with, and what is behind it.
    fn find<'m>(&mut self, message: &'m [u8]) -> Option<(Labels, &'m [u8])> {
        let Generations { young, old } = &*self.generations;
        if let Some(labels) = young.entries.get(self.next)
            && let Some(rest) = behind_labels(message, labels.as_canonical())
        {
            self.next += 1;
            self.in_order += 1;
            if self.in_order.is_multiple_of(TOUCHED_SETS) {
                young.touch(self.next);
            }
            return Some((labels.clone(), rest));
        }
        self.in_order = 0;
        let (block, rest) = split(message)?;
        let hash = xxh3(self.seen.seed, block);
        let same = |labels: &&Labels| is_same(block, labels.as_canonical());
        if let Some((place, labels)) = young.get(hash) {
            self.next = place + 1;
            return Some((Some(labels).filter(same)?.clone(), rest));
        }
        let labels = old.get(hash).map(|(_, labels)| labels).filter(same)?;
        self.learnt.push((hash, labels.clone()));
        Some((labels.clone(), rest))
    }

    /// Others find what this request has shown.
    pub(super) fn finish(self) {
        let Self {
            seen,
            generations,
            learnt,
            ..
        } = self;
        drop(generations);
        if learnt.is_empty() {
            return;
        }
        let mut generations = seen.generations.write().expect(NO_PANIC);
        for (hash, labels) in learnt {
            generations.add(hash, labels);
        }
    }
}

impl Generations {
    fn add(&mut self, hash: u64, labels: Labels) {
        let bytes = labels.as_canonical().len() + ENTRY_BYTES;
        if self.young.bytes + bytes > limits::SEEN_LABELS_BYTES_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.add(hash, labels, bytes);
    }
}

impl Generation {
    fn get(&self, hash: u64) -> Option<(usize, &Labels)> {
        let place = *self.places.get(&hash)? as usize;
        Some((place, &self.entries[place]))
    }

    /// Asks for the memory of those that are expected next, so that nobody waits for one at a time.
    fn touch(&self, from: usize) {
        let expected = self.entries.iter().skip(from).take(TOUCHED_SETS);
        std::hint::black_box(expected.fold(0, |all, labels| all ^ labels.touch()));
    }

    fn add(&mut self, hash: u64, labels: Labels, bytes: usize) {
        let next = self.entries.len();
        let place = *self.places.entry(hash).or_insert(next as u32) as usize;
        // Another request has learnt it meanwhile, or one with the same hash.
        if place < next {
            self.entries[place] = labels;
            return;
        }
        self.entries.push(labels);
        self.bytes += bytes;
    }
}

/// The labels at the front of a `TimeSeries`, as they are encoded, and its samples behind them.
/// `None` when there is not something of both.
fn split(message: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut at = 0;
    while *message.get(at)? == LABEL {
        let (len, from) = length(message, at + 1)?;
        at = from.checked_add(len)?;
    }
    let (labels, rest) = message.split_at_checked(at)?;
    (!labels.is_empty()).then_some((labels, rest))
}

/// The length at `at`, of at most two bytes, and where what is so long begins.
fn length(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let first = *bytes.get(at)?;
    if first < 0x80 {
        return Some((usize::from(first), at + 1));
    }
    let second = *bytes.get(at + 1)?;
    (second < 0x80).then_some((usize::from(first & 0x7f) | usize::from(second) << 7, at + 2))
}

/// Whether encoded labels, each a name and a value, are those of a canonical form.
fn is_same(block: &[u8], canonical: &[u8]) -> bool {
    behind(block, canonical) == Some(block.len())
}

/// What `message` has behind labels that are all of a canonical form, none left out and none added.
/// `None` when it begins with other labels, or with these encoded in another way than usual, or when
/// nothing is behind them.
fn behind_labels<'a>(message: &'a [u8], canonical: &[u8]) -> Option<&'a [u8]> {
    let rest = &message[behind(message, canonical)?..];
    (*rest.first()? != LABEL).then_some(rest)
}

/// How many bytes the labels of a canonical form take at the front of `message`. Both have the same two
/// texts of a label, each behind its length; the message has more in front of each. So the form alone
/// tells where what must stand in the message, and nothing is read there that could be compared: this
/// is done for every sample.
fn behind(message: &[u8], canonical: &[u8]) -> Option<usize> {
    let (mut at, mut from) = (0, 0);
    while from < canonical.len() {
        let name = text_len(canonical, from)?;
        let value = text_len(canonical, from + name)?;
        at = behind_front(message, at, name + value + 2)?;
        if !is_equal((message, at), (canonical, from), name) {
            return None;
        }
        (at, from) = (at + name, from + name);
        if *message.get(at)? != VALUE || !is_equal((message, at + 1), (canonical, from), value) {
            return None;
        }
        (at, from) = (at + 1 + value, from + value);
    }
    Some(at)
}

/// How many bytes a text of a canonical form takes, its length included.
fn text_len(canonical: &[u8], from: usize) -> Option<usize> {
    let (len, start) = length(canonical, from)?;
    Some(start - from + len)
}

/// Where, behind the front of a label of `len` bytes, its name begins, length first.
fn behind_front(message: &[u8], at: usize, len: usize) -> Option<usize> {
    let front = message.get(at..at + 4)?;
    let (is_front, behind) = match len {
        0..0x80 => (front[..3] == [LABEL, len as u8, NAME], at + 3),
        _ => {
            let (low, high) = (len as u8 | 0x80, u8::try_from(len >> 7).ok()?);
            (front == [LABEL, low, high, NAME] && high < 0x80, at + 4)
        }
    };
    is_front.then_some(behind)
}

/// Whether `len` bytes, one at least, are the same in both, each from its place. Nearly all are so few that the
/// words which end where they do have them, and something stands before them: a call that compares them
/// takes longer than this.
#[inline]
fn is_equal((a, at_a): (&[u8], usize), (b, at_b): (&[u8], usize), len: usize) -> bool {
    let (end_a, end_b) = (at_a + len, at_b + len);
    match (word_before(a, end_a), word_before(b, end_b)) {
        (Some(a), Some(b)) if len <= WORD => (a ^ b) >> (8 * (WORD - len)) == 0,
        (Some(last_a), Some(last_b)) if len <= 2 * WORD => {
            last_a == last_b && word_before(a, at_a + WORD) == word_before(b, at_b + WORD)
        }
        _ => are_same(a.get(at_a..end_a), b.get(at_b..end_b)),
    }
}

#[inline(never)]
fn are_same(a: Option<&[u8]>, b: Option<&[u8]>) -> bool {
    a.is_some() && a == b
}

const WORD: usize = size_of::<u128>();

/// The word of `bytes` that ends at a place.
#[inline]
fn word_before(bytes: &[u8], end: usize) -> Option<u128> {
    let bytes = bytes.get(end.checked_sub(WORD)?..end)?;
    Some(u128::from_le_bytes(bytes.try_into().ok()?))
}

/// Takes a sample, written as protobuf's encoders do, off the front.
fn take_sample(rest: &mut &[u8]) -> Option<(Timestamp, f64)> {
    let (&[field, len], behind) = rest.split_first_chunk::<2>()?;
    if field != SAMPLE || len >= 0x80 {
        return None;
    }
    let (mut sample, behind) = behind.split_at_checked(usize::from(len))?;
    *rest = behind;
    let mut value = 0.0;
    if let Some((&SAMPLE_VALUE, from_value)) = sample.split_first() {
        let (bits, from_time) = from_value.split_first_chunk::<8>()?;
        value = f64::from_le_bytes(*bits);
        sample = from_time;
    }
    match sample.split_first() {
        None => Some((Timestamp(0), value)),
        Some((&SAMPLE_TIME, time)) => Some((Timestamp(whole_varint(time)?), value)),
        Some(_) => None,
    }
}

/// All of `bytes` as one varint of 64 bits.
fn whole_varint(bytes: &[u8]) -> Option<i64> {
    let (&last, others) = bytes.split_last()?;
    if last >= 0x80 || others.len() > 8 {
        return None;
    }
    let mut word = 0u64;
    for (byte, shift) in others.iter().zip((0..).step_by(7)) {
        if *byte < 0x80 {
            return None;
        }
        word |= u64::from(byte & 0x7f) << shift;
    }
    Some((word | u64::from(last) << (7 * others.len())) as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;
    use proto::remote::{Exemplar, Label, Sample, TimeSeries, WriteRequest};

    use super::super::decode_message;
    use super::*;

    fn time_series() -> impl Strategy<Value = TimeSeries> {
        let label = ("[a-c]{0,2}|__name__", "[xy]{0,2}|\\PC{100,200}")
            .prop_map(|(name, value)| Label { name, value });
        let time = prop_oneof![any::<i64>(), 0i64..2_000_000_000_000, Just(0)];
        let value = prop_oneof![any::<f64>(), Just(0.0), Just(1.0)];
        let sample = (value, time).prop_map(|(value, timestamp)| Sample { value, timestamp });
        let exemplars = prop::collection::vec(Just(Exemplar::default()), 0..2);
        (
            prop::collection::vec(label, 0..4),
            prop::collection::vec(sample, 0..4),
            prop_oneof![8 => Just(Vec::new()), 1 => exemplars],
            any::<bool>(),
        )
            .prop_map(|(mut labels, samples, exemplars, sorted)| {
                labels.push(Label {
                    name: "__name__".to_owned(),
                    value: "m".to_owned(),
                });
                if sorted {
                    labels.sort_by(|a, b| a.name.cmp(&b.name));
                    labels.dedup_by(|a, b| a.name == b.name);
                }
                TimeSeries {
                    labels,
                    samples,
                    exemplars,
                    ..TimeSeries::default()
                }
            })
    }

    fn read_with(seen: &Seen, message: &[u8]) -> Result<Decoded, RemoteError> {
        let mut reading = seen.begin();
        let decoded = read_message(message, Some(&mut reading));
        reading.finish();
        decoded
    }

    fn bits(decoded: &Decoded) -> Vec<u64> {
        let values = decoded.batch.rows.values.iter();
        values.map(|value| value.to_bits()).collect()
    }

    proptest! {
        #[test]
        fn a_batch_is_the_same_as_without(
            timeseries in prop::collection::vec(time_series(), 0..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let seen = Seen::new(7);
            let message = WriteRequest { timeseries, metadata: Vec::new() }.encode_to_vec();
            let mut damaged = message.clone();
            damaged.truncate(cut.index(message.len() + 1));
            for _ in 0..3 {
                let (mut with, mut without) =
                    (read_with(&seen, &message).unwrap(), decode_message(&message).unwrap());
                prop_assert_eq!(bits(&with), bits(&without), "NaNs have bits only");
                with.batch.rows.values.clear();
                without.batch.rows.values.clear();
                prop_assert_eq!(with, without);
                let with = read_with(&seen, &damaged).map_err(|e| e.to_string());
                let without = decode_message(&damaged).map_err(|e| e.to_string());
                prop_assert_eq!(with.map(|d| bits(&d)), without.map(|d| bits(&d)));
            }
        }

        #[test]
        fn texts_are_equal_when_their_bytes_are(
            a in prop::collection::vec(0u8..2, 1..40),
            before in 0usize..20,
            behind in 0usize..20,
            other in any::<prop::sample::Index>(),
        ) {
            let len = a.len();
            let mut b = [&vec![7; before][..], &a, &vec![8; behind]].concat();
            prop_assert!(is_equal((&a, 0), (&b, before), len));
            prop_assert!(!is_equal((&a, 0), (&b, before), len + behind + 1), "past the ends");
            let both = [&b[..before], &a].concat();
            prop_assert!(is_equal((&both, before), (&b, before), len));
            b[before + other.index(len)] ^= 1;
            prop_assert!(!is_equal((&a, 0), (&b, before), len));
            prop_assert!(!is_equal((&both, before), (&b, before), len));
        }

        #[test]
        fn labels_are_found_at_the_front_of_a_message(series in time_series(), changed in any::<prop::sample::Index>()) {
            let pairs = series.labels.iter().map(|l| (&l.name, &l.value));
            let labels = Labels::from_pairs(pairs.clone());
            let is_usual = pairs.clone().all(|(n, _)| !n.is_empty())
                && labels.iter().eq(pairs.map(|(n, v)| (n.as_str(), v.as_str())));
            let mut message = series.encode_to_vec();
            let samples = TimeSeries { labels: Vec::new(), ..series }.encode_to_vec();
            let expected = (is_usual && !samples.is_empty()).then_some(&samples[..]);
            prop_assert_eq!(behind_labels(&message, labels.as_canonical()), expected);
            let at = changed.index(message.len());
            message[at] ^= 1;
            // The form has no labels without a value, so what stands there may be anything.
            let is_label = is_usual && at < message.len() - samples.len();
            let found = behind_labels(&message, labels.as_canonical());
            prop_assert!(!is_label || found.is_none(), "byte {} was changed", at);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let seen = Seen::new(7);
            let mut reading = seen.begin();
            prop_assert!(!reading.read(&bytes, &mut Batch::default()));
            reading.learn(&bytes, &Labels::default());
            reading.finish();
        }
    }

    fn message(pod: usize) -> Vec<u8> {
        let label = |name: &str, value: String| Label {
            name: name.to_owned(),
            value,
        };
        let series = TimeSeries {
            labels: vec![
                label("__name__", "up".to_owned()),
                label("pod", format!("{pod:0>200}")),
            ],
            samples: vec![Sample {
                value: 1.0,
                timestamp: 7,
            }],
            ..TimeSeries::default()
        };
        series.encode_to_vec()
    }

    fn labels(pod: usize) -> Labels {
        Labels::from_pairs([("__name__", "up"), ("pod", &format!("{pod:0>200}"))])
    }

    fn learn(seen: &Seen, pods: impl IntoIterator<Item = usize>) {
        let mut reading = seen.begin();
        for pod in pods {
            reading.learn(&message(pod), &labels(pod));
        }
        reading.finish();
    }

    /// Which pods one request finds.
    fn found(seen: &Seen, pods: &[usize]) -> Vec<bool> {
        let (mut reading, mut batch) = (seen.begin(), Batch::default());
        let mut read = |pod: &usize| reading.read(&message(*pod), &mut batch);
        let found: Vec<bool> = pods.iter().map(&mut read).collect();
        reading.finish();
        let known = pods.iter().zip(&found).filter(|known| *known.1);
        let expected: Vec<Labels> = known.map(|known| labels(*known.0)).collect();
        assert_eq!(batch.series, expected);
        found
    }

    /// Pods as one request.
    fn body(pods: std::ops::Range<usize>) -> Vec<u8> {
        let timeseries = pods.map(|pod| TimeSeries::decode(&message(pod)[..]).unwrap());
        let request = WriteRequest {
            timeseries: timeseries.collect(),
            metadata: Vec::new(),
        };
        let plain = request.encode_to_vec();
        snap::raw::Encoder::new().compress_vec(&plain).unwrap()
    }

    #[test]
    fn memory_of_earlier_bodies_is_not_seen_in_later_ones() {
        let seen = Seen::new(7);
        for pods in [0..40, 3..4, 0..0, 20..60, 5..7] {
            let decoded = seen.decode(&body(pods.clone())).unwrap();
            let expected: Vec<Labels> = pods.map(labels).collect();
            assert_eq!(decoded.batch.series, expected);
            let mut broken = body(0..9);
            broken.truncate(broken.len() - 1);
            assert!(seen.decode(&broken).is_err());
        }
        let large = body(0..SPARE_BYTES_MAX / 100);
        seen.decode(&large).unwrap();
        let spare = seen.spare.lock().unwrap();
        assert!(
            spare
                .iter()
                .all(|memory| memory.capacity() <= SPARE_BYTES_MAX)
        );
    }

    #[test]
    fn what_was_learnt_is_shared_until_it_is_forgotten() {
        let seen = Seen::new(7);
        learn(&seen, [0]);
        assert_eq!(found(&seen, &[0, 1]), [true, false]);
        let many = limits::SEEN_LABELS_BYTES_MAX / 200;
        learn(&seen, 1..many);
        assert_eq!(
            found(&seen, &[many - 1, 0]),
            [true, false],
            "unused for long"
        );
        let generations = seen.generations.read().unwrap();
        let kept = generations.young.entries.len() + generations.old.entries.len();
        assert!(kept * 200 <= limits::SEEN_LABELS_BYTES_MAX);
    }

    #[test]
    fn any_order_finds_the_same() {
        let seen = Seen::new(7);
        learn(&seen, [0, 1, 2, 3, 4]);
        for pods in [
            &[0, 1, 2, 3, 4][..],
            &[4, 3, 2, 1, 0],
            &[2, 3, 0, 0, 1, 4],
            &[4, 5, 0],
        ] {
            let known: Vec<bool> = pods.iter().map(|&pod| pod < 5).collect();
            assert_eq!(found(&seen, pods), known);
        }
    }

    #[test]
    fn what_is_used_stays() {
        let seen = Seen::new(7);
        learn(&seen, [0]);
        // Three quarters of a generation.
        let some = limits::SEEN_LABELS_BYTES_MAX / 2 / 400;
        for round in 0..4 {
            learn(&seen, 1 + round * some..1 + (round + 1) * some);
            assert_eq!(found(&seen, &[0]), [true], "round {round}");
        }
    }
}
