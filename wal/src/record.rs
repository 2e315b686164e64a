//! One record of a batch's table: what changed in one group, in 40 bytes. The layout is drawn in
//! `docs/format/log.md`.
//!
//! Promise: what [`Record::encode`] writes [`Record::decode`] reads; bytes that no version wrote
//! decode to `None`, never to a panic. It does not know where a payload lies.

use bytes::{Buf, BufMut, BytesMut};
use model::{GroupId, NodeId};

use crate::{LogId, Vote};

/// Bytes of one record in a batch's table.
pub(crate) const RECORD_BYTES: usize = 40;

/// What one record does to its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Adds an entry whose payload has this length and CRC-32C.
    Append {
        id: LogId,
        len: u32,
        crc: u32,
    },
    Vote(Vote),
    Committed(Option<LogId>),
    /// Removes the entries after this one, which is then the newest (or the purged one).
    Truncate(Option<LogId>),
    Purge(LogId),
    Remove,
}

/// One change of one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    pub group: GroupId,
    pub change: Change,
}

const APPEND: u8 = 1;
const VOTE: u8 = 2;
const COMMITTED: u8 = 3;
const TRUNCATE: u8 = 4;
const PURGE: u8 = 5;
const REMOVE: u8 = 6;

const NOWHERE: LogId = LogId {
    term: 0,
    node: NodeId(0),
    index: 0,
};

impl Record {
    /// Bytes of payload that belong to this record.
    pub fn payload_bytes(&self) -> u32 {
        match self.change {
            Change::Append { len, .. } => len,
            _ => 0,
        }
    }

    pub fn encode(&self, out: &mut BytesMut) {
        let (kind, flag, id, len, crc) = match self.change {
            Change::Append { id, len, crc } => (APPEND, true, id, len, crc),
            Change::Vote(vote) => {
                let id = LogId {
                    term: vote.term,
                    node: vote.node,
                    index: 0,
                };
                (VOTE, vote.committed, id, 0, 0)
            }
            Change::Committed(id) => (COMMITTED, id.is_some(), id.unwrap_or(NOWHERE), 0, 0),
            Change::Truncate(id) => (TRUNCATE, id.is_some(), id.unwrap_or(NOWHERE), 0, 0),
            Change::Purge(id) => (PURGE, true, id, 0, 0),
            Change::Remove => (REMOVE, false, NOWHERE, 0, 0),
        };
        out.put_u8(kind);
        out.put_u8(u8::from(flag));
        out.put_u16_le(0);
        out.put_u32_le(self.group.0);
        put_log_id(out, id);
        out.put_u32_le(len);
        out.put_u32_le(crc);
    }

    /// Takes one record off the front of `bytes`.
    pub fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let kind = bytes.try_get_u8().ok()?;
        let flag = match bytes.try_get_u8().ok()? {
            0 => false,
            1 => true,
            _ => return None,
        };
        bytes.try_get_u16_le().ok()?;
        let group = GroupId(bytes.try_get_u32_le().ok()?);
        let id = get_log_id(bytes)?;
        let len = bytes.try_get_u32_le().ok()?;
        let crc = bytes.try_get_u32_le().ok()?;
        let change = match kind {
            // No log ends behind the last index there can be.
            APPEND if id.index < u64::MAX => Change::Append { id, len, crc },
            VOTE => Change::Vote(Vote {
                term: id.term,
                node: id.node,
                committed: flag,
            }),
            COMMITTED => Change::Committed(flag.then_some(id)),
            TRUNCATE => Change::Truncate(flag.then_some(id)),
            PURGE => Change::Purge(id),
            REMOVE => Change::Remove,
            _ => return None,
        };
        Some(Self { group, change })
    }
}

pub(crate) fn put_log_id(out: &mut BytesMut, id: LogId) {
    out.put_u64_le(id.index);
    out.put_u64_le(id.term);
    out.put_u64_le(id.node.0);
}

pub(crate) fn get_log_id(bytes: &mut &[u8]) -> Option<LogId> {
    let index = bytes.try_get_u64_le().ok()?;
    let term = bytes.try_get_u64_le().ok()?;
    let node = NodeId(bytes.try_get_u64_le().ok()?);
    Some(LogId { term, node, index })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn log_id() -> impl Strategy<Value = LogId> {
        (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(term, node, index)| LogId {
            term,
            node: NodeId(node),
            index,
        })
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            (log_id(), any::<u32>(), any::<u32>()).prop_map(|(id, len, crc)| Change::Append {
                id,
                len,
                crc
            }),
            (log_id(), any::<bool>()).prop_map(|(id, committed)| Change::Vote(Vote {
                term: id.term,
                node: id.node,
                committed
            })),
            proptest::option::of(log_id()).prop_map(Change::Committed),
            proptest::option::of(log_id()).prop_map(Change::Truncate),
            log_id().prop_map(Change::Purge),
            Just(Change::Remove),
        ]
    }

    proptest! {
        #[test]
        fn a_record_survives_its_bytes(group in any::<u32>(), change in change()) {
            let record = Record { group: GroupId(group), change };
            let mut bytes = BytesMut::new();
            record.encode(&mut bytes);
            prop_assert_eq!(bytes.len(), RECORD_BYTES);
            let mut rest = &bytes[..];
            prop_assert_eq!(Record::decode(&mut rest), Some(record));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn no_entry_has_the_last_index(group in any::<u32>(), term in any::<u64>(), len in any::<u32>()) {
            let append = |index| {
                let id = LogId { term, node: NodeId(1), index };
                let change = Change::Append { id, len, crc: 1 };
                let mut bytes = BytesMut::new();
                Record { group: GroupId(group), change }.encode(&mut bytes);
                Record::decode(&mut &bytes[..])
            };
            prop_assert!(append(u64::MAX - 1).is_some());
            prop_assert_eq!(append(u64::MAX), None);
        }

        #[test]
        fn any_bytes_decode_or_do_not(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut rest = &bytes[..];
            while Record::decode(&mut rest).is_some() {}
            prop_assert!(rest.len() <= bytes.len());
        }
    }
}
