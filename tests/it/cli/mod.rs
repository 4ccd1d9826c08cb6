//! The commands as people run them: what they leave behind, and whom they may be run by.

mod demo;
mod migrate;
mod ordinary_user;
mod unheard;
