//! What `/federate` costs: `bench federate`.
//!
//! One way: [`options`] -> every system is loaded with the same series, alone -> each is asked for
//! all of them in turns, by [`fetch`] -> the answers must hold every series -> medians and ratios
//! ([`report`]).

mod fetch;
mod options;
mod report;
mod run;

pub use run::measure;
