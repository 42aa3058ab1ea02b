//! The command line: `--name value` pairs and a few flags.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

const FLAGS: [&str; 1] = ["joined"];

/// What was said on the command line.
pub struct Arguments(HashMap<String, String>);

impl Arguments {
    pub fn read(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut found = HashMap::new();
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").ok_or(format!("{word}: a name begins with --"))?.to_owned();
            let value = if FLAGS.contains(&name.as_str()) { Some(String::new()) } else { words.next() };
            let value = value.ok_or(format!("--{name}: a value is missing"))?;
            found.insert(name, value);
        }
        Ok(Self(found))
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub fn get<T: FromStr>(&self, name: &str) -> io::Result<T> {
        let text = self.text(name).ok_or_else(|| wrong(format!("--{name} is missing")))?;
        text.parse().map_err(|_| wrong(format!("--{name}: {text:?} is not understood")))
    }

    pub fn to(&self) -> io::Result<SocketAddr> {
        self.get("to")
    }

    pub fn seconds(&self) -> io::Result<Duration> {
        Ok(Duration::from_secs_f64(self.get::<f64>("seconds")?.clamp(0.0, 600.0)))
    }
}

fn wrong(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}
