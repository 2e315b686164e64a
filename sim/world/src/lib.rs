//! The simulated world behind the traits of model: virtual time, seeded dice, a lossy network, a disk that forgets
