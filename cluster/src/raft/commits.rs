//! News of a commit travels with the next entries.
//!
//! A follower learns what is committed from the next AppendEntries. Under load that one has entries,
//! but the commit of an entry comes first, and openraft sends it at once in a request of its own: a
//! second round for each entry to each follower. Here such a request waits a little for one that says
//! the same and more. What is left out is subsumed by what is sent, as if the network had lost it, and
//! openraft's bookkeeping takes an answer for all requests up to the index it names.

use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};

use super::types::AppendRequest;

/// How long news may wait: what a follower applies is late by that much when no entry follows.
pub const HOLD: Duration = Duration::from_millis(50);

/// `requests` without those that the next within `hold` makes needless.
pub fn riding<S>(requests: S, hold: Duration) -> BoxStream<'static, AppendRequest>
where
    S: Stream<Item = AppendRequest> + Send + Unpin + 'static,
{
    let requests = requests.fuse();
    let next = move |mut requests: stream::Fuse<S>| async move {
        let request = next(&mut requests, hold).await?;
        Some((request, requests))
    };
    stream::unfold(requests, next).boxed()
}

async fn next(
    requests: &mut (impl Stream<Item = AppendRequest> + Unpin),
    hold: Duration,
) -> Option<AppendRequest> {
    let mut request = requests.next().await?;
    if !is_news_only(&request) {
        return Some(request);
    }
    let deadline = tokio::time::sleep(hold);
    tokio::pin!(deadline);
    while is_news_only(&request) {
        tokio::select! {
            biased;
            later = requests.next() => match later {
                Some(later) => request = later,
                // A probe is alone in its stream.
                None => break,
            },
            () = &mut deadline => break,
        }
    }
    Some(request)
}

fn is_news_only(request: &AppendRequest) -> bool {
    request.entries.is_empty()
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use openraft::entry::RaftEntry;
    use openraft::vote::RaftLeaderId;
    use tokio_stream::wrappers::ReceiverStream;

    use super::super::types::{Entry, LeaderId, LogId, Payload, Vote};
    use super::*;

    fn at(index: u64) -> LogId {
        LogId::new(LeaderId::new(1, 1), index)
    }

    /// With the entry behind `prev`, or with none.
    fn request(prev: u64, has_entry: bool, committed: u64) -> AppendRequest {
        let entry = || {
            let payload = openraft::EntryPayload::Normal(Payload(bytes::Bytes::new()));
            Entry::new(at(prev + 1), payload)
        };
        AppendRequest {
            vote: Vote::new_committed(1, 1),
            prev_log_id: Some(at(prev)),
            entries: has_entry.then(entry).into_iter().collect(),
            leader_commit: Some(at(committed)),
        }
    }

    fn seen(request: &AppendRequest) -> (u64, usize, u64) {
        let index = |id: &Option<LogId>| id.as_ref().map_or(0, |id| id.index);
        (
            index(&request.prev_log_id),
            request.entries.len(),
            index(&request.leader_commit),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn news_goes_with_the_next_entries() {
        let sent = [
            request(1, true, 1),
            request(2, false, 2),
            request(2, true, 2),
            request(3, true, 2),
            request(4, false, 3),
            request(4, false, 4),
        ];
        let riding: Vec<_> = riding(stream::iter(sent), HOLD).collect().await;
        let seen: Vec<_> = riding.iter().map(seen).collect();
        assert_eq!(seen, [(1, 1, 1), (2, 1, 2), (3, 1, 2), (4, 0, 4)]);
    }

    #[tokio::test(start_paused = true)]
    async fn news_alone_waits_no_longer_than_the_hold() {
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        let mut riding = riding(ReceiverStream::new(receiver), HOLD);
        sender.send(request(7, false, 6)).await.unwrap();
        let mut news = riding.next();
        assert!((&mut news).now_or_never().is_none());
        tokio::time::sleep(HOLD / 2).await;
        // More news does not begin the wait anew.
        sender.send(request(7, false, 7)).await.unwrap();
        assert!((&mut news).now_or_never().is_none());
        tokio::time::sleep(HOLD / 2 + Duration::from_millis(1)).await;
        let told = (&mut news).now_or_never().expect("held long enough");
        assert_eq!(told.as_ref().map(seen), Some((7, 0, 7)));
        // What comes after it is not lost.
        sender.send(request(7, true, 7)).await.unwrap();
        assert_eq!(riding.next().await.as_ref().map(seen), Some((7, 1, 7)));
        drop(sender);
        assert!(riding.next().await.is_none());
    }
}
