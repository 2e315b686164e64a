//! The outermost loop: real clock, dice, disk, network and threads behind the traits of model
