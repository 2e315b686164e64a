//! PromQL: text to tree to vectors, over any source of series
