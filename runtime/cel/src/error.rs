//! What goes wrong: issues with an expression's text, and errors while it is evaluated.
use std::fmt;

/// A mistake in an expression, printed as cel-go prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    pub message: String,
    /// From 1; 0 when no place is known.
    pub line: u32,
    /// From 1; 0 in an expression without text, as cel-go's parser has it.
    pub column: u32,
    /// The line of source.
    snippet: String,
}

impl Issue {
    pub(crate) fn new(source: &str, at: u32, message: String) -> Issue {
        let at = (at as usize).min(source.len());
        let before = source.get(..at).unwrap_or(source);
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let snippet = source.get(start..).and_then(|rest| rest.split('\n').next()).unwrap_or("").to_owned();
        let column = before.get(start..).unwrap_or("").chars().count() as u32 + u32::from(!source.is_empty());
        Issue { message, line: before.matches('\n').count() as u32 + 1, column, snippet }
    }

    pub(crate) fn nowhere(message: String) -> Issue {
        Issue { message, line: 0, column: 0, snippet: String::new() }
    }
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            return write!(f, "ERROR: <input>:-1:0: {}", self.message);
        }
        write!(f, "ERROR: <input>:{}:{}: {}", self.line, self.column, self.message)?;
        if self.snippet.is_empty() || self.snippet.len() > 16384 {
            return Ok(());
        }
        let snippet = self.snippet.replace('\t', " ");
        write!(f, "\n | {snippet}\n | ")?;
        let mut chars = snippet.chars();
        // Wide characters get wide dots, so that the mark stands below them.
        for c in chars.by_ref().take(self.column as usize - 1) {
            f.write_str(if c.len_utf8() > 1 { "\u{ff0e}" } else { "." })?;
        }
        f.write_str(if chars.next().is_some_and(|c| c.len_utf8() > 1) { "\u{ff3e}" } else { "^" })
    }
}

/// All issues, one below the other.
pub fn print_issues(issues: &[Issue]) -> String {
    let lines: Vec<String> = issues.iter().map(Issue::to_string).collect();
    lines.join("\n")
}

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// Of the expression: `&&`, `||` and the loops made of them may do without it.
    Failed(Box<str>),
    /// The budget is used up; nothing absorbs that.
    Budget,
}

impl Error {
    pub fn new(message: impl Into<Box<str>>) -> Error {
        Error::Failed(message.into())
    }
    pub(crate) fn no_overload() -> Error {
        Error::new("no such overload")
    }
    pub fn is_budget(&self) -> bool {
        matches!(self, Error::Budget)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::Failed(message) => message,
            Error::Budget => "operation cancelled: actual cost limit exceeded",
        })
    }
}

impl std::error::Error for Error {}
