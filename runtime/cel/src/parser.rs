//! Tokens to nodes, by recursive descent, bounded in depth: cel-go's parser/gen/CEL.g4. Nodes lie where cel-go puts them
//! (an operator at its sign, a call at its parenthesis), since errors name that place.
use crate::{
    Issue,
    ast::{Ast, Expr, Id, Literal},
    lexer::{Lexeme, Token, lex, unescape},
    macros,
};

/// How deep expressions nest, and how long a chain of one operator or of selections is.
const MAX_DEPTH: usize = 250;
/// Characters of one expression.
const MAX_SIZE: usize = 100_000;
/// Nodes, after macros: some double what they are given.
pub const MAX_NODES: usize = 200_000;

/// Kept for languages that CEL is embedded in.
pub const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

const STARTS: &str =
    "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";
const STARTS_OR_END: &str = "{'[', '{', '(', ')', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";

const OPERATORS: [(&str, &str); 14] = [
    ("||", "_||_"),
    ("&&", "_&&_"),
    ("<", "_<_"),
    ("<=", "_<=_"),
    (">=", "_>=_"),
    (">", "_>_"),
    ("==", "_==_"),
    ("!=", "_!=_"),
    ("in", "@in"),
    ("+", "_+_"),
    ("-", "_-_"),
    ("*", "_*_"),
    ("/", "_/_"),
    ("%", "_%_"),
];
/// Those that are put together from the left, the ones that bind most closely first.
const LEVELS: [&[&str]; 3] = [&["*", "/", "%"], &["+", "-"], &["<", "<=", ">=", ">", "==", "!=", "in"]];

/// `bindings`: `cel.bind` is a macro.
pub fn parse(source: &str, bindings: bool) -> Result<Ast, Vec<Issue>> {
    let size = source.chars().count();
    if size > MAX_SIZE {
        let message = format!("expression code point size exceeds limit: size: {size}, limit {MAX_SIZE}");
        return Err(vec![Issue::nowhere(message)]);
    }
    let (tokens, wrong) = lex(source);
    let mut issues: Vec<Issue> = wrong
        .into_iter()
        .map(|(at, text)| {
            let text = text.replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t");
            Issue::new(source, at as u32, format!("Syntax error: token recognition error at: '{text}'"))
        })
        .collect();
    let mut parser = Parser { source, tokens, next: 0, depth: 0, ast: Ast::default(), issues: Vec::new() };
    parser.ast.bindings = bindings;
    match parser.whole() {
        Ok(root) => parser.ast.root = root,
        Err(issue) => parser.issues.push(issue),
    }
    if parser.ast.is_too_deep && parser.issues.is_empty() {
        parser.issues.push(Issue::nowhere("max recursion depth exceeded".into()));
    }
    issues.append(&mut parser.issues);
    if issues.is_empty() { Ok(parser.ast) } else { Err(issues) }
}

pub struct Parser<'s> {
    source: &'s str,
    tokens: Vec<Lexeme<'s>>,
    next: usize,
    depth: usize,
    pub ast: Ast,
    /// Mistakes that do not end the parse.
    issues: Vec<Issue>,
}

type Parsed<T> = Result<T, Issue>;

impl<'s> Parser<'s> {
    fn whole(&mut self) -> Parsed<Id> {
        let root = self.expr()?;
        let found = self.peek();
        if found.token == Token::End {
            return Ok(root);
        }
        // One token too many reads differently from many.
        let kind = if self.tokens.len() - self.next == 2 { "extraneous" } else { "mismatched" };
        Err(self.syntax(found.at, format!("{kind} input '{}' expecting <EOF>", found.text)))
    }

