//! Makes the data of a finding smaller: whole series first, then stretches of their points, in
//! halves, quarters and so on (Zeller, Hildebrandt: "Simplifying and isolating failure-inducing
//! input", 2002).

use super::data::{Data, Series};

/// The smallest part of `data` found in `tries` for which `holds` says yes.
pub async fn smallest(
    data: &Data,
    tries: usize,
    holds: impl AsyncFn(&Data) -> anyhow::Result<bool>,
) -> anyhow::Result<Data> {
    let mut left = tries;
    let by_series = |series: &[Series]| Data {
        series: series.to_vec(),
        rests: data.rests,
    };
    let series = reduce(&data.series, &mut left, &|part: &[Series]| {
        holds_for(&holds, by_series(part))
    })
    .await?;
    let rests = data.rests;
    let mut best = Data { series, rests };
    for n in 0..best.series.len() {
        let whole = best.clone();
        let with = |points: &[_]| {
            let mut copy = whole.clone();
            copy.series[n].points = points.to_vec();
            copy
        };
        let points = whole.series[n].points.clone();
        let points = reduce(&points, &mut left, &|part: &[_]| {
            holds_for(&holds, with(part))
        })
        .await?;
        best.series[n].points = points;
    }
    Ok(best)
}

async fn holds_for(
    holds: &impl AsyncFn(&Data) -> anyhow::Result<bool>,
    data: Data,
) -> anyhow::Result<bool> {
    holds(&data).await
}

/// Leaves out ever smaller stretches of `items` while `holds` says yes of the rest.
async fn reduce<T: Clone, F: Future<Output = anyhow::Result<bool>>>(
    items: &[T],
    left: &mut usize,
    holds: &impl Fn(&[T]) -> F,
) -> anyhow::Result<Vec<T>> {
    let mut best = items.to_vec();
    let mut stretch = best.len().div_ceil(2);
    while stretch > 0 {
        let mut at = 0;
        while at < best.len() && best.len() > 1 {
            if *left == 0 {
                return Ok(best);
            }
            *left -= 1;
            let end = (at + stretch).min(best.len());
            let rest: Vec<T> = [&best[..at], &best[end..]].concat();
            match !rest.is_empty() && holds(&rest).await? {
                true => best = rest,
                false => at = end,
            }
        }
        stretch = if stretch == 1 { 0 } else { stretch.div_ceil(2) };
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matters_is_left() {
        let data = Data::generate(1, false);
        let name = data.series[17].labels.clone();
        let point = data.series[17].points[100].clone();
        let holds = async |data: &Data| {
            let mut series = data.series.iter().filter(|s| s.labels == name);
            Ok(series.any(|s| s.points.contains(&point)))
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let small = runtime.block_on(smallest(&data, 1_000, holds)).unwrap();
        assert_eq!((small.series.len(), small.points()), (1, 1));
        let few = runtime.block_on(smallest(&data, 5, holds)).unwrap();
        assert!(few.series.len() < data.series.len());
        assert!(runtime.block_on(holds(&few)).unwrap());
    }
}
