//! A few futures at a time, their results in order.
//!
//! As `buffered` of the futures crate, but for few: that one wakes its own task whenever all it has are
//! waiting, and the runtime then wakes another thread to help, which finds nothing. A small question to
//! three nodes waits three or four times.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::vec::IntoIter;

use futures::future::{MaybeDone, maybe_done};

/// Futures of which at most `open_max` are under way, those that ended before their turn among them.
pub struct InOrder<F: Future> {
    waiting: IntoIter<F>,
    open: VecDeque<Pin<Box<MaybeDone<F>>>>,
    open_max: usize,
}

impl<F: Future> InOrder<F> {
    pub fn new(futures: Vec<F>, open_max: usize) -> Self {
        assert!(open_max > 0, "nothing would ever be done");
        Self {
            waiting: futures.into_iter(),
            open: VecDeque::new(),
            open_max,
        }
    }

    /// From now on at most so many are under way; those that are go on.
    pub fn allow(&mut self, open_max: usize) {
        assert!(open_max > 0, "nothing would ever be done");
        self.open_max = open_max;
    }

    /// What the next one yields; none behind the last.
    pub async fn next(&mut self) -> Option<F::Output> {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<F::Output>> {
        let room = self.open_max.saturating_sub(self.open.len());
        let more = self.waiting.by_ref().take(room);
        self.open
            .extend(more.map(|future| Box::pin(maybe_done(future))));
        let mut done = self.open.iter_mut().map(|one| one.as_mut().poll(context));
        let is_first_done = done.next().is_none_or(|first| first.is_ready());
        // Each of the others goes on too.
        done.for_each(drop);
        match is_first_done {
            true => Poll::Ready(
                self.open
                    .pop_front()
                    .and_then(|mut one| one.as_mut().take_output()),
            ),
            false => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use futures::channel::oneshot;
    use futures::task::noop_waker_ref;

    use super::*;

    #[test]
    fn results_come_in_order_and_few_are_under_way() {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..5).map(|_| oneshot::channel()).unzip();
        let mut senders: Vec<Option<oneshot::Sender<usize>>> =
            senders.into_iter().map(Some).collect();
        let begun = RefCell::new(Vec::new());
        let one = async |(n, receiver): (usize, oneshot::Receiver<usize>)| {
            begun.borrow_mut().push(n);
            receiver.await.unwrap()
        };
        let futures = receivers.into_iter().enumerate().map(one).collect();
        let mut in_order = InOrder::new(futures, 2);
        let mut send = |n: usize| senders[n].take().unwrap().send(n).unwrap();
        let mut context = Context::from_waker(noop_waker_ref());
        let mut next = || in_order.poll_next(&mut context);
        assert_eq!(next(), Poll::Pending);
        assert_eq!(*begun.borrow(), [0, 1]);
        send(1);
        assert_eq!(next(), Poll::Pending);
        send(0);
        assert_eq!(
            (next(), next()),
            (Poll::Ready(Some(0)), Poll::Ready(Some(1)))
        );
        assert_eq!(next(), Poll::Pending);
        assert_eq!(*begun.borrow(), [0, 1, 2, 3]);
        (2..5).for_each(send);
        let rest: Vec<_> = (2..5).map(|_| next()).collect();
        assert_eq!(rest, [2, 3, 4].map(|n| Poll::Ready(Some(n))));
        assert_eq!(next(), Poll::Ready(None));
    }

    #[test]
    fn as_many_as_are_allowed_are_begun() {
        let begun = Cell::new(0);
        let one = async |_| begun.set(begun.get() + 1);
        let mut in_order = InOrder::new((0..9).map(one).collect(), 4);
        let mut context = Context::from_waker(noop_waker_ref());
        for (allowed, expected) in [(1, 4), (1, 4), (2, 4), (8, 5), (8, 9)] {
            assert_eq!(in_order.poll_next(&mut context), Poll::Ready(Some(())));
            assert_eq!(begun.get(), expected);
            in_order.allow(allowed);
        }
    }

    #[test]
    fn who_waits_does_not_wake_himself() {
        struct Count(std::sync::atomic::AtomicUsize);
        impl std::task::Wake for Count {
            fn wake(self: std::sync::Arc<Self>) {
                self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
        let count = std::sync::Arc::new(Count(0.into()));
        let polled = Cell::new(0);
        let never = || {
            poll_fn(|_| {
                polled.set(polled.get() + 1);
                Poll::<()>::Pending
            })
        };
        let mut in_order = InOrder::new(vec![never(), never()], 8);
        let waker = count.clone().into();
        let mut context = Context::from_waker(&waker);
        assert_eq!(in_order.poll_next(&mut context), Poll::Pending);
        assert_eq!(polled.get(), 2);
        assert_eq!(count.0.load(std::sync::atomic::Ordering::Relaxed), 0);
    }
}
