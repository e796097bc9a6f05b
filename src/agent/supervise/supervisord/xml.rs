//! As much of XML-RPC as supervisord speaks.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// A call, as a document.
pub(super) fn request(method: &str, parameters: &[Value]) -> String {
    let mut text = format!("<?xml version=\"1.0\"?><methodCall><methodName>{method}</methodName><params>");
    for parameter in parameters {
        let value = match parameter {
            Value::Bool(yes) => format!("<boolean>{}</boolean>", u8::from(*yes)),
            Value::Number(number) => format!("<int>{number}</int>"),
            Value::String(text) => format!("<string>{}</string>", escape(text)),
            other => format!("<string>{}</string>", escape(&other.to_string())),
        };
        let _ = write!(text, "<param><value>{value}</value></param>");
    }
    text.push_str("</params></methodCall>");
    text
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The answer's value, or the fault's code and text.
pub(super) fn response(text: &str) -> Result<Result<Value, (i64, String)>, String> {
    let mut reader = Reader { rest: text };
    reader.skip_prolog();
    reader.open("methodResponse")?;
    if reader.try_open("fault") {
        let fault = reader.value(0)?;
        let code = fault["faultCode"].as_i64().ok_or("a fault without a code")?;
        let text = fault["faultString"].as_str().unwrap_or_default().to_owned();
        return Ok(Err((code, text)));
    }
    reader.open("params")?;
    reader.open("param")?;
    reader.value(0).map(Ok)
}

/// Nesting that no answer has.
const DEEP: usize = 16;

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn skip_prolog(&mut self) {
        let rest = self.rest.trim_start();
        self.rest = match rest.strip_prefix("<?xml").and_then(|rest| rest.split_once("?>")) {
            Some((_, rest)) => rest,
            None => rest,
        };
    }

    fn try_tag(&mut self, tag: &str) -> bool {
        match self.rest.trim_start().strip_prefix(tag) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn try_open(&mut self, name: &str) -> bool {
        self.try_tag(&format!("<{name}>"))
    }

    fn open(&mut self, name: &str) -> Result<(), String> {
        if self.try_open(name) { Ok(()) } else { Err(format!("<{name}> is missing")) }
    }

    fn close(&mut self, name: &str) -> Result<(), String> {
        if self.try_tag(&format!("</{name}>")) { Ok(()) } else { Err(format!("</{name}> is missing")) }
    }

    /// Text up to the end of the element.
    fn text(&mut self, name: &str) -> Result<String, String> {
        let (text, rest): (&'a str, &'a str) =
            self.rest.split_once(&format!("</{name}>")).ok_or_else(|| format!("</{name}> is missing"))?;
        self.rest = rest;
        unescape(text)
    }

    fn value(&mut self, depth: usize) -> Result<Value, String> {
        if depth > DEEP {
            return Err("it is nested too deeply".to_owned());
        }
        if self.try_tag("<value/>") {
            return Ok(Value::String(String::new()));
        }
        self.open("value")?;
        let value = if self.try_tag("<nil/>") {
            Value::Null
        } else if self.try_tag("<string/>") {
            Value::String(String::new())
        } else if self.try_open("string") {
            Value::String(self.text("string")?)
        } else if self.try_open("int") {
            number(&self.text("int")?)?
        } else if self.try_open("i4") {
            number(&self.text("i4")?)?
        } else if self.try_open("boolean") {
            Value::Bool(self.text("boolean")?.trim() == "1")
        } else if self.try_open("double") {
            let text = self.text("double")?;
            Value::from(text.trim().parse::<f64>().map_err(|_| "a double is none")?)
        } else if self.try_open("struct") {
            self.members(depth)?
        } else if self.try_open("array") {
            self.items(depth)?
        } else if self.rest.trim_start().starts_with('<') && !self.rest.trim_start().starts_with("</value>") {
            return Err("a value of a kind that supervisord does not send".to_owned());
        } else {
            return self.text("value").map(Value::String);
        };
        self.close("value")?;
        Ok(value)
    }

    fn members(&mut self, depth: usize) -> Result<Value, String> {
        let mut members = Map::new();
        while self.try_open("member") {
            self.open("name")?;
            let name = self.text("name")?;
            members.insert(name, self.value(depth + 1)?);
            self.close("member")?;
        }
        self.close("struct")?;
        Ok(Value::Object(members))
    }

    fn items(&mut self, depth: usize) -> Result<Value, String> {
        self.open("data")?;
        let mut items = Vec::new();
        while !self.try_tag("</data>") {
            items.push(self.value(depth + 1)?);
        }
        self.close("array")?;
        Ok(Value::Array(items))
    }
}

fn number(text: &str) -> Result<Value, String> {
    text.trim().parse::<i64>().map(Value::from).map_err(|_| "a number is none".to_owned())
}

fn unescape(text: &str) -> Result<String, String> {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('&') {
        let (name, after) = after.split_once(';').ok_or("an entity does not end")?;
        out.push_str(before);
        let number = |text: &str, radix| u32::from_str_radix(text, radix).ok().and_then(char::from_u32);
        out.push(match name {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            _ => {
                let hex = name.strip_prefix("#x").and_then(|text| number(text, 16));
                let found = hex.or_else(|| name.strip_prefix('#').and_then(|text| number(text, 10)));
                found.ok_or("an unknown entity")?
            }
        });
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_of_supervisord_are_read() {
        let text = "<?xml version='1.0'?>\n<methodResponse>\n<params>\n<param>\n<value><struct>\n<member>\n\
            <name>statename</name>\n<value><string>RUN &amp; &lt;x&gt; &#65;</string></value>\n</member>\n<member>\n\
            <name>pid</name>\n<value><int>77</int></value>\n</member>\n<member><name>list</name><value><array><data>\n\
            <value><boolean>1</boolean></value><value>plain</value></data></array></value></member></struct></value>\n\
            </param>\n</params>\n</methodResponse>\n";
        let value = response(text).unwrap().unwrap();
        assert_eq!(value, json!({ "statename": "RUN & <x> A", "pid": 77, "list": [true, "plain"] }));
        let fault = "<methodResponse><fault><value><struct><member><name>faultCode</name><value><int>10</int></value>\
            </member><member><name>faultString</name><value><string>BAD_NAME: x</string></value></member></struct>\
            </value></fault></methodResponse>";
        assert_eq!(response(fault).unwrap(), Err((10, "BAD_NAME: x".to_owned())));
        assert_eq!(
            request("a.b", &[json!("x<&y"), json!(false)]),
            "<?xml version=\"1.0\"?><methodCall><methodName>a.b</methodName><params><param><value><string>x&lt;&amp;y\
             </string></value></param><param><value><boolean>0</boolean></value></param></params></methodCall>"
        );
    }

    proptest! {
        #[test]
        fn whatever_comes_is_an_error_or_a_value(text in "(<[a-z/?]{1,14}>|[a-z&;#0-9]{0,5}){0,30}") {
            let _ = response(&format!("<methodResponse>{text}"));
            let _ = response(&format!("<methodResponse><params><param>{text}"));
        }

        #[test]
        fn texts_come_back(text in "\\PC*") {
            prop_assert_eq!(unescape(&escape(&text)).unwrap(), text);
        }
    }
}
