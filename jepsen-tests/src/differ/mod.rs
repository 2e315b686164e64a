//! Random PromQL over random data, asked of two at once: quorate and a real Prometheus
//! ([`tester`]), or quorate and itself in another shape ([`metamorphic`]).
//!
//! One seed makes the [`data`] ([`shapes`], [`natives`]) and an endless stream of
//! [`question`]s ([`generate`] draws [`expr`]essions from the tables of [`grammar`]). Both
//! [`peers`] get the data by remote [`wire`] and both are asked; the [`answer`]s are compared. On
//! a difference the question is made smaller ([`shrink`]), then the data ([`cut`]), until nothing
//! can be left out; a [`case`] file replays what is left. What is [`known`] to differ has a reason.

pub mod answer;
pub mod call;
pub mod calls;
pub mod canonical;
pub mod case;
pub mod command;
pub mod cut;
pub mod data;

pub mod expr;
pub mod generate;
pub mod grammar;
pub mod instants;
pub mod known;
pub mod metamorphic;
mod natives;
pub mod peers;
pub mod question;
pub mod resting;
pub mod settled;
pub mod shapes;
pub mod shrink;
pub mod stages;
pub mod tester;
pub mod wire;
