//! The Common Expression Language as Kubernetes 1.36 has it: rules of custom resources, admission policies, conditions of
//! webhooks. Pure: text and JSON in, values out; no I/O, no clock, nothing kept between evaluations.
//!
//! `Environment::compile` parses, expands macros and checks types; `Program::estimated_cost` says what an evaluation may
//! cost; `Program::evaluate` runs it within a `Budget`. Neither the depth of an expression nor the size of its data can
//! exhaust the stack or run on without bound: depth is limited when parsing, and every step is paid for.

mod ast;
pub mod auth; // what the authorizer library asks
mod budget;
mod charge; // what a call did cost
mod check; // types
mod cost; // what an evaluation may cost
mod environment;
mod error;
mod escape; // property names as identifiers
mod eval;
mod lexer;
mod macros;
mod opaque; // the libraries' own values
mod ops; // the functions
mod parser;
mod schema; // OpenAPI schemas as types
mod time;
mod types;
pub mod value;

pub use budget::{Budget, MAX_REQUEST_SIZE_BYTES, PER_CALL_LIMIT, RUNTIME_BUDGET, RUNTIME_BUDGET_MATCH_CONDITIONS};
pub use cost::CostRange;
pub use environment::{Environment, Program, Variables};
pub use error::{Error, Issue, print_issues};
pub use escape::escape;
pub(crate) use mote_schema::regex;
pub use mote_schema::regex::Regex;
pub use opaque::Opaque;
pub use schema::{Schema, declare};
pub use types::{Field, Fields, ListKind, ListType, MapType, ObjectType, Slot, Type, UNBOUNDED};
pub use value::{Key, Lazy, Text, Value};
