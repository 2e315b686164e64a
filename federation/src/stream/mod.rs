//! What a child cluster sends its parent: every sample since the parent's position.
//!
//! Format: docs/format/federation.md. What stays true: a stream is whole only with its last frame;
//! a position in it covers everything before it; bytes from outside are bounded and an error when
//! they are wrong.
//!
//! - [`position`]: how far a parent has read a child
//! - [`frame`]: the frames, written and read

pub mod frame;
pub mod position;

pub use frame::{Decoder, Frame, FrameError, samples_frames};
pub use position::Position;
