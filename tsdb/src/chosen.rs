//! Series of several shards, chosen but not read yet: what can be weighed and cut before anything
//! is decoded, so that a large question can be worked on by several tasks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use model::limits::QUERY_SAMPLES_MAX;
use model::source::{MetadataSelection, Selection, Source, SourceError};
use model::{Labels, Series};

use crate::part::Part;
use crate::pieces::Pieces;
use crate::select::{Turn, too_many_samples};
use crate::shard::Shard;

type Handles = Vec<(Labels, Vec<Part>)>;

/// From so many series of a shard on, others hold as many but for a few of a hundred.
const SERIES_TELL: usize = 256;
/// A piece more or less of so many is no longer seen.
const SHARDS_EACH: usize = 4;

/// What a series takes beside its samples is as much as so many of them take.
const SERIES_SAMPLES: usize = 128;

/// Handles on the samples of a selection, by shard.
pub struct Chosen(Mutex<Vec<Share>>);

/// What one shard holds.
struct Share {
    shard: Arc<Shard>,
    /// None before anybody looked: who reads it will.
    handles: Option<Handles>,
}

impl Share {
    async fn gathered(shard: Arc<Shard>, selection: &Selection) -> Result<Self, SourceError> {
        let handles = Some(shard.gather(selection).await?);
        Ok(Self { shard, handles })
    }

    /// About how many samples will be decoded, as far as is known.
    fn samples(&self) -> usize {
        let handles = self.handles.iter().flatten();
        handles.map(|(_, parts)| samples(parts)).sum()
    }

    fn series(&self) -> usize {
        self.handles.as_ref().map_or(0, Vec::len)
    }

    /// How much work that is, in samples.
    fn work(&self) -> usize {
        let handles = self.handles.iter().flatten();
        handles.map(|(_, parts)| work(parts)).sum()
    }
}

impl Chosen {
    /// What `shards`, each of which was made sure to be fresh enough, hold of a selection, unless it is
    /// more than about `samples_max` samples: then no more shards are looked at.
    pub async fn within(
        shards: Vec<Arc<Shard>>,
        selection: &Selection,
        samples_max: usize,
    ) -> Result<Option<Self>, SourceError> {
        let mut left = samples_max;
        let mut chosen = Vec::new();
        for shard in shards {
            let share = Share::gathered(shard, selection).await?;
            match left.checked_sub(share.samples()) {
                Some(rest) => left = rest,
                None => return Ok(None),
            }
            chosen.push(share);
        }
        Ok(Some(Self::of(chosen)))
    }

    /// What such `shards` hold, in pieces that are about as much work each: at most `pieces_max`, as
    /// much as `samples_each` samples or more; at least one.
    ///
    /// A selection is spread over shards by hashes, so that one shard tells about how much it is. Where
    /// it is a lot, who reads a piece looks at its shards one after the other: that is work by itself, and
    /// what was found is then still near.
    pub async fn pieces(
        mut shards: Vec<Arc<Shard>>,
        selection: &Selection,
        samples_each: usize,
        pieces_max: usize,
    ) -> Result<Vec<Self>, SourceError> {
        if shards.is_empty() {
            return Ok(vec![Self::of([])]);
        }
        let first = Share::gathered(shards.remove(0), selection).await?;
        let count = 1 + shards.len();
        let tells = |share: &Share| {
            let is_much = share.work() * count >= samples_each * pieces_max;
            is_much && share.series() >= SERIES_TELL
        };
        let is_even = count.is_multiple_of(pieces_max) || count >= SHARDS_EACH * pieces_max;
        if !is_even || !tells(&first) {
            let mut shares = vec![first];
            for shard in shards {
                shares.push(Share::gathered(shard, selection).await?);
            }
            return Ok(Self::of(shares).into_pieces(samples_each, pieces_max));
        }
        let rest = shards.into_iter().map(|shard| Share {
            shard,
            handles: None,
        });
        let mut shares = std::iter::once(first).chain(rest);
        let each = count.div_ceil(pieces_max);
        let piece = || Some(Self::of(shares.by_ref().take(each))).filter(|piece| !piece.is_empty());
        Ok(std::iter::from_fn(piece).collect())
    }

