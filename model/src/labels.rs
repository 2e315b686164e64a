//! Label sets.
//!
//! A [`Labels`] is one immutable, shared block of bytes in a canonical form, so that hashing,
//! comparing for equality, storing and sending it need no walk over strings:
//!
//! ```text
//! for each label, by name (bytewise, ascending, no name twice):
//!     varint(len(name))  name  varint(len(value))  value
//! ```
//!
//! varint is LEB128, as in protobuf. Names and values are UTF-8. A label with an empty value is
//! the same as no label (Prometheus' data model), so [`Labels::from_pairs`] leaves it out.
//!
//! Beside the bytes stand their hash, taken once, and two memos: the [number](Labels::memo) that
//! whoever numbers label sets gave it, and the [shard](Labels::shard_memo) it belongs to.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Range;

use triomphe::ThinArc;

use crate::ShardId;
use crate::hash::xxh3;
use crate::memo::{Giver, Memo};
use crate::quote::quote;

/// The label that carries a series' name.
pub const METRIC_NAME: &str = "__name__";

/// A sorted set of labels. Cheap to clone, one word wide.
#[derive(Clone)]
pub struct Labels(ThinArc<Beside, u8>);

/// What stands in front of the canonical form.
struct Beside {
    /// Of the canonical form, unseeded.
    hash: u64,
    memo: Memo,
    shard: Memo,
}

/// Why bytes are not a label block in the canonical form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelsError {
    #[error("label block ends in the middle of a label")]
    Truncated,
    #[error("label block is not UTF-8")]
    NotUtf8,
    #[error("label {0:?} out of order or twice")]
    OutOfOrder(String),
}

impl Default for Labels {
    fn default() -> Self {
        Self::from_block(&[])
    }
}

