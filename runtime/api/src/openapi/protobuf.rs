//! Version 2 as protobuf: the messages of gnostic's OpenAPIv2.proto, for clients of client-go's `OpenAPISchema` (Argo CD,
//! older kubectl and Helm), which take nothing else. Each path and definition is written as JSON, read back and turned
//! into its message by a table of field numbers, one at a time, so the whole is never held as a tree.
use super::json::Json;
use mote_schema::{Map, Value};

/// A message: its fields, and the number under which `x-` members go as named YAML.
struct Message {
    fields: &'static [(&'static str, u32, Form)],
    extensions: u32,
}

/// How a JSON member becomes a field.
enum Form {
    Text,
    Bool,
    Int,
    Double,
    /// A string as the only field of a message: TypeItem.
    TextItem,
    Texts,
    /// Any value, as YAML, of which JSON is a part.
    Yaml,
    Yamls,
    Message(&'static Message),
    /// A message as the only field of another: SchemaItem, ItemsItem, AdditionalPropertiesItem.
    Item(&'static Message),
    /// An object with names of its own: Properties.
    Named(&'static Message),
    /// The same, each value as the only field of another message: Responses.
    NamedItems(&'static Message),
    /// By what `in` says.
    Parameters,
}

static SCHEMA: Message = Message {
    fields: &[
        ("$ref", 1, Form::Text),
        ("format", 2, Form::Text),
        ("title", 3, Form::Text),
        ("description", 4, Form::Text),
        ("default", 5, Form::Yaml),
        ("multipleOf", 6, Form::Double),
        ("maximum", 7, Form::Double),
        ("exclusiveMaximum", 8, Form::Bool),
        ("minimum", 9, Form::Double),
        ("exclusiveMinimum", 10, Form::Bool),
        ("maxLength", 11, Form::Int),
        ("minLength", 12, Form::Int),
        ("pattern", 13, Form::Text),
        ("maxItems", 14, Form::Int),
        ("minItems", 15, Form::Int),
        ("maxProperties", 17, Form::Int),
        ("minProperties", 18, Form::Int),
        ("required", 19, Form::Texts),
        ("enum", 20, Form::Yamls),
        ("additionalProperties", 21, Form::Item(&SCHEMA)),
        ("type", 22, Form::TextItem),
        ("items", 23, Form::Item(&SCHEMA)),
        ("properties", 25, Form::Named(&SCHEMA)),
        ("example", 30, Form::Yaml),
    ],
    extensions: 31,
};

static RESPONSE: Message =
    Message { fields: &[("description", 1, Form::Text), ("schema", 2, Form::Item(&SCHEMA))], extensions: 5 };

static OPERATION: Message = Message {
    fields: &[
        ("operationId", 5, Form::Text),
        ("produces", 6, Form::Texts),
        ("consumes", 7, Form::Texts),
        ("parameters", 8, Form::Parameters),
        ("responses", 9, Form::NamedItems(&RESPONSE)),
    ],
    extensions: 13,
};

static PATH: Message = Message {
    fields: &[
        ("get", 2, Form::Message(&OPERATION)),
        ("put", 3, Form::Message(&OPERATION)),
        ("post", 4, Form::Message(&OPERATION)),
        ("delete", 5, Form::Message(&OPERATION)),
        ("patch", 8, Form::Message(&OPERATION)),
        ("parameters", 9, Form::Parameters),
    ],
    extensions: 10,
};

static BODY: Message = Message {
    fields: &[
        ("name", 2, Form::Text),
        ("in", 3, Form::Text),
        ("required", 4, Form::Bool),
        ("schema", 5, Form::Message(&SCHEMA)),
    ],
    extensions: 6,
};

static IN_QUERY: Message = Message {
    fields: &[("required", 1, Form::Bool), ("in", 2, Form::Text), ("name", 4, Form::Text), ("type", 6, Form::Text)],
    extensions: 23,
};

static IN_PATH: Message = Message {
    fields: &[("required", 1, Form::Bool), ("in", 2, Form::Text), ("name", 4, Form::Text), ("type", 5, Form::Text)],
    extensions: 22,
};

/// The Document.
pub(super) struct Writer {
    head: Vec<u8>,
    paths: Vec<u8>,
    definitions: Vec<u8>,
}

impl Writer {
    pub fn new(title: &str, version: &str) -> Writer {
        let (mut head, mut info) = (Vec::new(), Vec::new());
        bytes(1, b"2.0", &mut head);
        bytes(1, title.as_bytes(), &mut info);
        bytes(2, version.as_bytes(), &mut info);
        bytes(2, &info, &mut head);
        Writer { head, paths: Vec::new(), definitions: Vec::new() }
    }
    pub fn path(&mut self, name: &str, write: &dyn Fn(&mut Json)) {
        named(2, name, &converted(&PATH, write), &mut self.paths);
    }
    pub fn definition(&mut self, name: &str, write: &dyn Fn(&mut Json)) {
        named(1, name, &converted(&SCHEMA, write), &mut self.definitions);
    }
    pub fn finish(self) -> Vec<u8> {
        let mut out = self.head;
        bytes(8, &self.paths, &mut out);
        bytes(9, &self.definitions, &mut out);
        out
    }
}

fn converted(message: &Message, write: &dyn Fn(&mut Json)) -> Vec<u8> {
    let mut json = Json::default();
    json.open(b'{');
    write(&mut json);
    json.close(b'}');
    // What was just written is an object.
    let members: Map = serde_json::from_slice(&json.finish()).unwrap_or_default();
    encode(message, &members)
}

fn encode(message: &Message, members: &Map) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, number, form) in message.fields {
        if let Some(value) = members.get(name) {
            field(*number, form, value, &mut out);
        }
    }
    for (name, value) in members.iter().filter(|(name, _)| name.starts_with("x-")) {
        named(message.extensions, name, &yaml(value), &mut out);
    }
    out
}

fn field(number: u32, form: &Form, value: &Value, out: &mut Vec<u8>) {
    let text = |value: &Value| value.as_str().unwrap_or_default().as_bytes().to_vec();
    let message =
        |message: &Message, value: &Value| value.as_object().map_or(Vec::new(), |found| encode(message, found));
    let list = value.as_array().map_or(&[] as &[Value], Vec::as_slice);
    match form {
        Form::Text => bytes(number, &text(value), out),
        Form::Bool => {
            varint(u64::from(number) << 3, out);
            out.push(u8::from(value.as_bool().unwrap_or(false)));
        }
        Form::Int => {
            varint(u64::from(number) << 3, out);
            varint(value.as_i64().unwrap_or(0) as u64, out);
        }
        Form::Double => {
            varint(u64::from(number) << 3 | 1, out);
            out.extend_from_slice(&value.as_f64().unwrap_or(0.0).to_le_bytes());
        }
        Form::TextItem => bytes(number, &item(1, text(value)), out),
        Form::Texts => list.iter().for_each(|value| bytes(number, &text(value), out)),
        Form::Yaml => bytes(number, &yaml(value), out),
        Form::Yamls => list.iter().for_each(|value| bytes(number, &yaml(value), out)),
        Form::Message(of) => bytes(number, &message(of, value), out),
        Form::Item(of) => bytes(number, &item(1, message(of, value)), out),
        Form::Named(of) | Form::NamedItems(of) => {
            let mut all = Vec::new();
            for (name, value) in value.as_object().into_iter().flatten() {
                let inner = message(of, value);
                let inner = if matches!(form, Form::NamedItems(_)) { item(1, inner) } else { inner };
                named(1, name, &inner, &mut all);
            }
            bytes(number, &all, out);
        }
        Form::Parameters => {
            for value in list {
                // ParametersItem { Parameter { BodyParameter or NonBodyParameter { by place } } }
                let parameter = match value.get("in").and_then(Value::as_str) {
                    Some("body") => item(1, message(&BODY, value)),
                    Some("path") => item(2, item(4, message(&IN_PATH, value))),
                    _ => item(2, item(3, message(&IN_QUERY, value))),
                };
                bytes(number, &item(1, parameter), out);
            }
        }
    }
}

fn item(number: u32, inner: Vec<u8>) -> Vec<u8> {
    let mut out = Vec::new();
    bytes(number, &inner, &mut out);
    out
}

/// A message of a name and a value.
fn named(number: u32, name: &str, value: &[u8], out: &mut Vec<u8>) {
    let mut pair = Vec::new();
    bytes(1, name.as_bytes(), &mut pair);
    bytes(2, value, &mut pair);
    bytes(number, &pair, out);
}

/// gnostic's Any.
fn yaml(value: &Value) -> Vec<u8> {
    item(2, value.to_string().into_bytes())
}

fn bytes(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    varint(u64::from(number) << 3 | 2, out);
    varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn messages_by_the_numbers_of_the_proto() {
        let encoded = |message, members: &str| {
            hex(&converted(message, &|json| {
                json.raw(members);
            }))
        };
        // Schema.type = 22: TypeItem.value = 1; Schema.format = 2.
        assert_eq!(encoded(&SCHEMA, r#""type":"a","format":"b""#), "120162b201030a0161");
        // Schema.items = 23: ItemsItem.schema = 1: Schema._ref = 1.
        assert_eq!(encoded(&SCHEMA, r##""items":{"$ref":"#"}"##), "ba01050a030a0123");
        // Schema.properties = 25: Properties.additional_properties = 1: NamedSchema { 1, 2 }.
        assert_eq!(encoded(&SCHEMA, r#""properties":{"a":{}}"#), "ca01070a050a01611200");
        // Schema.vendor_extension = 31: NamedAny { name = 1, value = 2: Any.yaml = 2 }.
        assert_eq!(encoded(&SCHEMA, r#""x-a":[1]"#), "fa010c0a03782d6112051203".to_owned() + "5b315d");
        // Operation.parameters = 8: ParametersItem.parameter = 1: Parameter.non_body_parameter = 2:
        // query_parameter_sub_schema = 3: in = 2, name = 4.
        let parameter = r#""parameters":[{"in":"query","name":"n"}]"#;
        assert_eq!(encoded(&OPERATION, parameter), "42100a0e120c1a0a12057175657279".to_owned() + "22016e");
        // Operation.responses = 9: Responses.response_code = 1: NamedResponseValue { 1, 2: ResponseValue.response = 1 }.
        assert_eq!(encoded(&OPERATION, r#""responses":{"200":{}}"#), "4a0b0a090a03323030120".to_owned() + "20a00");
    }
}
