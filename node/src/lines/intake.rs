//! Bytes from the network into a queue that is bounded in bytes.
//!
//! A stream that finds the queue full is not read until there is room, so its sender waits; a
//! datagram that finds it full is dropped and counted. Not here: what the bytes mean.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use ingest::lines::whole_lines;
use model::limits::{
    LINES_CONNECTIONS_MAX, LINES_PIECE_BYTES, LINES_QUEUE_BYTES_MAX, METRIC_LINE_BYTES_MAX,
    PICKLE_BYTES_MAX,
};
use model::port::{Connection, Datagrams, Listener};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::metrics::{Fate, Lines};

/// A connection that is silent for so long is closed; agents send every minute or so.
const IDLE_MAX: Duration = Duration::from_secs(3600);
/// Pause after a failed accept or receive.
const PAUSE: Duration = Duration::from_millis(100);
/// Read at a time.
const READ_BYTES: usize = 64 << 10;

/// How a stream is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Lines,
    /// Messages behind their length in four bytes.
    Pickle,
}

/// Whole lines, or one message.
pub struct Piece {
    pub bytes: Vec<u8>,
    pub framing: Framing,
    _room: OwnedSemaphorePermit,
}

/// The way into the queue.
#[derive(Clone)]
pub struct Intake {
    pieces: mpsc::Sender<Piece>,
    room: Arc<Semaphore>,
    metrics: Lines,
}

impl Intake {
    /// The queue's two ends.
    pub fn new(metrics: Lines) -> (Self, mpsc::Receiver<Piece>) {
        let (pieces, receiver) = mpsc::channel(LINES_QUEUE_BYTES_MAX / LINES_PIECE_BYTES);
        let intake = Self {
            pieces,
            room: Arc::new(Semaphore::new(LINES_QUEUE_BYTES_MAX)),
            metrics,
        };
        (intake, receiver)
    }

    /// Waits for room; false when nobody takes pieces any more.
    async fn put(&self, bytes: Vec<u8>, framing: Framing) -> bool {
        let room = Arc::clone(&self.room).acquire_many_owned(weight(&bytes));
        let Ok(room) = room.await else {
            return false;
        };
        let piece = Piece {
            bytes,
            framing,
            _room: room,
        };
        self.pieces.send(piece).await.is_ok()
    }

    /// Drops and counts the lines if there is no room.
    pub(super) fn offer(&self, bytes: &[u8]) {
        let room = Arc::clone(&self.room).try_acquire_many_owned(weight(bytes));
        let put = room.ok().and_then(|room| {
            let piece = Piece {
                bytes: bytes.to_vec(),
                framing: Framing::Lines,
                _room: room,
            };
            self.pieces.try_send(piece).ok()
        });
        if put.is_none() {
            let ends = bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
            let open = u64::from(!bytes.ends_with(b"\n"));
            self.metrics.count(Fate::Overflow, ends + open);
        }
    }
}

fn weight(bytes: &[u8]) -> u32 {
    (bytes.len() + LINES_PIECE_BYTES).min(LINES_QUEUE_BYTES_MAX) as u32
}

/// Reads every connection until `stop` turns true.
pub async fn accept(
    mut listener: Box<dyn Listener>,
    framing: Framing,
    intake: Intake,
    mut stop: watch::Receiver<bool>,
) {
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < LINES_CONNECTIONS_MAX => {
                match accepted {
                    Ok((connection, peer)) => {
                        debug!(%peer, "lines: connection opened");
                        connections.push(read(connection, framing, &intake));
                    }
                    Err(error) => {
                        warn!(%error, "accept failed");
                        sleep(PAUSE).await;
                    }
                }
            }
            Some(()) = connections.next() => {}
            () = stopped(&mut stop) => return,
        }
    }
}

async fn read(mut connection: Box<dyn Connection>, framing: Framing, intake: &Intake) {
    let mut buffer = Vec::new();
    loop {
        buffer.reserve(READ_BYTES);
        let more = timeout(IDLE_MAX, connection.read_buf(&mut buffer)).await;
        match more {
            Ok(Ok(0)) => break,
            Ok(Ok(_)) => {}
            // What stands behind the last end of a line may be half a number.
            Ok(Err(_)) | Err(_) => return,
        }
        let taken = match framing {
            Framing::Lines => take_lines(&mut buffer, intake).await,
            Framing::Pickle => take_messages(&mut buffer, intake).await,
        };
        if !taken {
            // The peer learns no more than that it is not wanted.
            connection.shutdown().await.ok();
            return;
        }
    }
    if framing == Framing::Lines && !buffer.is_empty() {
        intake.put(buffer, framing).await;
    }
}

