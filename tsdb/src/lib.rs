//! One shard on one disk: head, chunks, blocks, index, checkpoints, push groups
