//! The named series of a shard in the order of an exposition: by name, then by labels.
//!
//! Kept because sorting a million label sets takes a second; four bytes a series. Series stand here
//! by their place among all, which ascends as their ids do.

use model::Labels;

/// Places in that order.
#[derive(Debug, Default)]
pub struct Order {
    places: Vec<u32>,
    /// Series that were looked at, named or not: all places below.
    series: usize,
}

impl Order {
    pub fn series(&self) -> usize {
        self.series
    }

    /// The order of all `labels`, of which the first [`Order::series`] are in this one.
    pub fn extended(&self, labels: &[Labels]) -> Self {
        let new = self.series..labels.len();
        let mut places = self.places.clone();
        let named = new.filter(|place| !labels[*place].metric_name().is_empty());
        places.extend(named.map(number));
        let mut order = Self {
            places,
            series: labels.len(),
        };
        order.sort_from(self.places.len(), labels);
        order
    }

    /// The order without the places `gone`, which ascend; those behind them move up.
    pub fn without(&self, gone: &[usize]) -> Self {
        let moved = |place: &u32| {
            let before = gone.binary_search(&(*place as usize)).err()?;
            Some(*place - before as u32)
        };
        Self {
            places: self.places.iter().filter_map(moved).collect(),
            series: self.series - gone.partition_point(|place| *place < self.series),
        }
    }

    /// The order with series that came in between: `come` are their places, which ascend, among all `labels`.
    pub fn with(&self, come: &[usize], labels: &[Labels]) -> Self {
        let mut behind = come.iter().peekable();
        let mut next = 0;
        // By the place a series had: the one it has now.
        let mut moved = Vec::with_capacity(self.series);
        while moved.len() < self.series {
            match behind.next_if_eq(&&next) {
                Some(_) => {}
                None => moved.push(number(next)),
            }
            next += 1;
        }
        let looked_at = come.partition_point(|place| *place < next);
        let mut places: Vec<u32> = self
            .places
            .iter()
            .map(|place| moved[*place as usize])
            .collect();
        let known = places.len();
        let new = come[..looked_at].iter();
        let named = new.filter(|place| !labels[**place].metric_name().is_empty());
        places.extend(named.map(|place| number(*place)));
        let mut order = Self {
            places,
            series: next,
        };
        order.sort_from(known, labels);
        order
    }

    /// Places from the given one on are sorted among the others.
    fn sort_from(&mut self, known: usize, labels: &[Labels]) {
        let by_name = |a: &u32, b: &u32| labels[*a as usize].cmp_by_name(&labels[*b as usize]);
        // A run that is in order already and the new ones: the standard sort merges such runs.
        self.places[known..].sort_by(by_name);
        self.places.sort_by(by_name);
    }

    /// Those of `chosen`, places that ascend, in this order: where in `chosen` they stand.
    pub fn sorted(&self, chosen: &[usize]) -> Vec<usize> {
        let mut wanted = vec![(0u64, 0usize); self.series.div_ceil(64)];
        for place in chosen {
            if let Some((bits, _)) = wanted.get_mut(place / 64) {
                *bits |= 1 << (place % 64);
            }
        }
        let mut sum = 0;
        for (bits, before) in &mut wanted {
            *before = sum;
            sum += bits.count_ones() as usize;
        }
        let nth = |place: &u32| {
            let (bits, before) = wanted[*place as usize / 64];
            let bit = 1u64 << (*place % 64);
            (bits & bit != 0).then(|| before + (bits & (bit - 1)).count_ones() as usize)
        };
        self.places.iter().filter_map(nth).collect()
    }
}

fn number(place: usize) -> u32 {
    u32::try_from(place).expect("fewer than 2^32 fit into memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_series_find_their_places() {
        let names = ["b", "", "a", "c", "a", "b"];
        let label = |(n, name): (usize, &&str)| {
            Labels::from_pairs([("__name__", *name), ("n", &*(9 - n).to_string())])
        };
        let labels: Vec<Labels> = names.iter().enumerate().map(label).collect();
        let whole = Order::default().extended(&labels);
        assert_eq!(whole.places, [4, 2, 5, 0, 3]);
        let grown = Order::default().extended(&labels[..3]).extended(&labels);
        assert_eq!((&grown.places, grown.series()), (&whole.places, 6));
        // Of 0, 1, 2 and 3 the third, the first and the fourth; the second has no name.
        assert_eq!(whole.sorted(&[0, 1, 2, 3, 99]), [2, 0, 3]);
    }

    #[test]
    fn what_is_left_stays_in_order() {
        let names: Vec<String> = (0..300).map(|n| format!("m{:03}", n * 7 % 300)).collect();
        let label = |name: &String| Labels::from_pairs([("__name__", name)]);
        let labels: Vec<Labels> = names.iter().map(label).collect();
        let gone: Vec<usize> = (0..300).filter(|n| n % 3 == 1).collect();
        let whole = Order::default().extended(&labels[..250]).without(&gone);
        let left: Vec<Labels> = (0..300)
            .filter(|n| n % 3 != 1)
            .map(|n| labels[n].clone())
            .collect();
        let expected = Order::default().extended(&left);
        let whole = whole.extended(&left);
        assert_eq!(
            (whole.places, whole.series),
            (expected.places.clone(), left.len())
        );
        let chosen: Vec<usize> = (0..left.len()).step_by(5).collect();
        let mut by_name: Vec<usize> = (0..chosen.len()).collect();
        by_name.sort_by_key(|nth| left[chosen[*nth]].metric_name());
        assert_eq!(expected.sorted(&chosen), by_name);
    }

    #[test]
    fn what_comes_back_finds_its_place() {
        let name = |n: usize| Labels::from_pairs([("__name__", format!("m{:03}", n * 7 % 300))]);
        let labels: Vec<Labels> = (0..300).map(name).collect();
        let come: Vec<usize> = (0..300).filter(|n| n % 3 == 1).collect();
        let before: Vec<Labels> = (0..300).filter(|n| n % 3 != 1).map(name).collect();
        for looked_at in [0, 1, 140, 200] {
            let some = Order::default().extended(&before[..looked_at]);
            let with = some.with(&come, &labels);
            assert!(with.series() >= looked_at);
            let expected = Order::default().extended(&labels[..with.series()]);
            assert_eq!(with.places, expected.places);
        }
    }
}