impl Labels {
    /// Builds from pairs in any order. Empty values are left out; of a name given twice the last
    /// value stays.
    pub fn from_pairs<N: AsRef<str>, V: AsRef<str>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let mut builder = LabelsBuilder::default();
        for (name, value) in pairs {
            builder.set(name.as_ref(), value.as_ref());
        }
        builder.build()
    }

    /// Builds from pairs that already ascend by name, without sorting or copying them first: the
    /// way in of decoders. Empty values are left out.
    ///
    /// # Panics
    /// When a name does not stand behind the one before it.
    pub fn from_sorted<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut last: Option<&str> = None;
        encode(pairs.into_iter().filter(|(name, value)| {
            assert!(last.is_none_or(|last| last < *name), "labels out of order");
            last = Some(name);
            !value.is_empty()
        }))
    }

    /// Reads the canonical form, checking it: for bytes from a disk or a peer.
    pub fn from_canonical(block: &[u8]) -> Result<Self, LabelsError> {
        let mut rest = block;
        let mut last: Option<&str> = None;
        while !rest.is_empty() {
            let name = take_text(&mut rest)?;
            take_text(&mut rest)?;
            if last.is_some_and(|last| last >= name) {
                return Err(LabelsError::OutOfOrder(name.to_owned()));
            }
            last = Some(name);
        }
        Ok(Self::from_block(block))
    }

    /// `block` is in the canonical form.
    fn from_block(block: &[u8]) -> Self {
        let beside = Beside {
            hash: xxh3(0, block),
            memo: Memo::default(),
            shard: Memo::default(),
        };
        Self(ThinArc::from_header_and_slice(beside, block))
    }

    /// Whether somebody else holds a clone.
    pub(crate) fn is_shared(&self) -> bool {
        ThinArc::strong_count(&self.0) > 1
    }

    /// Whether both are the same place in memory.
    pub fn is_clone_of(&self, other: &Self) -> bool {
        self.0.ptr() == other.0.ptr()
    }

    fn beside(&self) -> &Beside {
        &self.0.header.header
    }

    /// The canonical form.
    pub fn as_canonical(&self) -> &[u8] {
        &self.0.slice
    }

    /// Reads a byte of each cache line: for whoever will look at many label sets, and would wait for
    /// memory at each.
    pub fn touch(&self) -> u8 {
        let lines = self.as_canonical().iter().step_by(64);
        lines.fold(0, |all, byte| all ^ byte)
    }

    /// The same of what stands in front of the bytes: for whoever is done with many, and would wait for
    /// memory as he lets go of each.
    pub fn touch_fronts(sets: &[Self]) {
        let fronts = sets.iter().map(|labels| labels.beside().hash);
        std::hint::black_box(fronts.fold(0, |all, hash| all ^ hash));
    }

    /// The number that `giver` gave this label set last, if nobody else did since. Shared by all
    /// clones; two equal label sets that were built apart have a memo each.
    pub fn memo(&self, giver: Giver) -> Option<u32> {
        self.beside().memo.get(giver)
    }

    /// Remembers the number that `giver` gave this label set.
    pub fn set_memo(&self, giver: Giver, number: u32) {
        self.beside().memo.set(giver, number);
    }

    /// The shard that `giver` found this label set to belong to. As [`Labels::memo`].
    pub fn shard_memo(&self, giver: Giver) -> Option<ShardId> {
        self.beside().shard.get(giver).map(ShardId)
    }

    /// Remembers it.
    pub fn set_shard_memo(&self, giver: Giver, shard: ShardId) {
        self.beside().shard.set(giver, shard.0);
    }

    /// XXH3 of the canonical form: what sharding rests on.
    pub fn hash(&self, seed: u64) -> u64 {
        match seed {
            0 => self.beside().hash,
            seed => xxh3(seed, self.as_canonical()),
        }
    }

    pub fn iter(&self) -> Iter<'_> {
        Iter {
            rest: self.as_canonical(),
        }
    }

    /// As [`Labels::iter`], without looking at the texts: for whoever only copies them.
    pub fn iter_bytes(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.raw().map(|label| (label.name, label.value))
    }

    /// By metric name, then as [`Ord`] says: the order of an exposition.
    pub fn cmp_by_name(&self, other: &Self) -> Ordering {
        // With the name in front the two orders are one, and it nearly always is: only names that
        // begin with an upper case letter sort before it.
        if self.name_in_front().is_some() && other.name_in_front().is_some() {
            return self.cmp(other);
        }
        let names = self.metric_name().cmp(other.metric_name());
        names.then_with(|| self.cmp(other))
    }

    /// What follows `__name__`, its value's length first, if it is the first label.
    fn name_in_front(&self) -> Option<&[u8]> {
        self.as_canonical().strip_prefix(b"\x08__name__")
    }

    /// The value of `name`, if set.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self
            .raw()
            .find(|label| label.name >= name.as_bytes())
            .filter(|label| label.name == name.as_bytes())?;
        Some(text(found.value).expect(CANONICAL))
    }

    fn raw(&self) -> Raw<'_> {
        Raw {
            rest: self.as_canonical(),
        }
    }

    /// Appends the canonical form of the labels whose name `keep` keeps: the key of a group, made
    /// without an allocation.
    pub fn write_kept(&self, mut keep: impl FnMut(&[u8]) -> bool, block: &mut Vec<u8>) {
        for label in self.raw().filter(|label| keep(label.name)) {
            block.extend_from_slice(label.block);
        }
    }

    /// Only the labels whose name `keep` keeps.
    #[must_use]
    pub fn kept(&self, keep: impl FnMut(&[u8]) -> bool) -> Self {
        let mut block = Vec::with_capacity(self.as_canonical().len());
        self.write_kept(keep, &mut block);
        Self::from_block(&block)
    }

    /// Whether the same names are set, whatever their values.
    pub fn has_names_of(&self, other: &Self) -> bool {
        let names = other.raw().map(|label| label.name);
        self.raw().map(|label| label.name).eq(names)
    }

    /// The value of `__name__`, or the empty text.
    pub fn metric_name(&self) -> &str {
        match self.name_in_front() {
            Some(mut rest) => take_text(&mut rest).expect(CANONICAL),
            None => self.get(METRIC_NAME).unwrap_or_default(),
        }
    }

    /// Whether `__name__` is set.
    pub fn has_name(&self) -> bool {
        self.name_in_front().is_some() || self.get(METRIC_NAME).is_some()
    }

    pub fn len(&self) -> usize {
        self.iter().count()
    }

    pub fn is_empty(&self) -> bool {
        self.as_canonical().is_empty()
    }

    /// A builder that starts from these labels.
    pub fn to_builder(&self) -> LabelsBuilder {
        LabelsBuilder {
            pairs: self
                .iter()
                .map(|(n, v)| (n.to_owned(), v.to_owned()))
                .collect(),
        }
    }

    /// These labels without `name`.
    #[must_use]
    pub fn without(&self, name: &str) -> Self {
        let name = name.as_bytes();
        match self.raw().any(|label| label.name == name) {
            true => self.kept(|n| n != name),
            false => self.clone(),
        }
    }
}

