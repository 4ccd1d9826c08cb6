//! The `tunesmith` binary.

fn main() {}
