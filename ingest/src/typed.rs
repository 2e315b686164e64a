//! What a family says of itself as labels of its series: `__type__` and `__unit__`
//! (`--enable-feature=type-and-unit-labels`).
//!
//! Promise: as Prometheus 3.5 does it where a target is scraped. A known type and a unit that is
//! there win over labels of these names in the body, which else stay; the labels are there before
//! the target's own are added and before relabelling. What PromQL makes of them is not here.

use model::{Labels, MetricKind};

/// The label of the type.
pub const TYPE: &str = "__type__";
/// The label of the unit.
pub const UNIT: &str = "__unit__";

/// The labels of a series whose family says so much.
pub fn typed(labels: Labels, kind: MetricKind, unit: &str) -> Labels {
    if kind == MetricKind::Unknown && unit.is_empty() {
        return labels;
    }
    let mut builder = labels.to_builder();
    if kind != MetricKind::Unknown {
        builder.set(TYPE, kind.as_str());
    }
    if !unit.is_empty() {
        builder.set(UNIT, unit);
    }
    builder.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_wins_and_what_is_not_leaves_the_bodys_labels() {
        let own = || Labels::from_pairs([("__name__", "m"), (TYPE, "mine"), (UNIT, "mu")]);
        for (kind, unit, expected) in [
            (MetricKind::Unknown, "", ("mine", "mu")),
            (MetricKind::Counter, "", ("counter", "mu")),
            (MetricKind::Unknown, "seconds", ("mine", "seconds")),
            (
                MetricKind::GaugeHistogram,
                "bytes",
                ("gaugehistogram", "bytes"),
            ),
        ] {
            let labels = typed(own(), kind, unit);
            let found = (labels.get(TYPE), labels.get(UNIT));
            assert_eq!(found, (Some(expected.0), Some(expected.1)));
            assert_eq!(labels.metric_name(), "m");
        }
    }
}
