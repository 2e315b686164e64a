//! Functions that rewrite labels.

use model::labels::METRIC_NAME;
use model::limits::{LABEL_BYTES_MAX, QUERY_LABELS_BYTES_MAX};
use model::matcher::compile_anchored;

use super::super::{Column, LABEL_COST, distinct, with_values};
use super::{Args, Columns, Evaluation};
use crate::error::QueryError;

/// How long a label may be on the way to one of at most `LABEL_BYTES_MAX`.
const EXPANDED_BYTES_MAX: usize = 16 << 20;

/// Nested calls could otherwise double a label as often as a query is deep.
fn bound(bytes: usize, bytes_max: usize) -> Result<(), QueryError> {
    if bytes > bytes_max {
        let message = format!("label value would be longer than {LABEL_BYTES_MAX} bytes");
        return Err(QueryError::Execution(message));
    }
    Ok(())
}

/// So many bytes are written in about the time that a value takes.
const BYTES_PER_VALUE: usize = 8;

/// What one call has written to labels of all series.
fn bounded_sum(written: usize, more: usize) -> Result<usize, QueryError> {
    let written = written.saturating_add(more);
    if written > QUERY_LABELS_BYTES_MAX {
        return Err(QueryError::Execution(format!(
            "labels of all series would be longer than {QUERY_LABELS_BYTES_MAX} bytes together"
        )));
    }
    Ok(written)
}

impl Evaluation<'_> {
    /// Sets a label to what a pattern finds in another one; series it does not match stay.
    pub(super) async fn label_replace(&mut self, mut args: Args) -> Result<Columns, QueryError> {
        let mut columns = args.vector();
        let destination = args.string();
        let (replacement, _) = args.string();
        let (source, _) = args.string();
        let (pattern, _) = args.string();
        let regex = compile_anchored(&pattern).map_err(|_| {
            let message = format!("invalid regular expression in label_replace(): {pattern}");
            QueryError::Execution(message)
        })?;
        let destination = label_name(destination, "destination", "label_replace")?;
        let references = replacement.matches('$').count();
        let mut written = 0;
        for column in &mut columns {
            self.pace.spend(LABEL_COST).await?;
            let value = column.labels.get(&source).unwrap_or_default();
            if let Some(captures) = regex.captures(value) {
                bound(references.saturating_mul(value.len()), EXPANDED_BYTES_MAX)?;
                let mut replaced = String::new();
                captures.expand(&replacement, &mut replaced);
                bound(replaced.len(), LABEL_BYTES_MAX)?;
                self.pace.spend(replaced.len() / BYTES_PER_VALUE).await?;
                written = bounded_sum(written, replaced.len())?;
                set(column, &destination, &replaced);
            }
        }
        self.renamed(columns).await
    }

    /// Sets a label to several others' values, joined.
    pub(super) async fn label_join(&mut self, mut args: Args) -> Result<Columns, QueryError> {
        let mut columns = args.vector();
        let destination = args.string();
        let (separator, _) = args.string();
        let mut sources = Vec::new();
        for source in args.0.by_ref() {
            sources.push(label_name(source.into_string(), "source", "label_join")?);
        }
        let destination = label_name(destination, "destination", "label_join")?;
        let mut written = 0;
        for column in &mut columns {
            self.pace.spend(LABEL_COST).await?;
            let values: Vec<&str> = sources
                .iter()
                .map(|source| column.labels.get(source).unwrap_or_default())
                .collect();
            let bytes: usize = values.iter().map(|v| v.len() + separator.len()).sum();
            bound(bytes, LABEL_BYTES_MAX)?;
            self.pace.spend(bytes / BYTES_PER_VALUE).await?;
            written = bounded_sum(written, bytes)?;
            let values = sources
                .iter()
                .map(|source| column.labels.get(source).unwrap_or_default());
            let joined = values.collect::<Vec<_>>().join(&separator);
            set(column, &destination, &joined);
        }
        self.renamed(columns).await
    }

    /// The columns, if no two that have values have the same labels.
    async fn renamed(&mut self, columns: Vec<Column>) -> Result<Columns, QueryError> {
        let columns = with_values(columns, &mut self.pace).await?;
        let columns = distinct(columns, &mut self.pace).await?;
        Ok(Columns::Vector(columns))
    }
}

/// A name that is set by hand is no longer dropped.
fn set(column: &mut Column, name: &str, value: &str) {
    column.labels = column.labels.to_builder().set(name, value).build();
    if name == METRIC_NAME {
        column.drop_name = false;
    }
}

fn label_name(
    (name, not_utf8): (String, Option<Vec<u8>>),
    which: &str,
    function: &str,
) -> Result<String, QueryError> {
    if name.is_empty() || not_utf8.is_some() {
        let message = format!("invalid {which} label name in {function}(): {name}");
        return Err(QueryError::Execution(message));
    }
    Ok(name)
}
