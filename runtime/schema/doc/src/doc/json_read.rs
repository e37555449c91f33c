//! JSON text to Doc in one pass, without a tree. Accepts and refuses what Go's decoder does, and words errors as it does,
//! since kubectl shows them to people.
use super::bytes::escape;
use super::{Doc, DocError, MAX_BYTES, MAX_DEPTH, Writer};

/// Where a byte was not what the grammar asks for; the words are part of what clients see.
const VALUE: &str = "looking for beginning of value";
const KEY: &str = "looking for beginning of object key string";
const AFTER_KEY: &str = "after object key";
const AFTER_MEMBER: &str = "after object key:value pair";
const AFTER_ELEMENT: &str = "after array element";
const AFTER_ALL: &str = "after top-level value";
const IN_STRING: &str = "in string literal";
const IN_ESCAPE: &str = "in string escape code";
const IN_HEX: &str = "in \\u hexadecimal character escape";
const IN_NUMBER: &str = "in numeric literal";
const IN_FRACTION: &str = "after decimal point in numeric literal";
const IN_EXPONENT: &str = "in exponent of numeric literal";

pub(super) fn read(json: &[u8], duplicates: &mut Vec<String>) -> Result<Doc, DocError> {
    if json.len() > MAX_BYTES {
        return Err(DocError::TooLarge { limit: MAX_BYTES });
    }
    // Go puts U+FFFD for what is not UTF-8.
    let text = String::from_utf8_lossy(json);
    let mut reader =
        Reader { text: text.as_bytes(), at: 0, writer: Writer::with_capacity(json.len()), scratch: Vec::new() };
    reader.value(0)?;
    if let Some(byte) = reader.skip_space() {
        return Err(unexpected(byte, AFTER_ALL));
    }
    *duplicates = reader.writer.take_duplicates();
    reader.writer.finish()
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    writer: Writer,
    /// For strings with escapes.
    scratch: Vec<u8>,
}

const STOP: u8 = 1;
const ESCAPED: u8 = 2;

