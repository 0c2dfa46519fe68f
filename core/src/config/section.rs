//! Reading one table of the configuration file key by key, noting every fault and going on.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Environment;
use super::expand::expand;
use super::fault::{Fault, Source};
use super::value;

/// The file being read and what was found wrong so far.
pub(super) struct Reader<'t> {
    pub(super) source: Source<'t>,
    pub(super) environment: &'t Environment,
    pub(super) faults: Vec<Fault>,
}

impl Reader<'_> {
    /// Notes a fault at `span`.
    pub(super) fn fault(&mut self, span: &Range<usize>, message: impl Into<String>) {
        self.faults.push(Fault {
            place: self.source.place(span),
            message: message.into(),
        });
    }
}

/// One table, from which keys are taken; what is left at the end is unknown.
pub(super) struct Section<'s, 't> {
    reader: &'s mut Reader<'t>,
    /// The table's name without brackets: `s3`, `databases`.
    name: &'static str,
    table: &'s DeTable<'t>,
    known: Vec<&'static str>,
}

impl<'s, 't> Section<'s, 't> {
    pub(super) fn new(
        reader: &'s mut Reader<'t>,
        name: &'static str,
        table: &'s DeTable<'t>,
    ) -> Self {
        Self {
            reader,
            name,
            table,
            known: Vec::new(),
        }
    }

    /// The value of `key` as `parse` reads it; nothing where it is missing or wrong.
    pub(super) fn take<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(Value<'_>) -> Result<T, String>,
    ) -> Option<T> {
        self.known.push(key);
        let value = self.table.get(key)?;
        let read = parse(Value {
            value: value.get_ref(),
            environment: self.reader.environment,
        });
        match read {
            Ok(read) => Some(read),
            Err(message) => {
                let message = format!("`{key}`: {message}");
                self.reader.fault(&value.span(), message);
                None
            }
        }
    }

    /// The value of `key`, which may also be written `other`; both at once are a fault.
    pub(super) fn take_either<T>(
        &mut self,
        key: &'static str,
        other: &'static str,
        parse: impl Fn(Value<'_>) -> Result<T, String>,
    ) -> Option<T> {
        let first = self.take(key, &parse);
        let second = self.take(other, &parse);
        if let Some(value) = self.table.get(other)
            && self.table.contains_key(key)
        {
            let message = format!("`{key}` and `{other}` mean the same; give one of them");
            self.reader.fault(&value.span(), message);
        }
        first.or(second)
    }

    /// The table below `key`, to be read as a section of its own.
    pub(super) fn table(&mut self, key: &'static str) -> Option<&'s DeTable<'t>> {
        self.known.push(key);
        let value = self.table.get(key)?;
        let table = value.get_ref().as_table();
        if table.is_none() {
            let found = kind(value.get_ref());
            let message = format!("`{key}` is a table, found {found}");
            self.reader.fault(&value.span(), message);
        }
        table
    }

    /// The tables below `key`, each with its place, to be read as sections of their own.
    pub(super) fn tables(&mut self, key: &'static str) -> Vec<&'s Spanned<DeValue<'t>>> {
        self.known.push(key);
        let Some(value) = self.table.get(key) else {
            return Vec::new();
        };
        let Some(array) = value.get_ref().as_array() else {
            let message = format!("`{key}` is a list of tables: write [[{key}]]");
            self.reader.fault(&value.span(), message);
            return Vec::new();
        };
        array.iter().collect()
    }

    /// Whether `key` stands in the table, with whatever value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Where the value of `key` stands; at the beginning of the file where it is missing.
    pub(super) fn span_of(&self, key: &str) -> Range<usize> {
        self.table.get(key).map_or(0..0, Spanned::span)
    }

    /// All keys with their values as text; `check` says what is wrong with a pair.
    pub(super) fn texts(
        self,
        check: impl Fn(&str, &str) -> Result<(), String>,
    ) -> BTreeMap<String, String> {
        let mut texts = BTreeMap::new();
        for (key, value) in self.table {
            let key: &str = key.get_ref().as_ref();
            let read = Value {
                value: value.get_ref(),
                environment: self.reader.environment,
            }
            .text();
            match read.and_then(|text| check(key, &text).map(|()| text)) {
                Ok(text) => {
                    texts.insert(key.to_owned(), text);
                }
                Err(message) => self
                    .reader
                    .fault(&value.span(), format!("`{key}`: {message}")),
            }
        }
        texts
    }

    /// Notes a fault at the table's key, or at `span` where the key is missing.
    pub(super) fn fault(&mut self, key: &str, span: &Range<usize>, message: impl Into<String>) {
        let place = self.table.get(key).map(Spanned::span);
        self.reader.fault(place.as_ref().unwrap_or(span), message);
    }

    /// The reader, for the sections below this one.
    pub(super) fn reader(&mut self) -> &mut Reader<'t> {
        self.reader
    }

