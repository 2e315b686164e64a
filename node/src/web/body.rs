//! Request bodies, bounded before they are buffered.
//!
//! Promise: one body never holds more than the caller's bound, all together never more than
//! [`HTTP_BODIES_BYTES_MAX`], and none waits longer than the budget says. However long a body is that is
//! decoded by [`Budget::apart`], the node's other tasks go on meanwhile. Not here: what the bytes mean.

use std::io::Read;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use model::limits::{HTTP_BODIES_BYTES_MAX, HTTP_LONG_DECODES_MAX, HTTP_SHORT_DECODE_BYTES_MAX};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// The default of `--web.read-timeout`.
pub const READ_TIME_MAX: Duration = Duration::from_secs(300);

/// Why there is no body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("request body is larger than {0} bytes")]
    TooLarge(usize),
    #[error("{0}")]
    Broken(String),
    #[error("request body did not arrive in time")]
    TooSlow,
    /// A body that is taken line by line, with a line that is not.
    #[error("a line is longer than {0} bytes")]
    LineTooLong(usize),
    /// Other requests hold what there is.
    #[error("too many request bodies are being read")]
    Overloaded,
}

/// Memory that all bodies of a node share. A client that is slow to send holds only what it sent.
#[derive(Clone)]
pub struct Budget {
    /// One permit per [`Budget::UNIT_BYTES`].
    units: Arc<Semaphore>,
    /// One permit for each body that is decoded apart.
    turns: Arc<Semaphore>,
    /// How long a whole body may take.
    read_time_max: Duration,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(HTTP_BODIES_BYTES_MAX, READ_TIME_MAX)
    }
}

impl Budget {
    const UNIT_BYTES: usize = 1 << 10;

    pub fn new(bytes: usize, read_time_max: Duration) -> Self {
        let units = Arc::new(Semaphore::new(bytes / Self::UNIT_BYTES));
        Self {
            units,
            turns: Arc::new(Semaphore::new(HTTP_LONG_DECODES_MAX)),
            read_time_max,
        }
    }

    /// The same memory with another bound on how long a body may take.
    #[must_use]
    pub fn with_read_time(self, read_time_max: Duration) -> Self {
        Self {
            read_time_max,
            ..self
        }
    }

    /// An empty share, for a body that is read in pieces.
    pub fn share(&self) -> Share {
        Share {
            budget: self.clone(),
            held: Vec::new(),
        }
    }

    /// Does the work on `bytes`, which takes no breath: where they are many, of few bodies at one time, and so that
    /// the tasks of this thread go on elsewhere. Leaders that send no heartbeats lose their shards.
    pub async fn apart<T>(&self, bytes: usize, work: impl FnOnce() -> T) -> T {
        if bytes <= HTTP_SHORT_DECODE_BYTES_MAX {
            return work();
        }
        let _turn = self.turns.acquire().await;
        match Handle::current().runtime_flavor() {
            RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
            _ => work(),
        }
    }

    /// Makes `held` cover `bytes`.
    fn cover(&self, held: &mut Vec<OwnedSemaphorePermit>, bytes: usize) -> Result<(), BodyError> {
        let has: usize = held.iter().map(OwnedSemaphorePermit::num_permits).sum();
        let needs = bytes.div_ceil(Self::UNIT_BYTES).saturating_sub(has);
        if needs == 0 {
            return Ok(());
        }
        let needs = u32::try_from(needs).map_err(|_| BodyError::Overloaded)?;
        let more = Arc::clone(&self.units).try_acquire_many_owned(needs);
        let more = more.map_err(|_| BodyError::Overloaded)?;
        match held.first_mut() {
            Some(first) => first.merge(more),
            None => held.push(more),
        }
        Ok(())
    }
}

/// What one request holds of the budget; given back when it is dropped.
pub struct Share {
    budget: Budget,
    held: Vec<OwnedSemaphorePermit>,
}

impl Share {
    /// Makes sure that `bytes` may be held.
    pub fn cover(&mut self, bytes: usize) -> Result<(), BodyError> {
        self.budget.cover(&mut self.held, bytes)
    }
}

