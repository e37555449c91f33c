//! What evaluating may cost: cel-go's cost units (interpreter/runtimecost.go), so that what upstream cuts off is cut off
//! here, and a second meter of the work truly done, for the few operations upstream counts as free however large.
use crate::Error;

/// One expression (apiserver/pkg/apis/cel/config.go PerCallLimit).
pub const PER_CALL_LIMIT: u64 = 1_000_000;
/// All rules of one object, or all expressions of one policy (RuntimeCELCostBudget).
pub const RUNTIME_BUDGET: u64 = 10_000_000;
/// All match conditions of one request (RuntimeCELCostBudgetMatchConditions).
pub const RUNTIME_BUDGET_MATCH_CONDITIONS: u64 = 2_500_000;
/// The most bytes a request may have, which bounds what is not bounded by its schema.
pub const MAX_REQUEST_SIZE_BYTES: u64 = 3 * 1024 * 1024;

/// Elements and blocks of text copied or compared for one expression.
const MAX_WORK: u64 = 5_000_000;
/// What an item weighs that is made, not only looked at: this and the next keep what an expression holds below 80 MB.
const NEW_ITEM: usize = 4;
/// How deeply evaluation nests, through the expressions that ask for the value of others: each level takes stack.
const MAX_FRAMES: u32 = 600;
/// Bytes of text that weigh as much as one element.
const TEXT_BLOCK: usize = 16;

/// What is left for a number of expressions.
#[derive(Debug)]
pub struct Budget {
    total: u64,
    spent: u64,
    /// Of the running expression.
    call: u64,
    call_limit: u64,
    work: u64,
    /// Expressions that run within each other.
    depth: u32,
    /// Nodes that are being evaluated.
    frames: u32,
}

impl Budget {
    pub fn new(total: u64) -> Budget {
        Budget { total, spent: 0, call: 0, call_limit: PER_CALL_LIMIT, work: 0, depth: 0, frames: 0 }
    }
    /// For tools and tests: what one expression may cost.
    pub fn with_call_limit(mut self, limit: u64) -> Budget {
        self.call_limit = limit;
        self
    }
    /// Of all expressions so far.
    pub fn spent(&self) -> u64 {
        self.spent
    }
    /// More was spent than there was; no further expression is to run.
    pub fn is_exceeded(&self) -> bool {
        self.spent > self.total
    }

    /// Around one expression; an inner one (a policy's variable) has a limit of its own. Give what `begin` gave to `end`.
    pub(crate) fn begin(&mut self) -> (u64, u64) {
        self.depth += 1;
        (std::mem::take(&mut self.call), std::mem::take(&mut self.work))
    }
    pub(crate) fn end(&mut self, outer: (u64, u64)) {
        self.depth -= 1;
        if self.depth > 0 {
            (self.call, self.work) = (outer.0, outer.1.saturating_add(self.work));
        }
    }

    pub(crate) fn enter(&mut self) -> Result<(), Error> {
        if self.frames >= MAX_FRAMES {
            return Err(Error::new("expressions refer to each other too deeply"));
        }
        self.frames += 1;
        Ok(())
    }
    pub(crate) fn leave(&mut self) {
        self.frames -= 1;
    }

    pub(crate) fn charge(&mut self, cost: u64) -> Result<(), Error> {
        self.call = self.call.saturating_add(cost);
        self.spent = self.spent.saturating_add(cost);
        if self.call > self.call_limit { Err(Error::Budget) } else { Ok(()) }
    }

    pub(crate) fn work(&mut self, elements: usize) -> Result<(), Error> {
        self.work = self.work.saturating_add(elements as u64);
        if self.work > MAX_WORK { Err(Error::Budget) } else { Ok(()) }
    }
    pub(crate) fn new_items(&mut self, count: usize) -> Result<(), Error> {
        self.work(count.saturating_mul(NEW_ITEM))
    }
    pub(crate) fn text_work(&mut self, bytes: usize) -> Result<(), Error> {
        self.work(bytes / TEXT_BLOCK + 1)
    }
}
