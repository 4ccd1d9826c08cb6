//! Placeholder until its branch lands.
