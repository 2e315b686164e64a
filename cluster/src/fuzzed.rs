//! What fuzzers may reach, built for them only.

use bytes::Bytes;

use crate::catalogue::{Catalogue, Memory};
use crate::identity::{self, Found};
use crate::meta::machine;
use crate::meta::{Command, State};
use crate::raft::before;
use crate::raft::types::{Mark, decode_payload, encode_payload};

/// `identity.json`, with a sum or without: what was read is read again from what it is written as.
pub fn identity(bytes: &[u8]) {
    if let Ok(Found::Bare(read) | Found::Summed(read)) = identity::decode(bytes) {
        let written = identity::encode(&read);
        assert_eq!(identity::decode(&written).ok(), Some(Found::Summed(read)));
    }
}

/// Raft's mark in a checkpoint.
pub fn mark(bytes: &[u8]) {
    if let Ok(mark) = Mark::decode(bytes) {
        assert_eq!(Mark::decode(&mark.encode()).ok(), Some(mark));
    }
}

/// The payload of an entry of the log.
pub fn payload(bytes: &[u8]) {
    if let Ok(payload) = decode_payload(Bytes::copy_from_slice(bytes)) {
        let written = encode_payload(payload.clone());
        assert_eq!(decode_payload(written).ok(), Some(payload));
    }
}

/// The meta group's checkpoint, whose checksum is right, and the same text as one of its commands.
pub fn meta(text: &[u8]) {
    let sum = crc32c::crc32c(text).to_le_bytes();
    if let Ok(checkpoint) = machine::decode(&[text, &sum].concat()) {
        let written = machine::encode(&checkpoint);
        let again = machine::decode(&written).expect("what was written can be read");
        assert_eq!(machine::encode(&again), written);
    }
    if let Ok(command) = serde_json::from_slice::<Command>(text) {
        let written = serde_json::to_vec(&command).expect("plain data is JSON");
        assert_eq!(serde_json::from_slice(&written).ok(), Some(command));
    }
}

/// The catalogue's view: keys and values by line. What is kept of it is kept as it is from then on.
pub fn view(bytes: &[u8]) {
    let lines = bytes.split(|byte| *byte == b'\n');
    let pairs = lines.filter_map(|line| {
        let middle = line.iter().position(|byte| *byte == b' ')?;
        Some((line[..middle].to_vec(), line[middle + 1..].to_vec()))
    });
    let Some(first) = load(pairs.collect()) else {
        return;
    };
    let again = |state: &State| {
        let pairs = machine::to_keys(state).into_iter().collect();
        load(pairs).expect("what was written can be read")
    };
    let second = again(&first);
    assert_eq!(first.table, second.table);
    assert_eq!(first.members, second.members);
    assert_eq!(again(&second), second);
}

fn load(pairs: Vec<(Vec<u8>, Vec<u8>)>) -> Option<State> {
    let catalogue = Memory::default();
    catalogue.store(pairs, Vec::new()).expect("memory takes it");
    machine::load(&catalogue).ok().flatten()
}

/// What a replica that left had saved: a line is what is written of it, byte by byte.
pub fn left(said: &[u8]) {
    let sum = format!(" {:08x}\n", crc32c::crc32c(said));
    for line in [said, &[said, sum.as_bytes()].concat()] {
        if let Some(seen) = before::parse(line) {
            assert_eq!(before::line(seen).as_bytes(), line);
        }
    }
}
