//! YAML as Elasticsearch reads it: keys with dots and nested keys are the same, lists keep their order.
//!
//! # Invariants
//!
//! * Every value has the line that it stands on.
//! * A key that is given twice is an error, as it is for the server.

use saphyr_parser::{Event, Parser};

use super::settings::{Setting, Settings};

/// Where in the text the reader is.
enum Frame {
    /// In a mapping: the key that waits for its value.
    Map { prefix: String, key: Option<String> },
    /// In a sequence: its key, its first and last line, its texts.
    List { key: String, line: usize, last: usize, items: Vec<String>, index: usize },
}

/// Reads a text; the error says on which line what is wrong.
pub(super) fn read(file: &str, text: &str) -> Result<Settings, (usize, String)> {
    let mut settings = Settings::new(file);
    let mut stack: Vec<Frame> = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| (error.marker().line(), error.info().to_owned()))?;
        let line = span.start.line();
        match event {
            Event::Scalar(text, ..) => scalar(&mut settings, &mut stack, &text, line)?,
            // What an anchor stands for is not followed; the key is there.
            Event::Alias(_) => scalar(&mut settings, &mut stack, "*", line)?,
            Event::MappingStart(..) => {
                let prefix = child(&mut stack);
                stack.push(Frame::Map { prefix, key: None });
            }
            Event::SequenceStart(..) => {
                let key = child(&mut stack);
                stack.push(Frame::List { key, line, last: line, items: Vec::new(), index: 0 });
            }
            Event::MappingEnd => drop(stack.pop()),
            Event::SequenceEnd => {
                if let Some(Frame::List { key, line, last, items, .. }) = stack.pop() {
                    settings.add(key, Setting { values: items, line, last })?;
                }
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => {}
        }
    }
    Ok(settings)
}

/// The full key of what is about to begin.
fn child(stack: &mut [Frame]) -> String {
    match stack.last_mut() {
        None => String::new(),
        Some(Frame::Map { prefix, key }) => join(prefix, &key.take().unwrap_or_default()),
        Some(Frame::List { key, index, .. }) => {
            *index += 1;
            join(key, &(*index - 1).to_string())
        }
    }
}

fn join(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
}

fn scalar(
    settings: &mut Settings,
    stack: &mut [Frame],
    text: &str,
    line: usize,
) -> Result<(), (usize, String)> {
    match stack.last_mut() {
        Some(Frame::Map { key: key @ None, .. }) => *key = Some(text.to_owned()),
        Some(Frame::Map { .. }) => {
            let key = child(stack);
            settings.add(key, Setting { values: vec![text.to_owned()], line, last: line })?;
        }
        Some(Frame::List { items, last, .. }) => {
            items.push(text.to_owned());
            *last = line;
        }
        None if text.is_empty() || text == "~" => {}
        None => return Err((line, "it is one text, not keys and values".to_owned())),
    }
    Ok(())
}