    /// Notes every key that was not asked for.
    pub(super) fn finish(self) {
        for key in self.table.keys() {
            let text = key.get_ref().as_ref();
            if self.known.contains(&text) {
                continue;
            }
            let message = unknown(self.name, text, &self.known);
            self.reader.fault(&key.span(), message);
        }
    }
}

fn unknown(section: &str, key: &str, known: &[&'static str]) -> String {
    let place = match section {
        "" => "unknown section".to_owned(),
        "databases" => "unknown key in [[databases]]:".to_owned(),
        section => format!("unknown key in [{section}]:"),
    };
    let key: String = key.chars().take(60).collect();
    // Swapped and doubled letters are near; another word is not.
    let near = known
        .iter()
        .map(|known| (strsim::osa_distance(known, &key), known))
        .filter(|(distance, _)| *distance <= 2.min(key.len() / 2))
        .min();
    match near {
        Some((_, near)) => format!("{place} `{key}` (did you mean `{near}`?)"),
        None => format!("{place} `{key}`"),
    }
}

/// A value of the file, read as what a key wants. Errors do not repeat the key.
pub(super) struct Value<'v> {
    value: &'v DeValue<'v>,
    environment: &'v Environment,
}

impl Value<'_> {
    /// Text, with variables replaced.
    pub(super) fn text(&self) -> Result<String, String> {
        match self.value {
            DeValue::String(text) => expand(text, self.environment)
                .map(|text| text.into_owned())
                .map_err(|error| error.to_string()),
            other => Err(format!("wants a string, found {}", kind(other))),
        }
    }

    /// Text that is not empty.
    pub(super) fn filled(&self) -> Result<String, String> {
        match self.text()? {
            text if text.is_empty() => Err("must not be empty".to_owned()),
            text => Ok(text),
        }
    }

    /// Text that parses.
    pub(super) fn parsed<T>(&self) -> Result<T, String>
    where
        T: std::str::FromStr,
        T::Err: std::fmt::Display,
    {
        self.text()?
            .parse()
            .map_err(|error: T::Err| error.to_string())
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self) -> Result<bool, String> {
        match self.value {
            DeValue::Boolean(value) => Ok(*value),
            other => Err(format!("wants true or false, found {}", kind(other))),
        }
    }

    /// A whole number from 0.
    pub(super) fn whole(&self) -> Result<u64, String> {
        match self.value {
            DeValue::Integer(number) => {
                let parsed = i64::from_str_radix(number.as_str(), number.radix());
                match parsed.map(u64::try_from) {
                    Ok(Ok(number)) => Ok(number),
                    Ok(Err(_)) => Err(format!("{number} is below 0")),
                    Err(_) => Err(format!("{number} is too great")),
                }
            }
            other => Err(format!("wants a whole number, found {}", kind(other))),
        }
    }

    /// A number of seconds, or text with a unit.
    pub(super) fn duration(&self) -> Result<Duration, String> {
        let duration = match self.value {
            DeValue::Integer(number) => value::seconds(self.whole()? as f64, &number.to_string()),
            DeValue::Float(number) => {
                let text = number.as_str();
                value::seconds(text.parse().unwrap_or(f64::NAN), text)
            }
            DeValue::String(_) => value::duration(&self.text()?),
            other => return Err(format!("wants a duration, found {}", kind(other))),
        };
        duration.map_err(|error| error.to_string())
    }

    /// A number of bytes, or text with a unit.
    pub(super) fn size(&self) -> Result<u64, String> {
        match self.value {
            DeValue::Integer(_) => self.whole(),
            DeValue::String(_) => value::size(&self.text()?).map_err(|error| error.to_string()),
            other => Err(format!("wants a size, found {}", kind(other))),
        }
    }

    /// Whether the value is `true` or `false` rather than text.
    pub(super) fn is_boolean(&self) -> bool {
        self.value.is_bool()
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