/// By the canonical form; clones need no look at it.
impl PartialEq for Labels {
    fn eq(&self, other: &Self) -> bool {
        self.is_clone_of(other)
            || (self.beside().hash == other.beside().hash
                && self.as_canonical() == other.as_canonical())
    }
}

impl Eq for Labels {}

impl Hash for Labels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.beside().hash);
    }
}

/// Compares label by label, name before value, as Prometheus sorts series. UTF-8 orders as its
/// bytes do.
impl Ord for Labels {
    fn cmp(&self, other: &Self) -> Ordering {
        if self.is_clone_of(other) {
            return Ordering::Equal;
        }
        cmp_blocks(self.as_canonical(), other.as_canonical())
    }
}

/// Two canonical blocks in the order of their labels. Neighbours in that order begin alike, so the
/// first difference is looked for in all the bytes at once, and then which text it is in.
fn cmp_blocks(a: &[u8], b: &[u8]) -> Ordering {
    let difference = common_prefix(a, b);
    if difference == a.len().min(b.len()) {
        return a.len().cmp(&b.len());
    }
    let mut at = 0;
    loop {
        let text = text_at(a, at);
        if difference < text.start {
            return a[text].cmp(&b[text_at(b, at)]);
        }
        if difference < text.end {
            return a[difference].cmp(&b[difference]);
        }
        at = text.end;
    }
}

/// How many bytes both begin with.
fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let (words_a, _) = a.as_chunks::<8>();
    let (words_b, _) = b.as_chunks::<8>();
    let mut words = words_a.iter().zip(words_b);
    let equal = 8 * words
        .position(|(a, b)| a != b)
        .unwrap_or(words_a.len().min(words_b.len()));
    let rest = a[equal..].iter().zip(&b[equal..]);
    equal + rest.take_while(|(a, b)| a == b).count()
}

/// Where the text stands whose length is at `at`.
fn text_at(block: &[u8], at: usize) -> Range<usize> {
    let mut rest = &block[at..];
    let text = take_bytes(&mut rest).expect(CANONICAL);
    let end = block.len() - rest.len();
    end - text.len()..end
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Whether a name is one that every Prometheus knew; `colon` where it is a metric's.
pub fn is_legacy_name(name: &str, colon: bool) -> bool {
    let letter = |b: u8| b.is_ascii_alphabetic() || b == b'_' || (colon && b == b':');
    name.bytes().next().is_some_and(letter) && name.bytes().all(|b| letter(b) || b.is_ascii_digit())
}

/// `{__name__="up", job="node", "utf.8"="x"}`: as Prometheus prints a metric that it has not given a name
/// position; used in messages and tests.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (name, value)) in self.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            match is_legacy_name(name, false) {
                true => write!(f, "{comma}{name}={}", quote(value))?,
                false => write!(f, "{comma}{}={}", quote(name), quote(value))?,
            }
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Walks `(name, value)` in name order.
#[derive(Debug, Clone)]
pub struct Iter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let name = take_text(&mut self.rest).expect(CANONICAL);
        let value = take_text(&mut self.rest).expect(CANONICAL);
        Some((name, value))
    }
}

const CANONICAL: &str = "canonical by construction";

/// Walks a canonical block without looking at its texts.
#[derive(Clone)]
struct Raw<'a> {
    rest: &'a [u8],
}

