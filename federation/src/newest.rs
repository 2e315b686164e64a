//! Pages of newest samples of several members as pages of one: a k-way merge.
//!
//! Promise: of each member at most one page is held beside the one being made. A member's error
//! ends the whole. Of a series that two members have the newer sample stays.

use std::cmp::Ordering;

use futures::StreamExt;
use futures::future::{BoxFuture, join_all};
use model::Newest;
use model::limits::NEWEST_PAGE_SERIES;
use model::newest::Pages;
use model::source::SourceError;

/// Asks all members at once for their pages and the first of them, so that what cannot be answered
/// is known before anything is.
pub async fn merged(
    members: Vec<BoxFuture<'_, Result<Pages, SourceError>>>,
) -> Result<Pages, SourceError> {
    let first = members.into_iter().map(|member| async {
        let mut pages = member.await?;
        let page = pages.next().await.transpose()?;
        Ok((pages, page))
    });
    let mut merge = Merge::default();
    for asked in join_all(first).await {
        let (pages, page) = asked?;
        if let Some(page) = page {
            merge.members.push(Member::new(pages, page));
        }
    }
    merge.play_all();
    Ok(futures::stream::unfold(Some(merge), next_page).boxed())
}

/// The next page, and what is left to merge; nothing behind an error.
async fn next_page(
    merge: Option<Merge>,
) -> Option<(Result<Vec<Newest>, SourceError>, Option<Merge>)> {
    let mut merge = merge?;
    match merge.page().await {
        Ok(page) if page.is_empty() => None,
        Ok(page) => Some((Ok(page), Some(merge))),
        Err(error) => Some((Err(error), None)),
    }
}

struct Member {
    pages: Pages,
    page: std::vec::IntoIter<Newest>,
    /// The next one; none at the end.
    next: Option<Newest>,
}

impl Member {
    fn new(pages: Pages, page: Vec<Newest>) -> Self {
        let mut page = page.into_iter();
        let next = page.next();
        Self { pages, page, next }
    }

    async fn advance(&mut self) -> Result<Option<Newest>, SourceError> {
        // Pages that have ended must not be asked again.
        if self.next.is_none() {
            return Ok(None);
        }
        let following = match self.page.next() {
            Some(next) => Some(next),
            None => match self.pages.next().await.transpose()? {
                Some(page) => {
                    self.page = page.into_iter();
                    self.page.next()
                }
                None => None,
            },
        };
        Ok(std::mem::replace(&mut self.next, following))
    }
}

/// A tournament of the members: each inner place holds who lost there, the first who won all (Knuth
/// 5.4.1). The next winner takes as many comparisons as the tree is high.
#[derive(Default)]
struct Merge {
    members: Vec<Member>,
    tree: Vec<usize>,
}

/// Not a member yet: wins against all.
const UNPLAYED: usize = usize::MAX;

impl Merge {
    fn play_all(&mut self) {
        self.tree = vec![UNPLAYED; self.members.len()];
        for member in (0..self.members.len()).rev() {
            self.play(member);
        }
    }

    /// From a member's leaf up to the root.
    fn play(&mut self, member: usize) {
        let mut winner = member;
        let mut place = (member + self.members.len()) / 2;
        while place > 0 {
            if self.wins(self.tree[place], winner) {
                std::mem::swap(&mut self.tree[place], &mut winner);
            }
            place /= 2;
        }
        self.tree[0] = winner;
    }

    fn wins(&self, a: usize, b: usize) -> bool {
        if a == UNPLAYED || b == UNPLAYED {
            return a == UNPLAYED;
        }
        match (&self.members[a].next, &self.members[b].next) {
            (Some(x), Some(y)) => match x.labels.cmp_by_name(&y.labels) {
                Ordering::Less => true,
                Ordering::Greater => false,
                Ordering::Equal => a < b,
            },
            (x, _) => x.is_some(),
        }
    }

    async fn page(&mut self) -> Result<Vec<Newest>, SourceError> {
        let mut page: Vec<Newest> = Vec::with_capacity(NEWEST_PAGE_SERIES);
        while let Some(&winner) = self.tree.first() {
            let again = {
                let next = self.members[winner].next.as_ref();
                let last = page.last();
                next.zip(last).is_some_and(|(n, l)| n.labels == l.labels)
            };
            // A page ends only where no other member's sample of its last series can follow.
            if page.len() >= NEWEST_PAGE_SERIES && !again {
                break;
            }
            let Some(next) = self.members[winner].advance().await? else {
                break;
            };
            self.play(winner);
            match page.last_mut().filter(|_| again) {
                Some(last) if next.at > last.at => *last = next,
                Some(_) => {}
                None => page.push(next),
            }
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use futures::FutureExt;
    use model::{Labels, Timestamp};
    use proptest::prelude::*;

    use super::*;

    fn newest(name: &str, at: i64) -> Newest {
        Newest {
            labels: Labels::from_pairs([("__name__", name)]),
            at: Timestamp(at),
            value: 0.0,
            histogram: None,
        }
    }

    fn member(
        pages: Vec<Result<Vec<Newest>, SourceError>>,
    ) -> BoxFuture<'static, Result<Pages, SourceError>> {
        // Panics when it is asked again after its end.
        let pages = futures::stream::unfold(pages.into_iter(), async |mut pages| {
            Some((pages.next()?, pages))
        });
        std::future::ready(Ok(pages.boxed())).boxed()
    }

    async fn all(pages: Pages) -> Result<Vec<(String, i64)>, SourceError> {
        let pages: Vec<_> = pages.collect().await;
        let pages: Result<Vec<Vec<Newest>>, _> = pages.into_iter().collect();
        let seen = |n: &Newest| (n.labels.metric_name().to_owned(), n.at.0);
        Ok(pages?.iter().flatten().map(seen).collect())
    }

    proptest! {
        #[test]
        fn merged_is_the_sorted_union_with_the_newest(
            members in prop::collection::vec(prop::collection::btree_map("[a-f]{1,2}", 0i64..9, 0..30), 0..9),
            page in 1usize..5,
        ) {
            let mut slow: BTreeMap<String, i64> = BTreeMap::new();
            for (name, at) in members.iter().flatten() {
                let known = slow.entry(name.clone()).or_insert(*at);
                *known = (*known).max(*at);
            }
            let sources = members.iter().map(|m| {
                let all: Vec<Newest> = m.iter().map(|(n, at)| newest(n, *at)).collect();
                member(all.chunks(page).map(|p| Ok(p.to_vec())).collect())
            });
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let found = runtime.block_on(async { all(merged(sources.collect()).await.unwrap()).await });
            prop_assert_eq!(found.unwrap(), slow.into_iter().collect::<Vec<_>>());
        }
    }

    #[tokio::test]
    async fn what_cannot_be_answered_is_said_before_or_ends_the_pages() {
        let lost = || SourceError::Unavailable(vec![model::ShardId(3)]);
        let good = || member(vec![Ok(vec![newest("a", 1)])]);
        let none = merged(vec![good(), member(vec![Err(lost())])]).await;
        assert_eq!(none.err(), Some(lost()));
        let late = member(vec![Ok(vec![newest("b", 1)]), Err(lost())]);
        let pages = merged(vec![good(), late]).await.unwrap();
        assert_eq!(all(pages).await, Err(lost()));
    }
}
