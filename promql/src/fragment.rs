//! A shard's half of a query: one node of its tree, over the shard's own series.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use model::fragment::{Evaluator, Fragment, FragmentError, Part, PartColumn};
use model::limits::QUERY_BYTES_HELD_MAX;
use model::port::Clock;
use model::source::{Selection, Source};

use crate::ast::{Aggregate, Expr};
use crate::engine::EngineOptions;
use crate::error::QueryError;
use crate::eval::{Bounds, Column, Data, Evaluation, Folder, Pace, Rules, split};
use crate::local;
use crate::parsed::Parsed;
use crate::parser::{ParseOptions, parse_with};
use crate::plan::{Context, Grid, Plan, plan};

/// Computes fragments for this node and for others.
pub struct Fragments {
    clock: Arc<dyn Clock>,
    /// A fragment ends by its time limit, or when nobody waits for it any more.
    is_closed: AtomicBool,
    parsed: Parsed,
}

impl Fragments {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            is_closed: AtomicBool::new(false),
            parsed: Parsed::default(),
        }
    }

    fn parse(&self, query: &str, features: Features) -> Result<Arc<Expr>, QueryError> {
        Ok(self.parsed.get(query, features.parse_options())?)
    }

    async fn part(&self, source: &dyn Source, fragment: &Fragment) -> Result<Part, QueryError> {
        let features = Features(fragment.features);
        let expr = self.parse(&fragment.query, features)?;
        let (aggregate, operand) = operand(&expr, fragment)?;
        let context = context(fragment);
        let plan = plan(operand, context, None)?;
        let timeout = Duration::from_millis(fragment.timeout_ms);
        let bounds = Bounds {
            deadline: self.clock.monotonic().saturating_add(timeout),
            samples_max: context.samples_max,
            bytes_max: QUERY_BYTES_HELD_MAX,
        };
        let pace = Pace::new(&*self.clock, &self.is_closed, bounds);
        pace.check()?;
        let evaluation = Evaluation::new(Data::default(), pace, features.rules());
        let work = Work {
            evaluation: match aggregate {
                Some(aggregate) => evaluation.for_fold(aggregate),
                None => evaluation,
            },
            folder: aggregate.map(|aggregate| Folder::new(aggregate, context.grid)),
            chooser: chooser(&expr, fragment)?,
            columns: Vec::new(),
            part: Part::default(),
            held: 0,
        };
        work.run(source, &plan, &context).await
    }
}

/// What is computed of each series, and the aggregation that folds it if one does.
fn operand<'e>(
    expr: &'e Expr,
    fragment: &Fragment,
) -> Result<(Option<&'e Aggregate>, &'e Expr), QueryError> {
    let number = fragment.node;
    let node = local::node(expr, number)
        .ok_or_else(|| QueryError::Execution(format!("the query has no node {number}")))?;
    match (fragment.fold, node) {
        (true, Expr::Aggregate(aggregate)) => Ok((Some(aggregate), &aggregate.expr)),
        (true, _) => Err(QueryError::Execution("only aggregations fold".to_owned())),
        (false, _) => Ok((None, node)),
    }
}

/// The aggregation that chooses among what is computed, if one does.
fn chooser<'e>(expr: &'e Expr, fragment: &Fragment) -> Result<Option<&'e Aggregate>, QueryError> {
    let Some(number) = fragment.chosen_by else {
        return Ok(None);
    };
    match local::node(expr, number) {
        Some(Expr::Aggregate(aggregate)) if local::can_choose(aggregate) => Ok(Some(aggregate)),
        _ => Err(QueryError::Execution(format!(
            "node {number} of the query chooses no series"
        ))),
    }
}

/// The expression that a fragment computes, or folds, as text; none where it is no part of its query.
pub fn expression(fragment: &Fragment) -> Option<String> {
    let options = Features(fragment.features).parse_options();
    let expr = parse_with(&fragment.query, options).ok()?;
    Some(local::node(&expr, fragment.node)?.to_string())
}

/// A fragment on its way: series come in pieces, so that their samples need not be held at once.
struct Work<'a> {
    evaluation: Evaluation<'a>,
    folder: Option<Folder<'a>>,
    chooser: Option<&'a Aggregate>,
    /// What is computed, of a node that is not folded.
    columns: Vec<Column>,
    part: Part,
    /// Bytes of the columns that are finished.
    held: usize,
}