/// A body in memory; its share of the budget goes back when it is dropped.
#[derive(Debug)]
pub struct Held {
    bytes: Bytes,
    _share: Vec<OwnedSemaphorePermit>,
}

impl Deref for Held {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The whole body, if it has at most `bytes_max`.
pub async fn read(body: Body, bytes_max: usize, budget: &Budget) -> Result<Held, BodyError> {
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(BodyError::TooLarge(bytes_max));
    }
    let collected = timeout(budget.read_time_max, collect(body, bytes_max, budget));
    collected.await.unwrap_or(Err(BodyError::TooSlow))
}

async fn collect(mut body: Body, bytes_max: usize, budget: &Budget) -> Result<Held, BodyError> {
    let mut whole = BytesMut::new();
    let mut share = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| BodyError::Broken(e.to_string()))?;
        let Ok(piece) = frame.into_data() else {
            continue;
        };
        if whole.len() + piece.len() > bytes_max {
            return Err(BodyError::TooLarge(bytes_max));
        }
        budget.cover(&mut share, whole.len() + piece.len())?;
        whole.extend_from_slice(&piece);
    }
    Ok(Held {
        bytes: whole.freeze(),
        _share: share,
    })
}

/// Of gzip and of snappy's framing format: bytes that one may become, as most that is not made for it.
const PACKED_FACTOR: usize = 64;

/// What [`Budget::apart`] is told of a body that comes packed, or as it is.
pub fn weight(sent: &[u8], is_packed: bool) -> usize {
    match is_packed {
        true => sent.len().saturating_mul(PACKED_FACTOR),
        false => sent.len(),
    }
}

/// Undoes gzip, if the result has at most `bytes_max`.
pub fn gunzip(compressed: &[u8], bytes_max: usize) -> Result<Vec<u8>, BodyError> {
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
        Ok(_) => Ok(plain),
    }
}

/// Undoes snappy's framing format, if the result has at most `bytes_max`.
pub fn unsnap(compressed: &[u8], bytes_max: usize) -> Result<Vec<u8>, BodyError> {
    let mut plain = Vec::new();
    let mut decoder = snap::read::FrameDecoder::new(compressed).take(bytes_max as u64 + 1);
    match decoder.read_to_end(&mut plain) {
        Err(_) => Err(BodyError::Broken("snappy: corrupt input".to_owned())),
        Ok(_) if plain.len() > bytes_max => Err(BodyError::TooLarge(bytes_max)),
        Ok(_) => Ok(plain),
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
        let budget = Budget::default();
        let whole = read(Body::from("abcd"), 4, &budget).await;
        assert_eq!(&*whole.unwrap(), b"abcd");
        assert_eq!(&*read(chunked(2), 4, &budget).await.unwrap(), b"abab");
        for body in [Body::from("abcde"), chunked(3)] {
            let error = read(body, 4, &budget).await.unwrap_err();
            assert_eq!(error, BodyError::TooLarge(4));
        }
    }

    #[tokio::test]
    async fn all_bodies_together_are_bounded() {
        let budget = Budget::new(4 << 10, READ_TIME_MAX);
        let body = |bytes: usize| read(Body::from(vec![0; bytes]), 1 << 20, &budget);
        let first = body(3000).await.unwrap();
        assert_eq!(body(2000).await.unwrap_err(), BodyError::Overloaded);
        assert_eq!(body(1024).await.unwrap().len(), 1024);
        drop(first);
        assert_eq!(body(4096).await.unwrap().len(), 4096);
    }

    /// On one worker: what else there is to do is done meanwhile.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    #[allow(
        clippy::disallowed_methods,
        reason = "what is tested is the runtime of production"
    )]
    async fn a_long_decode_stops_nobody() {
        let (send, wait) = std::sync::mpsc::channel();
        let other = async move { send.send(()).unwrap() };
        let budget = Budget::default();
        let work = || wait.recv_timeout(Duration::from_secs(60));
        let (_, waited) = tokio::join!(
            tokio::spawn(other),
            budget.apart(HTTP_SHORT_DECODE_BYTES_MAX + 1, work)
        );
        assert_eq!(waited, Ok(()));
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
