//! What is particular to containers.