impl Work<'_> {
    async fn run(
        mut self,
        source: &dyn Source,
        plan: &Plan<'_>,
        context: &Context,
    ) -> Result<Part, QueryError> {
        let [selection] = plan.selections.as_slice() else {
            let message = "a part of a query selects once".to_owned();
            return Err(QueryError::Execution(message));
        };
        let instants = plan.steps.iter().map(|step| step.grid.steps);
        let instants = instants.max().unwrap_or_default();
        // A piece of no series: what is counted without any.
        let mut pieces = source.stream(selection);
        let mut next = Some(Ok(Vec::new()));
        while let Some(piece) = next {
            let piece = piece?;
            self.part.series += piece.len() as u64;
            self.evaluation
                .foresee_piece(&piece, &plan.steps, context.lookback_ms)
                .await?;
            for piece in split(piece, instants) {
                let data = Data::new(vec![piece], Vec::new(), context.lookback_ms);
                let columns = self.evaluation.compute_piece(data, &plan.steps).await?;
                if !self.keep(columns, context).await? {
                    return Ok(Part {
                        cannot_fold: true,
                        ..Part::default()
                    });
                }
            }
            next = pieces.next().await;
        }
        if let Some(aggregate) = self.chooser {
            // Choosing goes by the order of labels.
            self.columns.sort_by(|a, b| a.labels.cmp(&b.labels));
            let columns = std::mem::take(&mut self.columns);
            let chosen = self.evaluation.choose(aggregate, columns, context.grid);
            self.columns = chosen.await?;
        }
        self.part.columns = match self.folder {
            Some(folder) => folder.into_parts(),
            None => self.columns.into_iter().map(PartColumn::from).collect(),
        };
        let (notes, counts, steps) = self.evaluation.end(&plan.steps).await?;
        self.part.notes = notes.into_parts();
        (self.part.samples, self.part.peak) = (counts.read, counts.peak);
        self.part.counts = steps;
        Ok(self.part)
    }

    /// `false` when the columns do not fold.
    async fn keep(&mut self, columns: Vec<Column>, context: &Context) -> Result<bool, QueryError> {
        if let Some(folder) = &mut self.folder {
            return folder.add_columns(columns, self.evaluation.pace()).await;
        }
        self.held += 8 * columns.len() * context.grid.steps;
        if self.held > QUERY_BYTES_HELD_MAX {
            return Err(QueryError::TooManySamples);
        }
        self.columns.extend(columns);
        Ok(true)
    }
}

fn context(fragment: &Fragment) -> Context {
    Context {
        grid: Grid {
            start: fragment.start.0,
            step: fragment.step_ms.max(1),
            steps: fragment.steps as usize,
            end: fragment.end.0,
        },
        start: fragment.query_start.0,
        end: fragment.query_end.0,
        query_step_ms: fragment.query_step_ms,
        lookback_ms: fragment.lookback_ms,
        subquery_step_ms: fragment.subquery_step_ms.max(1),
        consistency: fragment.consistency,
        samples_max: usize::try_from(fragment.samples_max).unwrap_or(usize::MAX),
    }
}

#[async_trait]
impl Evaluator for Fragments {
    fn selection(&self, fragment: &Fragment) -> Option<Selection> {
        let features = Features(fragment.features);
        let expr = self.parse(&fragment.query, features).ok()?;
        let (_, operand) = operand(&expr, fragment).ok()?;
        let plan = plan(operand, context(fragment), None).ok()?;
        let mut selections = plan.selections.into_iter();
        selections.next().filter(|_| selections.next().is_none())
    }

    async fn evaluate(
        &self,
        source: &dyn Source,
        fragment: &Fragment,
    ) -> Result<Part, FragmentError> {
        self.part(source, fragment)
            .await
            .map_err(|error| match error {
                QueryError::Source(error) => FragmentError::Source(error),
                QueryError::TooManySamples => FragmentError::TooManySamples,
                QueryError::Timeout => FragmentError::Timeout,
                QueryError::Canceled => FragmentError::Canceled,
                QueryError::Parse(_) | QueryError::Invalid(_) | QueryError::Execution(_) => {
                    FragmentError::Execution(error.to_string())
                }
            })
    }
}

impl From<FragmentError> for QueryError {
    fn from(error: FragmentError) -> Self {
        match error {
            FragmentError::Source(error) => Self::Source(error),
            FragmentError::Execution(text) => Self::Execution(text),
            FragmentError::TooManySamples => Self::TooManySamples,
            FragmentError::Timeout => Self::Timeout,
            FragmentError::Canceled => Self::Canceled,
            FragmentError::Unsupported => Self::Execution(
                "a node of the cluster cannot compute this query: it runs another version"
                    .to_owned(),
            ),
        }
    }
}

/// Switches of the language as bits, the same in every version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Features(pub u32);

impl Features {
    const EXPERIMENTAL_FUNCTIONS: u32 = 1;
    const DELAYED_NAME_REMOVAL: u32 = 2;
    const TYPE_AND_UNIT_LABELS: u32 = 4;
    const DURATION_EXPRESSIONS: u32 = 8;
    const FILL_MODIFIERS: u32 = 16;
    const EXTENDED_RANGES: u32 = 32;

    pub fn of(options: &EngineOptions) -> Self {
        let bits = [
            (options.experimental_functions, Self::EXPERIMENTAL_FUNCTIONS),
            (options.delayed_name_removal, Self::DELAYED_NAME_REMOVAL),
            (options.type_and_unit_labels, Self::TYPE_AND_UNIT_LABELS),
            (options.duration_expressions, Self::DURATION_EXPRESSIONS),
            (options.fill_modifiers, Self::FILL_MODIFIERS),
            (options.extended_ranges, Self::EXTENDED_RANGES),
        ];
        Self(
            bits.iter()
                .filter(|(is_on, _)| *is_on)
                .map(|(_, bit)| bit)
                .sum(),
        )
    }

    fn has(self, bit: u32) -> bool {
        self.0 & bit != 0
    }

    fn parse_options(self) -> ParseOptions {
        ParseOptions {
            experimental_functions: self.has(Self::EXPERIMENTAL_FUNCTIONS),
            duration_expressions: self.has(Self::DURATION_EXPRESSIONS),
            fill_modifiers: self.has(Self::FILL_MODIFIERS),
            extended_ranges: self.has(Self::EXTENDED_RANGES),
        }
    }

    fn rules(self) -> Rules {
        Rules {
            delayed_names: self.has(Self::DELAYED_NAME_REMOVAL),
            type_and_unit_labels: self.has(Self::TYPE_AND_UNIT_LABELS),
        }
    }
}
