//! The cluster as one source: fan-out, merge, and the /federate exposition