    fn of(shares: impl IntoIterator<Item = Share>) -> Self {
        let is_something = |share: &Share| share.handles.as_ref().is_none_or(|h| !h.is_empty());
        Self(Mutex::new(
            shares.into_iter().filter(is_something).collect(),
        ))
    }

    fn shares(&self) -> MutexGuard<'_, Vec<Share>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_empty(&self) -> bool {
        self.shares().is_empty()
    }

    fn take(&self) -> Vec<Share> {
        std::mem::take(&mut self.shares())
    }

    /// The same in pieces, as [`Chosen::pieces`] makes them.
    pub fn into_pieces(self, samples_each: usize, pieces_max: usize) -> Vec<Self> {
        let whole: usize = self.shares().iter().map(Share::work).sum();
        let pieces = (whole / samples_each).clamp(1, pieces_max.max(1));
        match pieces {
            1 => vec![self],
            _ => self.cut(whole.div_ceil(pieces)),
        }
    }

    /// In pieces of so much work each, or a little more.
    fn cut(self, each: usize) -> Vec<Self> {
        let (mut cut, mut current, mut held) = (Vec::new(), Vec::new(), 0);
        for Share { shard, handles } in self.take() {
            let share = |handles: Handles| Share {
                shard: shard.clone(),
                handles: Some(handles),
            };
            let mut own: Handles = Vec::new();
            for one in handles.into_iter().flatten() {
                held += work(&one.1);
                own.push(one);
                if held >= each {
                    current.push(share(std::mem::take(&mut own)));
                    cut.push(Self::of(std::mem::take(&mut current)));
                    held = 0;
                }
            }
            if !own.is_empty() {
                current.push(share(own));
            }
        }
        if !current.is_empty() {
            cut.push(Self::of(current));
        }
        cut
    }
}

fn samples(parts: &[Part]) -> usize {
    parts.iter().map(Part::count).sum()
}

fn work(parts: &[Part]) -> usize {
    SERIES_SAMPLES + samples(parts)
}

/// Answers the selection it was made for, once.
#[async_trait]
impl Source for Chosen {
    async fn select(&self, selection: &Selection) -> Result<Vec<Series>, SourceError> {
        // As much as each of the shards alone would give.
        let most = QUERY_SAMPLES_MAX.saturating_mul(self.shares().len());
        let mut pieces = self.stream(selection);
        let (mut series, mut held, mut turn) = (Vec::new(), 0, Turn::default());
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            let weight = piece.iter().map(weight_of).sum::<usize>();
            held += weight;
            if held > most {
                return Err(too_many_samples());
            }
            series.extend(piece);
            turn.spend(weight).await;
        }
        series.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        Ok(series)
    }

    fn stream<'a>(
        &'a self,
        selection: &'a Selection,
    ) -> BoxStream<'a, Result<Vec<Series>, SourceError>> {
        let of_shard = async move |Share { shard, handles }: Share| {
            let handles = match handles {
                Some(handles) => handles,
                None => shard.gather(selection).await?,
            };
            let pieces = Pieces::new(handles, selection);
            let read = async |(shard, mut pieces): (Arc<Shard>, Pieces)| {
                let piece = pieces.next().await.map_err(|e| shard.source_error(e))?;
                Ok(piece.map(|piece| (piece, (shard, pieces))))
            };
            Ok(futures::stream::try_unfold((shard, pieces), read))
        };
        let shards = futures::stream::iter(self.take());
        shards.then(of_shard).try_flatten().boxed()
    }

    async fn series(&self, _: &MetadataSelection) -> Result<Vec<Labels>, SourceError> {
        Err(only_selects())
    }

    async fn label_names(&self, _: &MetadataSelection) -> Result<Vec<String>, SourceError> {
        Err(only_selects())
    }

    async fn label_values(
        &self,
        _: &str,
        _: &MetadataSelection,
    ) -> Result<Vec<String>, SourceError> {
        Err(only_selects())
    }
}

/// How many floats would take as much room.
fn weight_of(series: &Series) -> usize {
    let samples = &series.samples;
    let histograms = samples.histograms.iter().map(|(_, h)| h.size() / 16);
    samples.len() + histograms.sum::<usize>()
}

fn only_selects() -> SourceError {
    SourceError::Internal("chosen series were asked for something else".to_owned())
}