/// Puts whole lines into the queue; false when the connection is to be closed.
async fn take_lines(buffer: &mut Vec<u8>, intake: &Intake) -> bool {
    let whole = whole_lines(buffer, false);
    if whole > 0 {
        let rest = buffer.split_off(whole);
        let lines = std::mem::replace(buffer, rest);
        return intake.put(lines, Framing::Lines).await;
    }
    if buffer.len() > METRIC_LINE_BYTES_MAX {
        intake.metrics.count(Fate::Malformed, 1);
        return false;
    }
    true
}

async fn take_messages(buffer: &mut Vec<u8>, intake: &Intake) -> bool {
    while let Some((length, _)) = buffer.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        if length > PICKLE_BYTES_MAX {
            intake.metrics.count(Fate::Malformed, 1);
            return false;
        }
        if buffer.len() < 4 + length {
            return true;
        }
        let rest = buffer.split_off(4 + length);
        let mut message = std::mem::replace(buffer, rest);
        message.drain(..4);
        if !intake.put(message, Framing::Pickle).await {
            return false;
        }
    }
    true
}

/// Takes datagrams until `stop` turns true.
pub async fn receive(
    mut datagrams: Box<dyn Datagrams>,
    intake: Intake,
    mut stop: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; METRIC_LINE_BYTES_MAX];
    loop {
        tokio::select! {
            got = datagrams.next(&mut buffer) => match got {
                Ok(length) => intake.offer(buffer.get(..length).unwrap_or_default()),
                Err(error) => {
                    warn!(%error, "receiving failed");
                    sleep(PAUSE).await;
                }
            },
            () = stopped(&mut stop) => return,
        }
    }
}

/// Returns once `stop` is true, or can no longer become so.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    stop.wait_for(|stop| *stop).await.ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &mut mpsc::Receiver<Piece>) -> Vec<u8> {
        let mut all = Vec::new();
        while let Ok(piece) = pieces.try_recv() {
            all.extend(piece.bytes);
        }
        all
    }

    #[tokio::test]
    async fn streams_are_cut_at_the_ends_of_lines() {
        let (intake, mut pieces) = Intake::new(Lines::new("graphite"));
        let (ours, mut theirs) = tokio::io::duplex(16);
        let send = async {
            theirs.write_all(b"a 1 1\nb 2 2\nc 3").await.unwrap();
            theirs.write_all(b" 3").await.unwrap();
            drop(theirs);
        };
        tokio::join!(send, read(Box::new(ours), Framing::Lines, &intake));
        assert_eq!(lines(&mut pieces), b"a 1 1\nb 2 2\nc 3 3");
    }

    #[tokio::test]
    async fn messages_are_cut_by_their_length() {
        let (intake, mut pieces) = Intake::new(Lines::new("graphite"));
        let (ours, mut theirs) = tokio::io::duplex(3);
        let send = async {
            theirs.write_all(b"\0\0\0\x02ab\0\0\0\x01c").await.unwrap();
            theirs.write_all(b"\xff\0\0\0").await.unwrap();
        };
        tokio::join!(send, read(Box::new(ours), Framing::Pickle, &intake));
        assert_eq!(pieces.try_recv().unwrap().bytes, b"ab");
        assert_eq!(pieces.try_recv().unwrap().bytes, b"c");
        assert_eq!(intake.metrics.get(Fate::Malformed), 1);
    }

    #[tokio::test]
    async fn an_endless_line_ends_the_connection() {
        let (intake, mut pieces) = Intake::new(Lines::new("graphite"));
        let endless = tokio::io::repeat(b'x');
        let connection = tokio::io::join(endless, tokio::io::sink());
        read(Box::new(connection), Framing::Lines, &intake).await;
        assert_eq!(lines(&mut pieces), b"");
        assert_eq!(intake.metrics.get(Fate::Malformed), 1);
    }

    /// Back-pressure: datagrams are dropped and counted, streams wait.
    #[tokio::test(start_paused = true)]
    async fn a_full_queue_drops_datagrams_and_lets_streams_wait() {
        let (intake, mut pieces) = Intake::new(Lines::new("graphite"));
        let datagram = [b"a 1 1\n".repeat(1000), b"b 1 1".to_vec()].concat();
        for _ in 0..LINES_QUEUE_BYTES_MAX / datagram.len() + 1 {
            intake.offer(&datagram);
        }
        let dropped = intake.metrics.get(Fate::Overflow);
        assert!(dropped >= 1001 && dropped.is_multiple_of(1001), "{dropped}");
        let put = intake.put(b"c 1 1\n".repeat(1000), Framing::Lines);
        let mut put = std::pin::pin!(put);
        assert!(timeout(Duration::from_secs(60), &mut put).await.is_err());
        drop(pieces.try_recv().unwrap());
        assert!(put.await);
    }
}
