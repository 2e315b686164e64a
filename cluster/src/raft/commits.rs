//! News of a commit travels with the next entries.
//!
//! A follower learns what is committed from the next AppendEntries. Under load that one has entries,
//! but the commit of an entry comes first, and openraft sends it at once in a request of its own: a
//! second round for each entry to each follower. Here such a request waits a little for one that says
//! the same and more. What is left out is subsumed by what is sent, as if the network had lost it.
//!
//! openraft's bookkeeping needs care here: it takes an answer for all requests up to the index it
//! names, also for those without entries that it made after the answered one was sent, and believes
//! that the follower followed when those were made. A leader that was stopped for some time, while another
//! one was elected, would take an answer of the time before for one of now, and confirm a read that
//! misses what the other one has acknowledged. So an answer counts only when no request was made behind
//! its own that it would answer too ([`Followed`]); the answer to the last one always counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};

use super::types::AppendRequest;

/// How long news may wait: what a follower applies is late by that much when no entry follows.
pub const HOLD: Duration = Duration::from_millis(50);

/// Whether a request without entries was made right behind one: an answer to it would be taken for an
/// answer to that as well.
#[derive(Debug, Default, Clone)]
pub struct Followed(Arc<AtomicBool>);

impl Followed {
    pub fn is_followed(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// `requests` without those that the next within `hold` makes needless; without any hold all of them.
pub fn riding<S>(
    requests: S,
    hold: Option<Duration>,
) -> BoxStream<'static, (AppendRequest, Followed)>
where
    S: Stream<Item = AppendRequest> + Send + Unpin + 'static,
{
    let state = (requests.fuse(), Followed::default());
    let next = move |(mut requests, before): (stream::Fuse<S>, Followed)| async move {
        let request = next(&mut requests, hold, &before).await?;
        let followed = Followed::default();
        Some(((request, followed.clone()), (requests, followed)))
    };
    stream::unfold(state, next).boxed()
}

/// The next request to be sent behind the one that `before` belongs to.
async fn next(
    requests: &mut (impl Stream<Item = AppendRequest> + Unpin),
    hold: Option<Duration>,
    before: &Followed,
) -> Option<AppendRequest> {
    let mut request = requests.next().await?;
    if !is_news_only(&request) {
        return Some(request);
    }
    before.set();
    let Some(hold) = hold else {
        return Some(request);
    };
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

/// Of `answers`, in the order of the requests, those that count. Whether one was followed is looked at
/// when it is handed on: openraft makes no request before it asks for the next answer.
pub fn counting<T, E, F>(
    answers: impl Stream<Item = (Result<Result<T, F>, E>, Followed)>,
) -> impl Stream<Item = Result<Result<T, F>, E>> {
    answers.filter_map(|(answer, followed)| {
        let is_early = matches!(answer, Ok(Ok(_))) && followed.is_followed();
        std::future::ready((!is_early).then_some(answer))
    })
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
        let riding: Vec<_> = riding(stream::iter(sent), Some(HOLD)).collect().await;
        let seen: Vec<_> = riding.iter().map(|(request, _)| seen(request)).collect();
        assert_eq!(seen, [(1, 1, 1), (2, 1, 2), (3, 1, 2), (4, 0, 4)]);
        // Answers to the first and to the one before the last news would be taken for answers to both.
        let followed: Vec<_> = riding.iter().map(|(_, f)| f.is_followed()).collect();
        assert_eq!(followed, [true, false, true, false]);
    }

    /// What openraft 0.10.0-alpha.37 makes of it: `drain_acked` in its queue of requests in flight takes
    /// one answer for the requests of both, and the time of the later one.
    #[tokio::test(start_paused = true)]
    async fn an_answer_counts_for_no_request_that_was_made_after_it() {
        type Answer = Result<Result<u64, ()>, &'static str>;
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        let (reply, mut replies) = tokio::sync::mpsc::unbounded_channel();
        let sent = riding(ReceiverStream::new(receiver), Some(HOLD)).map(move |(_, followed)| {
            let (answer, waiting) = tokio::sync::oneshot::channel::<Answer>();
            reply.send(answer).unwrap();
            waiting.map(|answer| (answer.unwrap(), followed))
        });
        let answers = counting(sent.buffered(4));
        tokio::pin!(answers);
        let mut answered = || answers.next().now_or_never().flatten();
        sender.send(request(1, true, 1)).await.unwrap();
        assert_eq!(answered(), None);
        // Asked for while the answer to the first is on its way, and not sent yet.
        sender.send(request(2, false, 2)).await.unwrap();
        assert_eq!(answered(), None);
        replies.recv().await.unwrap().send(Ok(Ok(2))).unwrap();
        assert_eq!(
            answered(),
            None,
            "it is of the time before the second request"
        );
        tokio::time::sleep(HOLD + Duration::from_millis(1)).await;
        assert_eq!(answered(), None);
        replies.recv().await.unwrap().send(Ok(Ok(2))).unwrap();
        assert_eq!(answered(), Some(Ok(Ok(2))));
        // What went wrong is told whatever follows.
        sender.send(request(2, true, 2)).await.unwrap();
        sender.send(request(3, false, 3)).await.unwrap();
        assert_eq!(answered(), None);
        replies.recv().await.unwrap().send(Err("gone")).unwrap();
        assert_eq!(answered(), Some(Err("gone")));
    }

    #[tokio::test(start_paused = true)]
    async fn news_alone_waits_no_longer_than_the_hold() {
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        let riding = riding(ReceiverStream::new(receiver), Some(HOLD));
        let mut riding = riding.map(|(request, _)| request);
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
