//! The store from outside.
mod crash;
mod damage;
mod durability;
mod semantics;
mod support;
