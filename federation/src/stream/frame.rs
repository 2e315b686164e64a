//! The frames of a federation stream, written and read.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use model::limits::{FRAME_BYTES_MAX, HISTOGRAM_BYTES_MAX};
use model::{Histogram, Labels, Samples, Series, Timestamp};
use prost::Message;
use proto::federation as wire;

/// Samples in one frame; a histogram counts as the floats that take its room.
const SAMPLES_PER_FRAME: usize = 16 << 10;

/// One frame.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    Samples(Vec<Series>),
    /// Everything up to this position was sent.
    Position(String),
    /// So it was, and this is all.
    End(String),
}

/// Why bytes are no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {0} bytes is too large")]
    TooLarge(u64),
    #[error("malformed frame: {0}")]
    Malformed(String),
}

impl Frame {
    pub fn encode(&self) -> Bytes {
        let mut frame = wire::Frame::default();
        match self {
            Self::Samples(series) => {
                let series = series.iter().map(to_wire).collect();
                frame.samples = Some(wire::Samples { series });
            }
            Self::Position(position) => frame.position.clone_from(position),
            Self::End(position) => frame.end.clone_from(position),
        }
        frame.encode_length_delimited_to_vec().into()
    }
}

/// Series as frames of bounded size, cut where they must be.
pub fn samples_frames(series: Vec<Series>) -> Vec<Bytes> {
    let mut frames = Vec::new();
    let (mut gathered, mut held) = (Vec::new(), 0);
    for one in series {
        let mut piece = Samples::default();
        held += 4 + one.labels.as_canonical().len() / 16;
        for at in 0..one.samples.len() {
            piece.push_from(&one.samples, at);
            held += one.samples.histogram(at).map_or(1, |h| 1 + h.size() / 16);
            if held >= SAMPLES_PER_FRAME {
                gathered.push(Series {
                    labels: one.labels.clone(),
                    samples: std::mem::take(&mut piece),
                });
                frames.push(Frame::Samples(std::mem::take(&mut gathered)).encode());
                held = 0;
            }
        }
        if !piece.is_empty() {
            gathered.push(Series {
                labels: one.labels,
                samples: piece,
            });
        }
    }
    if !gathered.is_empty() {
        frames.push(Frame::Samples(gathered).encode());
    }
    frames
}

/// Bytes as they come, to frames.
#[derive(Debug, Default)]
pub struct Decoder(BytesMut);

impl Decoder {
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next frame, if it is whole.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let malformed = |e: prost::DecodeError| FrameError::Malformed(e.to_string());
        let mut head = &self.0[..self.0.len().min(10)];
        let length = match prost::encoding::decode_varint(&mut head) {
            Ok(length) => length,
            Err(_) if self.0.len() < 10 => return Ok(None),
            Err(error) => return Err(malformed(error)),
        };
        let varint = prost::length_delimiter_len(usize::try_from(length).unwrap_or(usize::MAX));
        if length > FRAME_BYTES_MAX as u64 {
            return Err(FrameError::TooLarge(length));
        }
        let length = length as usize;
        if self.0.len() < varint + length {
            return Ok(None);
        }
        self.0.advance(varint);
        let frame = wire::Frame::decode(self.0.split_to(length).freeze()).map_err(malformed)?;
        from_wire(frame).map(Some)
    }

    /// Whether a frame has begun and not ended.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn from_wire(frame: wire::Frame) -> Result<Frame, FrameError> {
    match (frame.samples, frame.position, frame.end) {
        (Some(samples), position, end) if position.is_empty() && end.is_empty() => {
            let series = samples.series.into_iter().map(series_from_wire);
            Ok(Frame::Samples(series.collect::<Result<_, _>>()?))
        }
        (None, position, end) if end.is_empty() && !position.is_empty() => {
            Ok(Frame::Position(position))
        }
        (None, position, end) if position.is_empty() && !end.is_empty() => Ok(Frame::End(end)),
        _ => Err(FrameError::Malformed("not one field".to_owned())),
    }
}

