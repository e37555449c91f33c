//! Source text to tokens: cel-go's parser/gen/CEL.g4, lexer rules.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    Ident,
    /// An identifier in back quotes.
    Quoted,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    /// Operators, brackets, `in`, `true`, `false`, `null`: told apart by their text.
    Symbol,
    End,
}

#[derive(Clone, Copy, Debug)]
pub struct Lexeme<'s> {
    pub token: Token,
    pub text: &'s str,
    /// Byte offset.
    pub at: usize,
}

/// Longest first where one starts another.
const SYMBOLS: [&str; 24] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "[", "]", "{", "}", "(", ")", ".", ",", "-", "!", "?", ":", "+", "*",
    "/", "%",
];

/// All tokens (the last is `End`), and what could not be read: offsets and texts.
pub fn lex(source: &str) -> (Vec<Lexeme<'_>>, Vec<(usize, String)>) {
    let (mut tokens, mut errors) = (Vec::new(), Vec::new());
    let mut at = 0;
    while let Some(rest) = source.get(at..).filter(|rest| !rest.is_empty()) {
        let blank = rest.len() - rest.trim_start_matches(['\t', ' ', '\r', '\n', '\x0c']).len();
        if blank > 0 {
            at += blank;
            continue;
        }
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
            continue;
        }
        match next(rest) {
            Ok((token, length)) => {
                tokens.push(Lexeme { token, text: &rest[..length], at });
                at += length;
            }
            Err(length) => {
                errors.push((at, rest[..length].to_owned()));
                at += length.max(1);
            }
        }
    }
    tokens.push(Lexeme { token: Token::End, text: "<EOF>", at: source.len() });
    (tokens, errors)
}

/// The first token and its length; or how much of the text is no token.
fn next(rest: &str) -> Result<(Token, usize), usize> {
    let first = rest.chars().next().unwrap_or(' ');
    if let Some((length, bytes)) = string_start(rest) {
        let raw = rest[..length].contains(['r', 'R']);
        let token = if bytes { Token::Bytes } else { Token::String };
        return string_end(&rest[length..], raw).map(|body| (token, length + body)).map_err(|body| length + body);
    }
    if first.is_ascii_digit() || (first == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit())) {
        return Ok(number(rest));
    }
    if first.is_ascii_alphabetic() || first == '_' {
        let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let token = match &rest[..length] {
            "in" | "true" | "false" | "null" => Token::Symbol,
            _ => Token::Ident,
        };
        return Ok((token, length));
    }
    if first == '`' {
        let inner = rest[1..].find(|c: char| !c.is_ascii_alphanumeric() && !"_.-/ ".contains(c));
        return match inner {
            Some(length) if length > 0 && rest[1 + length..].starts_with('`') => Ok((Token::Quoted, length + 2)),
            _ => Err(1),
        };
    }
    let symbol = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol));
    // The generated lexer has read one character further before it gives up on these.
    let wrong = match first {
        '=' | '&' | '|' => rest.chars().take(2).map(char::len_utf8).sum(),
        other => other.len_utf8(),
    };
    symbol.map(|symbol| (Token::Symbol, symbol.len())).ok_or(wrong)
}

/// The prefix letters of a string (`r`, `b`, `rb`, ...) and whether it is bytes.
fn string_start(rest: &str) -> Option<(usize, bool)> {
    let quote = rest.bytes().take(3).position(|b| b == b'"' || b == b'\'')?;
    match &rest[..quote] {
        "" | "r" | "R" => Some((quote, false)),
        "b" | "B" | "br" | "bR" | "Br" | "BR" => Some((quote, true)),
        _ => None,
    }
}

/// The length of a string with its quotes; or how far it was read in vain.
fn string_end(text: &str, raw: bool) -> Result<usize, usize> {
    let quote = &text[..1];
    let triple = text.starts_with(&quote.repeat(3));
    let end = if triple { &text[..3] } else { quote };
    let mut at = end.len();
    while let Some(c) = text[at..].chars().next() {
        if text[at..].starts_with(end) {
            return Ok(at + end.len());
        }
        if !triple && (c == '\n' || c == '\r') {
            return Err(at);
        }
        at += c.len_utf8();
        if c == '\\' && !raw {
            at += escape_length(&text[at..]).map_err(|wrong| at + wrong)?;
        }
    }
    Err(at)
}

