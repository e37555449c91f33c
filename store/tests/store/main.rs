//! The store from outside.
mod bounds;
mod crash;
mod damage;
mod durability;
mod semantics;
mod support;
