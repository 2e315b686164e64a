//! How fast questions are answered: `bench queries`.
//!
//! One way: [`options`] -> every system is loaded with the same [`population`], alone, and stays
//! up -> each of the [`questions`] is asked of all of them; answers must agree before times count
//! -> it is [`ask`]ed again and again of one system after the other -> [`report`].

mod ask;
mod options;
mod population;
mod questions;
mod report;
mod run;

pub use options::{Options, Shape};
pub use population::{KUBERNETES, SERIES_PER_TARGET, instance};
pub use run::{load, measure};
