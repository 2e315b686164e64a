//! `since=`: of `/federate` only what changed, and the cursor for the next time.
//!
//! The cursor names an index of the log of each shard (see [`Position`]), which every replica of it
//! understands: it stays right when leaders change and whichever node is asked. Told are all series
//! whose newest sample was written behind it; a few more where a late sample was. A cursor that is
//! empty, no cursor, of another cluster or from before what a shard remembers is answered with
//! everything, and the answer says so.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use federation::newest::merged;
use federation::stream::Position;
use futures::FutureExt;
use futures::future::try_join_all;
use model::NewestSelection;
use model::newest::Pages;
use model::source::SourceError;

use super::super::stream::Upward;

/// To be given as `since` the next time.
pub const CURSOR: HeaderName = HeaderName::from_static("x-quorate-federate-cursor");
/// `changes`, or `full` where series may be told that did not change.
pub const ANSWER: HeaderName = HeaderName::from_static("x-quorate-federate-answer");

/// The pages of all shards since `cursor`, and the headers that go with them.
pub async fn newest(
    upward: &Arc<dyn Upward>,
    selection: &NewestSelection,
    cursor: &str,
) -> Result<(Pages, HeaderMap), SourceError> {
    let shards = upward.shards();
    let own = upward.cluster_id().filter(|_| !shards.is_empty());
    let own = own.ok_or(SourceError::Unavailable(Vec::new()))?;
    let since = cursor.parse::<Position>().ok();
    let since = since.filter(|since| since.fits(own, shards.len()));
    let asked = shards.iter().map(|&shard| {
        let since = since.as_ref().and_then(|since| since.of(shard));
        upward.newest(shard, selection, since)
    });
    let found = try_join_all(asked).await?;
    let mut position = since.unwrap_or_else(|| Position::start(own, shards.len()));
    for (&shard, found) in shards.iter().zip(&found) {
        position.advance(shard, found.index);
    }
    let whole = found.iter().any(|found| found.whole);
    let pages = found.into_iter();
    let pages = pages.map(|found| std::future::ready(Ok(found.pages)).boxed());
    let pages = merged(pages.collect()).await?;
    Ok((pages, headers(&position, whole)))
}

fn headers(position: &Position, whole: bool) -> HeaderMap {
    let cursor = HeaderValue::from_str(&position.to_string());
    let answer = if whole { "full" } else { "changes" };
    HeaderMap::from_iter([
        (CURSOR, cursor.expect("digits, dots and dashes")),
        (ANSWER, HeaderValue::from_static(answer)),
    ])
}