/// How long an escape is behind its backslash; or how far it was read in vain.
fn escape_length(text: &str) -> Result<usize, usize> {
    let Some(kind) = text.chars().next() else { return Err(0) };
    let digits = |count: usize, radix: u32| match text[1..].chars().take(count).filter(|c| c.is_digit(radix)).count() {
        found if found == count => Ok(1 + count),
        _ => Err(1),
    };
    match kind {
        'a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '"' | '\'' | '\\' | '?' | '`' => Ok(1),
        'x' | 'X' => digits(2, 16),
        'u' => digits(4, 16),
        'U' => digits(8, 16),
        '0'..='3' => digits(2, 8),
        other => Err(other.len_utf8()),
    }
}

fn number(rest: &str) -> (Token, usize) {
    let digits = |from: usize| rest[from..].bytes().take_while(u8::is_ascii_digit).count();
    if let Some(hex) = rest.strip_prefix("0x") {
        let length = hex.bytes().take_while(u8::is_ascii_hexdigit).count();
        if length > 0 {
            return suffix(rest, 2 + length);
        }
    }
    let mut length = digits(0);
    let mut token = Token::Int;
    if rest[length..].starts_with('.') && digits(length + 1) > 0 {
        length += 1 + digits(length + 1);
        token = Token::Double;
    }
    if rest[length..].starts_with(['e', 'E']) {
        let sign = usize::from(rest[length + 1..].starts_with(['+', '-']));
        let exponent = digits(length + 1 + sign);
        if exponent > 0 {
            length += 1 + sign + exponent;
            token = Token::Double;
        }
    }
    if token == Token::Int { suffix(rest, length) } else { (token, length) }
}

fn suffix(rest: &str, length: usize) -> (Token, usize) {
    if rest[length..].starts_with(['u', 'U']) { (Token::Uint, length + 1) } else { (Token::Int, length) }
}

/// The value of a string or bytes literal as written.
pub fn unescape(text: &str, bytes: bool) -> Result<Vec<u8>, &'static str> {
    const WRONG: &str = "unable to unescape string";
    let body = text.trim_start_matches(['r', 'R', 'b', 'B']);
    let raw = text[..text.len() - body.len()].contains(['r', 'R']);
    let quotes = if body.len() >= 6 && (body.starts_with("\"\"\"") || body.starts_with("'''")) { 3 } else { 1 };
    let body = body.get(quotes..body.len().saturating_sub(quotes)).ok_or(WRONG)?;
    let body = if body.contains('\r') { body.replace("\r\n", "\n").replace('\r', "\n") } else { body.to_owned() };
    if raw || !body.contains('\\') {
        return Ok(body.into_bytes());
    }
    let mut out = Vec::with_capacity(body.len());
    let mut rest = body.as_str();
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let mut tail = rest[at + 1..].chars();
        let kind = tail.next().ok_or("unable to unescape string, found '\\' as last character")?;
        rest = tail.as_str();
        let mut digits = |count: usize, radix: u32| -> Result<u32, &'static str> {
            let (digits, tail) = rest.split_at_checked(count).ok_or(WRONG)?;
            rest = tail;
            u32::from_str_radix(digits, radix).map_err(|_| WRONG)
        };
        let simple = |byte: u8| (u32::from(byte), false);
        let (code, wide) = match kind {
            'a' => simple(7),
            'b' => simple(8),
            'f' => simple(12),
            'n' => simple(b'\n'),
            'r' => simple(b'\r'),
            't' => simple(b'\t'),
            'v' => simple(11),
            '\\' | '\'' | '"' | '`' | '?' => simple(kind as u8),
            'x' | 'X' => (digits(2, 16)?, !bytes),
            'u' if !bytes => (digits(4, 16)?, true),
            'U' if !bytes => (digits(8, 16)?, true),
            '0'..='3' => {
                let low = digits(2, 8).map_err(|_| "unable to unescape octal sequence in string")?;
                ((kind as u32 - '0' as u32) * 64 + low, !bytes)
            }
            _ => return Err(WRONG),
        };
        if wide {
            let c = char::from_u32(code).ok_or("invalid unicode code point")?;
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        } else {
            out.push(code as u8);
        }
    }
    out.extend_from_slice(rest.as_bytes());
    Ok(out)
}