    fn peek(&self) -> Lexeme<'s> {
        let last = self.tokens.len() - 1;
        self.tokens[self.next.min(last)]
    }
    fn take(&mut self) -> Lexeme<'s> {
        let found = self.peek();
        self.next += 1;
        found
    }
    fn is(&self, symbol: &str) -> bool {
        let found = self.peek();
        found.token == Token::Symbol && found.text == symbol
    }
    fn accept(&mut self, symbol: &str) -> Option<Lexeme<'s>> {
        self.is(symbol).then(|| self.take())
    }
    fn expect(&mut self, symbol: &str, expected: &str) -> Parsed<Lexeme<'s>> {
        match self.accept(symbol) {
            Some(found) => Ok(found),
            None => Err(self.mismatched(expected)),
        }
    }

    fn syntax(&self, at: usize, message: String) -> Issue {
        Issue::new(self.source, at as u32, format!("Syntax error: {message}"))
    }
    fn mismatched(&self, expected: &str) -> Issue {
        let found = self.peek();
        self.syntax(found.at, format!("mismatched input '{}' expecting {expected}", found.text))
    }
    /// Told, and parsing goes on.
    pub fn complain(&mut self, at: u32, message: impl Into<String>) -> Id {
        self.issues.push(Issue::new(self.source, at, message.into()));
        self.ast.add(Expr::Literal(Literal::Null), at)
    }
    fn too_deep(&self) -> Issue {
        Issue::nowhere(format!("expression recursion limit exceeded: {MAX_DEPTH}"))
    }

    fn expr(&mut self) -> Parsed<Id> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.too_deep());
        }
        let condition = self.operators()?;
        let mut result = condition;
        if let Some(op) = self.accept("?") {
            let yes = self.operators()?;
            self.expect(":", "':'")?;
            let no = self.expr()?;
            result = self.call("_?_:_", None, vec![condition, yes, no], op.at);
        }
        self.depth -= 1;
        Ok(result)
    }

    /// All binary operators in one loop (a function for each level would take stack for each at every parenthesis):
    /// operands and operators are gathered, then put together level by level.
    fn operators(&mut self) -> Parsed<Id> {
        let mut terms = vec![self.unary()?];
        let mut operators: Vec<(&str, &str, usize)> = Vec::new();
        while let Some((symbol, function)) = self.operator() {
            operators.push((symbol, function, self.take().at));
            terms.push(self.unary()?);
        }
        for level in LEVELS {
            if !operators.iter().any(|(symbol, _, _)| level.contains(symbol)) {
                continue;
            }
            let mut operands = std::mem::take(&mut terms).into_iter();
            terms.extend(operands.next());
            let mut kept = Vec::new();
            for ((symbol, function, at), right) in operators.into_iter().zip(operands) {
                match terms.last_mut() {
                    Some(left) if level.contains(&symbol) => {
                        let args = vec![*left, right];
                        *left = self
                            .ast
                            .add(Expr::Call { function: function.into(), target: None, args: args.into() }, at as u32);
                    }
                    _ => {
                        kept.push((symbol, function, at));
                        terms.push(right);
                    }
                }
            }
            operators = kept;
        }
        // What is left are chains of && between ||; each becomes a balanced tree.
        let mut alternatives = Vec::new();
        let mut places = Vec::new();
        let mut start = 0;
        for end in 0..=operators.len() {
            if operators.get(end).is_none_or(|(symbol, _, _)| *symbol == "||") {
                let inner: Vec<usize> = operators[start..end].iter().map(|(_, _, at)| *at).collect();
                alternatives.push(self.balance("_&&_", &terms[start..=end], &inner));
                places.extend(operators.get(end).map(|(_, _, at)| *at));
                start = end + 1;
            }
        }
        Ok(self.balance("_||_", &alternatives, &places))
    }

    fn operator(&self) -> Option<(&'static str, &'static str)> {
        let found = self.peek();
        let known = OPERATORS.iter().find(|(symbol, _)| *symbol == found.text);
        known.copied().filter(|_| found.token == Token::Symbol)
    }

    fn balance(&mut self, function: &str, terms: &[Id], places: &[usize]) -> Id {
        if places.is_empty() {
            return terms.first().copied().unwrap_or_default();
        }
        let middle = places.len() / 2;
        let left = self.balance(function, &terms[..=middle], &places[..middle]);
        let right = self.balance(function, &terms[middle + 1..], &places[middle + 1..]);
        self.call(function, None, vec![left, right], places[middle])
    }

    fn unary(&mut self) -> Parsed<Id> {
        for (symbol, function) in [("!", "!_"), ("-", "-_")] {
            let Some(first) = self.accept(symbol) else { continue };
            // A minus right before a number is part of it.
            if symbol == "-" && matches!(self.peek().token, Token::Int | Token::Double) {
                self.next -= 1;
                return self.member();
            }
            let mut count = 1;
            while self.accept(symbol).is_some() {
                count += 1;
            }
            let operand = self.member()?;
            return Ok(if count % 2 == 0 { operand } else { self.call(function, None, vec![operand], first.at) });
        }
        self.member()
    }

    fn member(&mut self) -> Parsed<Id> {
        let mut operand = self.primary()?;
        for _ in 0..MAX_DEPTH {
            if let Some(dot) = self.accept(".") {
                let optional = self.accept("?").is_some();
                let name = self.peek();
                if !matches!(name.token, Token::Ident | Token::Quoted) {
                    return Err(self.syntax(
                        name.at,
                        match name.token {
                            Token::Symbol => format!("no viable alternative at input '.{}'", name.text),
                            Token::End if !optional => "no viable alternative at input '.'".to_owned(),
                            _ => format!("mismatched input '{}' expecting IDENTIFIER", name.text),
                        },
                    ));
                }
                self.take();
                let open = self.peek();
                if !optional && name.token == Token::Ident && self.accept("(").is_some() {
                    let args = self.args()?;
                    operand = self.call_or_macro(name.text, Some(operand), args, open.at);
                    continue;
                }
                if name.token == Token::Quoted {
                    self.complain(name.at as u32, "unsupported syntax: '`'");
                }
                let field: Box<str> = name.text.trim_matches('`').into();
                operand = if optional {
                    let field = self.ast.add(Expr::Literal(Literal::String(field)), name.at as u32);
                    self.call("_?._", None, vec![operand, field], dot.at)
                } else {
                    self.ast.add(Expr::Select { operand, field, test: false }, dot.at as u32)
                };
            } else if let Some(open) = self.accept("[") {
                let function = if self.accept("?").is_some() { "_[?_]" } else { "_[_]" };
                let index = self.expr()?;
                self.expect("]", "']'")?;
                operand = self.call(function, None, vec![operand, index], open.at);
            } else if self.is("{")
                && let Some(name) = self.type_name(operand)
            {
                operand = self.object(name)?;
            } else {
                return Ok(operand);
            }
        }
        Err(self.too_deep())
    }

    /// `a.b.C` before a brace.
    fn type_name(&self, id: Id) -> Option<String> {
        self.ast.qualified_name(id)
    }

    fn args(&mut self) -> Parsed<Vec<Id>> {
        let mut args = Vec::new();
        if self.accept(")").is_some() {
            return Ok(args);
        }
        if !self.starts_expr() {
            return Err(self.mismatched(STARTS_OR_END));
        }
        loop {
            args.push(self.expr()?);
            if self.accept(",").is_some() {
                continue;
            }
            self.expect(")", "{')', ','}")?;
            return Ok(args);
        }
    }

    fn starts_expr(&self) -> bool {
        let found = self.peek();
        match found.token {
            Token::Symbol => ["[", "{", "(", ".", "-", "!", "true", "false", "null"].contains(&found.text),
            Token::End | Token::Quoted => false,
            _ => true,
        }
    }

    fn primary(&mut self) -> Parsed<Id> {
        let found = self.take();
        let at = found.at as u32;
        let literal = match (found.token, found.text) {
            (Token::Ident, name) => return self.ident(name, "", found.at),
            (Token::Symbol, ".") if self.peek().token == Token::Ident => {
                let name = self.take();
                return self.ident(name.text, ".", name.at);
            }
            (Token::Symbol, "(") => {
                let inner = self.expr()?;
                if self.accept(")").is_none() {
                    let wrong = self.peek();
                    return Err(match wrong.token {
                        Token::End => self.syntax(wrong.at, "missing ')' at '<EOF>'".into()),
                        _ => self.mismatched("')'"),
                    });
                }
                return Ok(inner);
            }
            (Token::Symbol, "[") => return self.list(at),
            (Token::Symbol, "{") => return self.map(at),
            (Token::Symbol, "-") => return Ok(self.number(self.peek(), "-", at)),
            (Token::Int | Token::Uint | Token::Double, _) => {
                self.next -= 1;
                return Ok(self.number(found, "", at));
            }
            (Token::Symbol, "true") => Literal::Bool(true),
            (Token::Symbol, "false") => Literal::Bool(false),
            (Token::Symbol, "null") => Literal::Null,
            (Token::String | Token::Bytes, text) => match unescape(text, found.token == Token::Bytes) {
                Ok(bytes) if found.token == Token::Bytes => Literal::Bytes(bytes.into()),
                Ok(bytes) => Literal::String(String::from_utf8_lossy(&bytes).into()),
                Err(message) => return Ok(self.complain(at, message)),
            },
            _ => {
                self.next -= 1;
                return Err(self.mismatched(STARTS));
            }
        };
        Ok(self.ast.add(Expr::Literal(literal), at))
    }

    /// The number the next token holds.
    fn number(&mut self, token: Lexeme<'s>, sign: &str, at: u32) -> Id {
        self.take();
        let digits = token.text.trim_end_matches(['u', 'U']);
        let (digits, radix) = digits.strip_prefix("0x").map_or((digits, 10), |hex| (hex, 16));
        let signed = sign.to_owned() + digits;
        let literal = match token.token {
            Token::Uint => u64::from_str_radix(digits, radix).map(Literal::Uint).map_err(|_| "invalid uint literal"),
            Token::Double => signed.parse().map(Literal::Double).map_err(|_| "invalid double literal"),
            _ => i64::from_str_radix(&signed, radix).map(Literal::Int).map_err(|_| "invalid int literal"),
        };
        match literal {
            Ok(literal) => self.ast.add(Expr::Literal(literal), at),
            Err(message) => self.complain(at, message),
        }
    }

    fn ident(&mut self, name: &str, dot: &str, at: usize) -> Parsed<Id> {
        if RESERVED.contains(&name) {
            return Ok(self.complain(at as u32, format!("reserved identifier: {name}")));
        }
        let full = dot.to_owned() + name;
        let open = self.peek();
        if self.accept("(").is_some() {
            let args = self.args()?;
            return Ok(self.call_or_macro(&full, None, args, open.at));
        }
        Ok(self.ast.add(Expr::Ident(full.into()), at as u32))
    }

    fn list(&mut self, at: u32) -> Parsed<Id> {
        let mut items = Vec::new();
        while !self.is("]") {
            let optional = self.accept("?").is_some();
            items.push((self.expr()?, optional));
            if self.accept(",").is_none() && !self.is("]") {
                return Err(self.mismatched("{']', ','}"));
            }
        }
        self.take();
        Ok(self.ast.add(Expr::List(items.into()), at))
    }

    fn map(&mut self, at: u32) -> Parsed<Id> {
        let mut entries = Vec::new();
        while !self.is("}") {
            let optional = self.accept("?").is_some();
            let key = self.expr()?;
            self.expect(":", "':'")?;
            entries.push((key, self.expr()?, optional));
            if self.accept(",").is_none() && !self.is("}") {
                return Err(self.mismatched("{'}', ','}"));
            }
        }
        self.take();
        Ok(self.ast.add(Expr::Map(entries.into()), at))
    }

    fn object(&mut self, name: String) -> Parsed<Id> {
        let open = self.take();
        let mut fields = Vec::new();
        while !self.is("}") {
            let optional = self.accept("?").is_some();
            let field = self.take();
            if field.token != Token::Ident {
                self.next -= 1;
                return Err(self.mismatched("{'}', ',', '?', IDENTIFIER, ESC_IDENTIFIER}"));
            }
            self.expect(":", "':'")?;
            fields.push((field.text.into(), self.expr()?, optional));
            if self.accept(",").is_none() && !self.is("}") {
                return Err(self.mismatched("{'}', ','}"));
            }
        }
        self.take();
        Ok(self.ast.add(Expr::Object { name: name.into(), fields: fields.into() }, open.at as u32))
    }

    fn call(&mut self, function: &str, target: Option<Id>, args: Vec<Id>, at: usize) -> Id {
        self.ast.add(Expr::Call { function: function.into(), target, args: args.into() }, at as u32)
    }

    fn call_or_macro(&mut self, function: &str, target: Option<Id>, args: Vec<Id>, at: usize) -> Id {
        if self.ast.len() > MAX_NODES {
            return self.complain(at as u32, "expression is too large once its macros are expanded");
        }
        match macros::expand(&mut self.ast, function, target, &args, at as u32) {
            Some(Ok(id)) => id,
            Some(Err((at, message))) => self.complain(at, message),
            None => self.call(function, target, args, at),
        }
    }
}