/// One label: its texts, and both with their lengths.
#[derive(Clone, Copy)]
struct RawLabel<'a> {
    name: &'a [u8],
    value: &'a [u8],
    block: &'a [u8],
}

impl<'a> Iterator for Raw<'a> {
    type Item = RawLabel<'a>;

    #[inline]
    fn next(&mut self) -> Option<RawLabel<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let whole = self.rest;
        let name = take_bytes(&mut self.rest).expect(CANONICAL);
        let value = take_bytes(&mut self.rest).expect(CANONICAL);
        let block = &whole[..whole.len() - self.rest.len()];
        Some(RawLabel { name, value, block })
    }
}

impl<'a> IntoIterator for &'a Labels {
    type Item = (&'a str, &'a str);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Collects labels one at a time, in any order.
#[derive(Debug, Default, Clone)]
pub struct LabelsBuilder {
    /// Sorted by name, no name twice, no empty value.
    pairs: Vec<(String, String)>,
}

impl LabelsBuilder {
    /// Sets `name`; an empty value removes it.
    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        match self.pairs.binary_search_by(|(n, _)| n.as_str().cmp(name)) {
            Ok(at) if value.is_empty() => drop(self.pairs.remove(at)),
            Ok(at) => value.clone_into(&mut self.pairs[at].1),
            Err(_) if value.is_empty() => {}
            Err(at) => self.pairs.insert(at, (name.to_owned(), value.to_owned())),
        }
        self
    }

    pub fn remove(&mut self, name: &str) -> &mut Self {
        self.set(name, "")
    }

    /// Keeps the labels for which `keep(name, value)` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &str) -> bool) -> &mut Self {
        self.pairs.retain(|(n, v)| keep(n, v));
        self
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        let at = self
            .pairs
            .binary_search_by(|(n, _)| n.as_str().cmp(name))
            .ok()?;
        Some(&self.pairs[at].1)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }

    pub fn build(&self) -> Labels {
        encode(self.iter())
    }
}

/// Encodes pairs that are already sorted by name and unique.
fn encode<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Labels {
    let mut block = Vec::with_capacity(512);
    for (name, value) in pairs {
        put_text(&mut block, name);
        put_text(&mut block, value);
    }
    Labels::from_block(&block)
}

fn put_text(block: &mut Vec<u8>, text: &str) {
    let mut len = text.len();
    while len >= 0x80 {
        block.push(len as u8 | 0x80);
        len >>= 7;
    }
    block.push(len as u8);
    block.extend_from_slice(text.as_bytes());
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Result<&'a str, LabelsError> {
    text(take_bytes(rest)?)
}

fn text(bytes: &[u8]) -> Result<&str, LabelsError> {
    std::str::from_utf8(bytes).map_err(|_| LabelsError::NotUtf8)
}

#[inline]
fn take_bytes<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], LabelsError> {
    let (&first, tail) = rest.split_first().ok_or(LabelsError::Truncated)?;
    let len = match first < 0x80 {
        true => {
            *rest = tail;
            usize::from(first)
        }
        false => take_len(rest)?,
    };
    let (bytes, tail) = rest.split_at_checked(len).ok_or(LabelsError::Truncated)?;
    *rest = tail;
    Ok(bytes)
}

