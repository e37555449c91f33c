//! Admission webhooks. `matching` says whose business a request is (policies ask it too), `configurations` keeps what
//! was configured ready to use, `review` is the exchange with one webhook, `mutating` and `validating` are the two ways of
//! asking them (apiserver/pkg/admission/plugin/webhook).
mod configurations;
mod figures;
pub(crate) mod matching;
mod mutating;
mod review;
mod validating;
pub(crate) mod versions;

pub(crate) use configurations::Configurations;
pub(super) use matching::{Matched, Matcher, is_exempt};
pub(crate) use mutating::{Round, mutate};
pub(super) use review::head as request_head;
pub(crate) use validating::validate;
