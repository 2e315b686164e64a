//! What fuzzers may reach, built for them only.

use bytes::BytesMut;

use crate::record::Record;
use crate::segment::scan;

/// Reads records for as long as they are some; each reads as what it was written from.
pub fn records(mut bytes: &[u8]) {
    while let Some(record) = Record::decode(&mut bytes) {
        let mut written = BytesMut::new();
        record.encode(&mut written);
        assert_eq!(Record::decode(&mut &written[..]), Some(record));
    }
}

/// Cuts a segment into pieces, which stand one behind the other.
pub fn segment(bytes: &[u8]) {
    let pieces = scan(bytes, 1, 1, 0);
    assert!(pieces.windows(2).all(|pair| pair[0].at < pair[1].at));
}