fn take_len(rest: &mut &[u8]) -> Result<usize, LabelsError> {
    let mut len: usize = 0;
    let mut shift = 0;
    loop {
        let (&byte, tail) = rest.split_first().ok_or(LabelsError::Truncated)?;
        *rest = tail;
        len |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(len);
        }
        shift += 7;
        if shift > 28 {
            return Err(LabelsError::Truncated);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn order_of_building_does_not_matter() {
        let a = Labels::from_pairs([("job", "node"), ("__name__", "up"), ("empty", "")]);
        let b = Labels::from_pairs([("__name__", "up"), ("job", "x"), ("job", "node")]);
        assert_eq!(a, b);
        assert_eq!(a.hash(7), b.hash(7));
        assert_eq!(a.metric_name(), "up");
        assert_eq!(a.get("job"), Some("node"));
        assert_eq!(a.get("zone"), None);
        assert_eq!(a.to_string(), r#"{__name__="up", job="node"}"#);
    }

    #[test]
    fn the_canonical_form_and_its_hash_are_fixed() {
        let labels = Labels::from_pairs([("__name__", "up"), ("job", "node")]);
        assert_eq!(labels.as_canonical(), b"\x08__name__\x02up\x03job\x04node");
        assert_eq!(
            labels.hash(0),
            xxh3(0, b"\x08__name__\x02up\x03job\x04node")
        );
    }

    #[test]
    fn bad_blocks_are_named() {
        for (block, error) in [
            (&b"\x05job"[..], LabelsError::Truncated),
            (b"\xff\xff\xff\xff\xff\xff", LabelsError::Truncated),
            (b"\x01b\x01x\x01a\x01x", LabelsError::OutOfOrder("a".into())),
            (b"\x01a\x01x\x01a\x01x", LabelsError::OutOfOrder("a".into())),
            (b"\x01\xff\x01x", LabelsError::NotUtf8),
        ] {
            assert_eq!(Labels::from_canonical(block), Err(error));
        }
    }

    proptest! {
        #[test]
        fn round_trips_and_sorts(pairs in prop::collection::btree_map("[a-e]{1,3}", "\\PC{1,200}", 0..8)) {
            let labels = Labels::from_pairs(&pairs);
            prop_assert_eq!(Labels::from_canonical(labels.as_canonical()), Ok(labels.clone()));
            let walked: Vec<_> = labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
            prop_assert_eq!(walked, pairs.clone().into_iter().collect::<Vec<_>>());
            prop_assert_eq!(labels.to_builder().build(), labels.clone());
            for name in pairs.keys() {
                let mut others = pairs.clone();
                others.remove(name);
                prop_assert_eq!(labels.without(name), Labels::from_pairs(&others));
                prop_assert_eq!(labels.get(name), Some(pairs[name].as_str()));
                let only = labels.kept(|n| n == name.as_bytes());
                prop_assert_eq!(only, Labels::from_pairs([(name, &pairs[name])]));
            }
            let sorted = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str()));
            prop_assert_eq!(Labels::from_sorted(sorted), labels.clone());
        }

        #[test]
        fn the_order_is_that_of_pairs(
            a in prop::collection::btree_map("[AX_a]{1,2}", "[ab]{1,3}", 0..4),
            b in prop::collection::btree_map("[AX_a]{1,2}", "[ab]{1,3}", 0..4),
            names in ("[ab]{0,2}", "[ab]{0,2}"),
        ) {
            let build = |pairs: &std::collections::BTreeMap<String, String>, name: &String| {
                let named = std::iter::once((METRIC_NAME, name.as_str()));
                Labels::from_pairs(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).chain(named))
            };
            let (a, b) = (build(&a, &names.0), build(&b, &names.1));
            prop_assert_eq!(a.cmp(&b), a.iter().cmp(b.iter()));
            let slow = a.metric_name().cmp(b.metric_name()).then(a.iter().cmp(b.iter()));
            prop_assert_eq!(a.cmp_by_name(&b), slow);
            let copied: Vec<_> = a.iter_bytes().map(|(n, v)| (n.to_vec(), v.to_vec())).collect();
            let read: Vec<_> = a.iter().map(|(n, v)| (n.into(), v.into())).collect();
            prop_assert_eq!(copied, read);
        }

        #[test]
        fn sorts_as_lists_of_pairs(
            a in prop::collection::btree_map("[a-c]{1,2}", "[a-é]{1,3}|a{120,260}[ab]", 0..4),
            b in prop::collection::btree_map("[a-c]{1,2}", "[a-é]{1,3}|a{120,260}[ab]", 0..4),
        ) {
            let lists = a.iter().cmp(b.iter());
            prop_assert_eq!(Labels::from_pairs(&a).cmp(&Labels::from_pairs(&b)), lists);
        }

        #[test]
        fn arbitrary_bytes_never_panic(block in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(labels) = Labels::from_canonical(&block) {
                labels.iter().count();
            }
        }
    }
}
