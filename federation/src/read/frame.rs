//! Series as a stream of frames, each a `ChunkedReadResponse` with chunks of one series.
//!
//! A frame is its length as a varint, CRC-32C of the message in four bytes from the highest on,
//! and the message. A series that takes more than a frame's bytes goes on in the next.

use std::vec;

use bytes::{BufMut, Bytes, BytesMut};
use model::{Series, limits};
use prost::Message;
use prost::encoding::encode_varint;
use proto::remote as wire;

use super::External;
use super::chunk::Chunks;

/// The frames of one query's result.
#[derive(Debug)]
pub struct Frames<I> {
    series: I,
    external: External,
    query: i64,
    bytes_max: usize,
    /// Frames of the series at hand.
    ready: vec::IntoIter<Bytes>,
}

impl<I> Frames<I> {
    /// `query`: its place in the request, from 0.
    pub fn new(series: I, external: External, query: usize) -> Self {
        Self {
            series,
            external,
            query: query as i64,
            bytes_max: limits::READ_FRAME_BYTES,
            ready: Vec::new().into_iter(),
        }
    }

    /// With frames of another size than [`limits::READ_FRAME_BYTES`].
    pub fn with_bytes_max(self, bytes_max: usize) -> Self {
        Self { bytes_max, ..self }
    }

    fn frames_of(&self, series: &Series) -> Vec<Bytes> {
        let labels = self.external.add(&series.labels);
        let label_bytes: usize = labels.iter().map(Message::encoded_len).sum();
        let room = (self.bytes_max as i64) - (label_bytes as i64);
        let mut frames = Vec::new();
        let mut chunks = Vec::new();
        let mut left = room;
        let mut rest = Chunks::new(&series.samples).peekable();
        while let Some(chunk) = rest.next() {
            left -= chunk.encoded_len() as i64;
            chunks.push(chunk);
            if left <= 0 || rest.peek().is_none() {
                frames.push(self.frame(labels.clone(), std::mem::take(&mut chunks)));
                left = room;
            }
        }
        frames
    }

    fn frame(&self, labels: Vec<wire::Label>, chunks: Vec<wire::Chunk>) -> Bytes {
        let message = wire::ChunkedReadResponse {
            chunked_series: vec![wire::ChunkedSeries { labels, chunks }],
            query_index: self.query,
        };
        let message = message.encode_to_vec();
        let mut frame = BytesMut::with_capacity(message.len() + 14);
        encode_varint(message.len() as u64, &mut frame);
        frame.put_u32(crc32c::crc32c(&message));
        frame.put_slice(&message);
        frame.freeze()
    }
}

impl<I: Iterator<Item = Series>> Iterator for Frames<I> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.ready.next() {
                return Some(frame);
            }
            let series = self.series.next()?;
            self.ready = self.frames_of(&series).into_iter();
        }
    }
}