fn to_wire(series: &Series) -> wire::Series {
    let samples = &series.samples;
    let canonical = |(_, histogram): &(u32, Arc<Histogram>)| {
        let mut bytes = Vec::new();
        histogram.encode(&mut bytes);
        Bytes::from(bytes)
    };
    wire::Series {
        labels: Bytes::copy_from_slice(series.labels.as_canonical()),
        timestamps: samples.timestamps.iter().map(|t| t.0).collect(),
        values: samples.values.clone(),
        histogram_places: samples.histograms.iter().map(|h| h.0).collect(),
        histograms: samples.histograms.iter().map(canonical).collect(),
    }
}

fn series_from_wire(series: wire::Series) -> Result<Series, FrameError> {
    let malformed = |what: &str| FrameError::Malformed(what.to_owned());
    let rows = series.timestamps.len();
    if series.values.len() != rows || series.histogram_places.len() != series.histograms.len() {
        return Err(malformed("columns of different length"));
    }
    let labels = Labels::from_canonical(&series.labels);
    let mut samples = Samples::default();
    let mut histograms = series
        .histogram_places
        .iter()
        .zip(&series.histograms)
        .peekable();
    let columns = series.timestamps.iter().zip(&series.values);
    for (row, (&at, &value)) in columns.enumerate() {
        if samples.timestamps.last().is_some_and(|last| last.0 >= at) {
            return Err(malformed("a series goes back in time"));
        }
        let Some((_, bytes)) = histograms.next_if(|(place, _)| **place as usize == row) else {
            samples.push(Timestamp(at), value);
            continue;
        };
        if bytes.len() > HISTOGRAM_BYTES_MAX {
            return Err(malformed("a histogram too large"));
        }
        let histogram = Histogram::decode(bytes);
        let histogram = histogram.map_err(|e| FrameError::Malformed(e.to_string()))?;
        samples.push_histogram(Timestamp(at), Arc::new(histogram));
    }
    if histograms.next().is_some() {
        return Err(malformed("a histogram beyond the samples"));
    }
    Ok(Series {
        labels: labels.map_err(|e| FrameError::Malformed(e.to_string()))?,
        samples,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn series(name: &str, count: usize) -> Series {
        let mut samples = Samples::default();
        for n in 0..count {
            match n % 1000 {
                999 => samples.push_histogram(Timestamp(n as i64), Arc::default()),
                _ => samples.push(Timestamp(n as i64), n as f64),
            }
        }
        Series {
            labels: Labels::from_pairs([("__name__", name)]),
            samples,
        }
    }

    fn decode(bytes: &[u8], step: usize) -> Vec<Frame> {
        let mut decoder = Decoder::default();
        let mut frames = Vec::new();
        for piece in bytes.chunks(step) {
            decoder.push(piece);
            while let Some(frame) = decoder.next_frame().unwrap() {
                frames.push(frame);
            }
        }
        assert!(decoder.is_empty());
        frames
    }

    #[test]
    fn long_series_are_cut_and_come_back() {
        let all = vec![series("a", 3), series("b", 40_000), series("c", 1)];
        let frames = samples_frames(all.clone());
        assert!(frames.len() > 2);
        let mut bytes = frames.concat();
        bytes.extend_from_slice(&Frame::Position("p".to_owned()).encode());
        bytes.extend_from_slice(&Frame::End("e".to_owned()).encode());
        for step in [1, 7, 1 << 20] {
            let mut back: Vec<Series> = Vec::new();
            let mut rest = Vec::new();
            for frame in decode(&bytes, step) {
                match frame {
                    Frame::Samples(pieces) => {
                        for piece in pieces {
                            match back.last_mut().filter(|last| last.labels == piece.labels) {
                                Some(last) => (0..piece.samples.len())
                                    .for_each(|n| last.samples.push_from(&piece.samples, n)),
                                None => back.push(piece),
                            }
                        }
                    }
                    other => rest.push(other),
                }
            }
            assert_eq!(back, all);
            assert_eq!(
                rest,
                [Frame::Position("p".to_owned()), Frame::End("e".to_owned())]
            );
        }
    }

    #[test]
    fn a_lying_length_is_refused_before_it_is_believed() {
        let mut decoder = Decoder::default();
        decoder.push(&[0xff, 0xff, 0xff, 0xff, 0x7f]);
        assert!(matches!(decoder.next_frame(), Err(FrameError::TooLarge(_))));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next_frame() {}
        }
    }
}
