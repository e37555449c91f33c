//! JSON text written in order. Whether a comma is due follows from the last byte, so nothing is kept beside the text.
use mote_schema::doc::write_string;

#[derive(Default)]
pub(crate) struct Json(Vec<u8>);

impl Json {
    pub fn finish(self) -> Vec<u8> {
        self.0
    }

    fn separate(&mut self) {
        if !matches!(self.0.last(), None | Some(b'{' | b'[' | b':')) {
            self.0.push(b',');
        }
    }
    /// `{` or `[`.
    pub fn open(&mut self, bracket: u8) -> &mut Json {
        self.separate();
        self.0.push(bracket);
        self
    }
    pub fn close(&mut self, bracket: u8) -> &mut Json {
        self.0.push(bracket);
        self
    }
    pub fn key(&mut self, name: &str) -> &mut Json {
        self.separate();
        write_string(name, &mut self.0);
        self.0.push(b':');
        self
    }
    pub fn text(&mut self, text: &str) -> &mut Json {
        self.separate();
        write_string(text, &mut self.0);
        self
    }
    /// A piece that is JSON already: a value, or members with their names.
    pub fn raw(&mut self, json: &str) -> &mut Json {
        self.separate();
        self.0.extend_from_slice(json.as_bytes());
        self
    }

    pub fn field(&mut self, name: &str, text: &str) -> &mut Json {
        self.key(name).text(text)
    }
    pub fn list<'a>(&mut self, name: &str, texts: impl IntoIterator<Item = &'a str>) -> &mut Json {
        self.key(name).open(b'[');
        for text in texts {
            self.text(text);
        }
        self.close(b']')
    }
    /// `name: {...}`
    pub fn object(&mut self, name: &str, members: impl FnOnce(&mut Json)) -> &mut Json {
        self.key(name).open(b'{');
        members(self);
        self.close(b'}')
    }
    /// `name: [{...}, ...]`
    pub fn objects<T>(&mut self, name: &str, of: impl IntoIterator<Item = T>, mut members: impl FnMut(&mut Json, T)) {
        self.key(name).open(b'[');
        for item in of {
            self.open(b'{');
            members(self, item);
            self.close(b'}');
        }
        self.close(b']');
    }
}

#[cfg(test)]
mod tests {
    use super::Json;

    #[test]
    fn commas_fall_where_they_must() {
        let mut json = Json::default();
        json.open(b'{').field("a", "b\"").list("c", ["d:", "e{"]).list("f", []).object("g", |json| {
            json.key("h").raw("1").key("i").raw("[]").raw(r#""j":{}"#);
        });
        json.objects("k", ["l", "m"], |json, text| {
            json.field("n", text);
        });
        json.close(b'}');
        let expected = r#"{"a":"b\"","c":["d:","e{"],"f":[],"g":{"h":1,"i":[],"j":{}},"k":[{"n":"l"},{"n":"m"}]}"#;
        assert_eq!(String::from_utf8(json.finish()).as_deref(), Ok(expected));
    }
}
