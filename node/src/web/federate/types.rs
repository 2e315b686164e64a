//! `types=1`: families with the types and helps that are known of them, and not all untyped.
//!
//! A header tells whether everybody answered who may know of some: without a node or a shard an
//! answer has all samples, but families that only those know are untyped in it.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use federation::Types;
use model::MetricKind;

use super::super::Shared;
use super::super::known::Known;
use super::super::params::Form;

/// `full`, or `partial` where somebody did not tell what metrics mean.
pub const TYPES: HeaderName = HeaderName::from_static("x-quorate-federate-types");

pub fn are_asked(form: &Form) -> bool {
    matches!(form.first("types"), "1" | "true")
}

/// What targets, writes and pushes say of metrics; and a header about who was heard.
pub async fn known(api: &Shared, headers: &mut HeaderMap) -> Types {
    let known = Known::ask(api, None).await;
    let heard = match known.warnings() {
        [] => "full",
        warnings => {
            tracing::warn!(first = %warnings[0], "types of /federate are not all known");
            "partial"
        }
    };
    headers.insert(TYPES, HeaderValue::from_static(heard));
    Types::new(known.metrics().map(|of| {
        let kind = MetricKind::of_str(&of.kind).unwrap_or_default();
        (of.metric.as_str(), kind, of.help.as_str())
    }))
}
