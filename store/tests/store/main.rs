//! The store from outside.
mod crash;
mod durability;
mod semantics;
mod support;
