//! What pushes cost: `bench pushes`.
//!
//! One way: [`options`] -> for each system and number of groups, a fresh start, every group pushed
//! once, then [`load`] by many senders for some seconds -> rates and percentiles ([`report`]). And
//! how long a push takes beside many stored metrics and beside none.

mod load;
mod options;
mod report;
mod run;

pub use run::measure;
