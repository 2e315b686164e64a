//! Request bodies, bounded before they are buffered.
//!
//! Promise: never holds more than the caller's bound, compressed or not, and never waits longer
//! than [`READ_TIME_MAX`]. Not here: what the bytes mean.

use std::io::Read;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::time::timeout;

/// How long a whole body may take (Prometheus' `--web.read-timeout`).
pub const READ_TIME_MAX: Duration = Duration::from_secs(300);

/// Why there is no body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("request body is larger than {0} bytes")]
    TooLarge(usize),
    #[error("{0}")]
    Broken(String),
    #[error("request body did not arrive within five minutes")]
    TooSlow,
}

/// The whole body, if it has at most `bytes_max`.
pub async fn read(body: Body, bytes_max: usize) -> Result<Bytes, BodyError> {
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(BodyError::TooLarge(bytes_max));
    }
    let collected = timeout(READ_TIME_MAX, collect(body, bytes_max));
    collected.await.unwrap_or(Err(BodyError::TooSlow))
}

async fn collect(mut body: Body, bytes_max: usize) -> Result<Bytes, BodyError> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| BodyError::Broken(e.to_string()))?;
        let Ok(piece) = frame.into_data() else {
            continue;
        };
        if whole.len() + piece.len() > bytes_max {
            return Err(BodyError::TooLarge(bytes_max));
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

/// Undoes gzip, if the result has at most `bytes_max`.
pub fn gunzip(compressed: &[u8], bytes_max: usize) -> Result<Bytes, BodyError> {
    if compressed.is_empty() {
        return Err(BodyError::Broken("EOF".to_owned()));
    }
    let mut plain = Vec::new();
    let bound = bytes_max as u64 + 1;
    let mut decoder = flate2::read::MultiGzDecoder::new(compressed).take(bound);
    match decoder.read_to_end(&mut plain) {
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            Err(BodyError::Broken("unexpected EOF".to_owned()))
        }
        Err(e) => Err(BodyError::Broken(format!("gzip: {e}"))),
        Ok(_) if plain.len() > bytes_max => Err(BodyError::TooLarge(bytes_max)),
        Ok(_) => Ok(plain.into()),
    }
}

/// Undoes snappy's framing format, if the result has at most `bytes_max`.
pub fn unsnap(compressed: &[u8], bytes_max: usize) -> Result<Bytes, BodyError> {
    let mut plain = Vec::new();
    let mut decoder = snap::read::FrameDecoder::new(compressed).take(bytes_max as u64 + 1);
    match decoder.read_to_end(&mut plain) {
        Err(_) => Err(BodyError::Broken("snappy: corrupt input".to_owned())),
        Ok(_) if plain.len() > bytes_max => Err(BodyError::TooLarge(bytes_max)),
        Ok(_) => Ok(plain.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use futures::stream;
    use proptest::prelude::*;

    use super::*;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    #[tokio::test]
    async fn bodies_are_bounded_with_and_without_a_length() {
        let chunked = |n: usize| {
            let pieces = std::iter::repeat_n(Bytes::from_static(b"ab"), n);
            Body::from_stream(stream::iter(pieces.map(Ok::<_, std::io::Error>)))
        };
        assert_eq!(read(Body::from("abcd"), 4).await.unwrap(), "abcd");
        assert_eq!(read(chunked(2), 4).await.unwrap(), "abab");
        let too_large = Err(BodyError::TooLarge(4));
        assert_eq!(read(Body::from("abcde"), 4).await, too_large);
        assert_eq!(read(chunked(3), 4).await, too_large);
    }

    #[test]
    fn a_bomb_stops_at_the_bound() {
        let bomb = gzip(&vec![0; 1 << 20]);
        assert_eq!(gunzip(&bomb, 1000), Err(BodyError::TooLarge(1000)));
        assert_eq!(gunzip(&bomb, 1 << 20).unwrap().len(), 1 << 20);
        let broken = gunzip(&bomb[..bomb.len() - 3], 1 << 20);
        assert_eq!(broken, Err(BodyError::Broken("unexpected EOF".to_owned())));
        let mut snappy = snap::write::FrameEncoder::new(Vec::new());
        snappy.write_all(&[0; 5000]).unwrap();
        let snappy = snappy.into_inner().unwrap();
        assert_eq!(unsnap(&snappy, 5000).unwrap().len(), 5000);
        assert_eq!(unsnap(&snappy, 4999), Err(BodyError::TooLarge(4999)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(plain) = gunzip(&bytes, 1000) {
                prop_assert!(plain.len() <= 1000);
            }
            if let Ok(plain) = unsnap(&bytes, 1000) {
                prop_assert!(plain.len() <= 1000);
            }
        }
    }
}
