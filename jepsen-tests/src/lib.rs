//! Real processes, real faults, real checkers