/// What a byte inside a string literal does: ends the quick scan, or is text that must be escaped when written.
static CLASSES: [u8; 256] = {
    let (mut table, mut i) = ([0; 256], 0);
    while i < 256 {
        let byte = i as u8;
        if byte < 0x20 || byte == b'"' || byte == b'\\' {
            table[i] = STOP;
        } else if escape(byte) != 0 {
            table[i] = ESCAPED;
        }
        i += 1;
    }
    table
};

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn skip_space(&mut self) -> Option<u8> {
        while let Some(byte) = self.peek() {
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(byte);
            }
            self.at += 1;
        }
        None
    }

    fn value(&mut self, depth: usize) -> Result<(), DocError> {
        match self.skip_space().ok_or_else(cut_short)? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => self.string(false),
            b't' => self.literal("true").map(|()| self.writer.bool(true)),
            b'f' => self.literal("false").map(|()| self.writer.bool(false)),
            b'n' => self.literal("null").map(|()| self.writer.null()),
            b'-' | b'0'..=b'9' => self.number(),
            byte => Err(unexpected(byte, VALUE)),
        }
    }

    fn enter(&mut self, depth: usize) -> Result<(), DocError> {
        self.at += 1;
        if depth < MAX_DEPTH { Ok(()) } else { Err(DocError::TooDeep { limit: MAX_DEPTH }) }
    }

    fn object(&mut self, depth: usize) -> Result<(), DocError> {
        self.enter(depth)?;
        self.writer.begin_map()?;
        let mut next = self.skip_space().ok_or_else(cut_short)?;
        if next != b'}' {
            loop {
                if next != b'"' {
                    return Err(unexpected(next, KEY));
                }
                self.string(true)?;
                match self.skip_space().ok_or_else(cut_short)? {
                    b':' => self.at += 1,
                    byte => return Err(unexpected(byte, AFTER_KEY)),
                }
                self.value(depth + 1)?;
                match self.skip_space().ok_or_else(cut_short)? {
                    b',' => self.at += 1,
                    b'}' => break,
                    byte => return Err(unexpected(byte, AFTER_MEMBER)),
                }
                next = self.skip_space().ok_or_else(cut_short)?;
            }
        }
        self.at += 1;
        self.writer.end();
        Ok(())
    }

    fn array(&mut self, depth: usize) -> Result<(), DocError> {
        self.enter(depth)?;
        self.writer.begin_list()?;
        if self.skip_space().ok_or_else(cut_short)? != b']' {
            loop {
                self.value(depth + 1)?;
                match self.skip_space().ok_or_else(cut_short)? {
                    b',' => self.at += 1,
                    b']' => break,
                    byte => return Err(unexpected(byte, AFTER_ELEMENT)),
                }
            }
        }
        self.at += 1;
        self.writer.end();
        Ok(())
    }

    /// At the opening quote.
    fn string(&mut self, is_key: bool) -> Result<(), DocError> {
        self.at += 1;
        let start = self.at;
        let (len, mut seen) = scan(&self.text[start..]);
        self.at += len;
        let text = if self.peek() == Some(b'"') {
            &self.text[start..self.at]
        } else {
            self.scratch.clear();
            self.scratch.extend_from_slice(&self.text[start..self.at]);
            self.escapes()?;
            // Escapes bring anything; look at what came out.
            seen = if super::bytes::is_plain(&self.scratch) { 0 } else { ESCAPED };
            &self.scratch
        };
        self.at += 1;
        if is_key {
            self.writer.key_bytes(text);
        } else {
            self.writer.text(text, seen & ESCAPED == 0);
        }
        Ok(())
    }

    /// The rest of a string from its first stop on, into `scratch`; ends at the closing quote.
    fn escapes(&mut self) -> Result<(), DocError> {
        loop {
            match self.peek().ok_or_else(cut_short)? {
                b'"' => return Ok(()),
                b'\\' => {
                    self.at += 1;
                    let byte = self.peek().ok_or_else(cut_short)?;
                    self.at += 1;
                    match byte {
                        b'"' | b'\\' | b'/' => self.scratch.push(byte),
                        b'b' => self.scratch.push(0x08),
                        b'f' => self.scratch.push(0x0c),
                        b'n' => self.scratch.push(b'\n'),
                        b'r' => self.scratch.push(b'\r'),
                        b't' => self.scratch.push(b'\t'),
                        b'u' => {
                            let char = self.unicode()?;
                            self.scratch.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
                        }
                        _ => return Err(unexpected(byte, IN_ESCAPE)),
                    }
                }
                byte => return Err(unexpected(byte, IN_STRING)),
            }
            let rest = &self.text[self.at..];
            let (len, _) = scan(rest);
            self.scratch.extend_from_slice(&rest[..len]);
            self.at += len;
        }
    }

    /// After `\u`: one character, of a surrogate pair when there are two; halves of pairs become U+FFFD.
    fn unicode(&mut self) -> Result<char, DocError> {
        let unit = self.hex()?;
        if (0xd800..0xdc00).contains(&unit) && self.text.get(self.at..self.at + 2) == Some(b"\\u") {
            let back = self.at;
            self.at += 2;
            let low = self.hex()?;
            if (0xdc00..0xe000).contains(&low) {
                let code = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            self.at = back;
        }
        Ok(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn hex(&mut self) -> Result<u32, DocError> {
        let mut unit = 0;
        for _ in 0..4 {
            let byte = self.peek().ok_or_else(cut_short)?;
            unit = unit << 4 | (byte as char).to_digit(16).ok_or_else(|| unexpected(byte, IN_HEX))?;
            self.at += 1;
        }
        Ok(unit)
    }

    fn literal(&mut self, word: &str) -> Result<(), DocError> {
        for &expected in word.as_bytes() {
            let byte = self.peek().ok_or_else(cut_short)?;
            if byte != expected {
                return Err(unexpected(byte, &format!("in literal {word} (expecting {})", quote(expected))));
            }
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), DocError> {
        let start = self.at;
        let negative = self.peek() == Some(b'-');
        self.at += usize::from(negative);
        let digits = self.at;
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits(IN_NUMBER)?;
        }
        let whole = &self.text[digits..self.at];
        let mut is_float = false;
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits(IN_FRACTION)?;
            is_float = true;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits(IN_EXPONENT)?;
            is_float = true;
        }
        // Eighteen digits always fit.
        if !is_float && whole.len() <= 18 {
            let value = whole.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
            self.writer.i64(if negative { -value } else { value });
            return Ok(());
        }
        let text = std::str::from_utf8(&self.text[start..self.at]).unwrap_or_default();
        if !is_float && let Ok(value) = text.parse::<i64>() {
            self.writer.i64(value);
        } else if !is_float && let Ok(value) = text.parse::<u64>() {
            self.writer.u64(value);
        } else {
            match text.parse::<f64>() {
                Ok(value) if value.is_finite() => self.writer.f64(value),
                _ => {
                    let message = format!("json: cannot unmarshal number {text} into Go value of type float64");
                    return Err(DocError::Json { message });
                }
            }
        }
        Ok(())
    }

    /// One digit or more.
    fn digits(&mut self, context: &'static str) -> Result<(), DocError> {
        match self.peek().ok_or_else(cut_short)? {
            b'0'..=b'9' => {}
            byte => return Err(unexpected(byte, context)),
        }
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        Ok(())
    }
}

/// How many bytes there are before a stop, and the classes seen.
#[inline]
fn scan(text: &[u8]) -> (usize, u8) {
    let mut seen = 0;
    for (len, &byte) in text.iter().enumerate() {
        let class = CLASSES[usize::from(byte)];
        if class == STOP {
            return (len, seen);
        }
        seen |= class;
    }
    (text.len(), seen)
}

#[cold]
fn cut_short() -> DocError {
    DocError::Json { message: "unexpected end of JSON input".into() }
}

#[cold]
fn unexpected(byte: u8, context: &str) -> DocError {
    DocError::Json { message: format!("invalid character {} {context}", quote(byte)) }
}

/// As Go quotes a byte in these messages.
fn quote(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".into(),
        b'"' => "'\"'".into(),
        b'\\' => r"'\\'".into(),
        b'\n' => r"'\n'".into(),
        b'\r' => r"'\r'".into(),
        b'\t' => r"'\t'".into(),
        0x07 => r"'\a'".into(),
        0x08 => r"'\b'".into(),
        0x0b => r"'\v'".into(),
        0x0c => r"'\f'".into(),
        0..0x20 | 0x7f => format!("'\\x{byte:02x}'"),
        0x80..0xa1 | 0xad => format!("'\\u00{byte:02x}'"),
        _ => format!("'{}'", byte as char),
    }
}
