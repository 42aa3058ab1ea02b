//! What the master of `linkwire serve` asks, as written in JSON and as meant. Pure.

use std::fmt::Display;

use serde::de::DeserializeOwned;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::impairment::{Distribution, GilbertElliott, Impairment, Loss, Rate};

/// The longest name of a wire, in bytes.
const LONGEST_NAME: usize = 256;

/// What to do.
#[derive(Debug, PartialEq)]
pub(crate) enum Request {
    /// Two descriptors come with it.
    Attach {
        wire: String,
        seed: u64,
        a_to_b: Impairment,
        b_to_a: Impairment,
    },
    /// None: as it is.
    Change {
        wire: String,
        a_to_b: Option<Impairment>,
        b_to_a: Option<Impairment>,
    },
    Detach {
        wire: String,
    },
    /// None: all.
    Read {
        wire: Option<String>,
    },
}

/// A message: its number, if it has one, and the request or what is wrong with it.
#[derive(Debug, PartialEq)]
pub(crate) struct Message {
    pub(crate) number: Option<u64>,
    pub(crate) request: Result<Request, String>,
}

/// An impairment as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ImpairmentFile {
    delay_ns: u64,
    jitter_ns: u64,
    distribution: DistributionFile,
    loss: Option<LossFile>,
    reorder: f64,
    duplicate: f64,
    corrupt: f64,
    rate_bps: Option<u64>,
    queue_bytes: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum DistributionFile {
    Uniform,
    #[default]
    Normal,
    Pareto,
    Paretonormal,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LossFile {
    Random(f64),
    GilbertElliott(GilbertElliottFile),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GilbertElliottFile {
    p: f64,
    r: f64,
    #[serde(default)]
    loss_good: f64,
    #[serde(default = "always")]
    loss_bad: f64,
}

fn always() -> f64 {
    1.0
}

/// Reads a message; whatever it holds, there is an answer to give.
pub(crate) fn read(message: &[u8]) -> Message {
    let fields = match serde_json::from_slice(message) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) => return Message { number: None, request: Err("a message is one JSON object".to_owned()) },
        Err(error) => return Message { number: None, request: Err(format!("the message is no JSON: {error}")) },
    };
    let mut fields = Fields(fields);
    match fields.needed("number") {
        Ok(number) => Message { number: Some(number), request: request(fields) },
        Err(fault) => Message { number: None, request: Err(fault) },
    }
}

fn request(mut fields: Fields) -> Result<Request, String> {
    let request = match fields.needed::<String>("do")?.as_str() {
        "attach" => Request::Attach {
            wire: fields.wire()?,
            seed: fields.needed("seed")?,
            a_to_b: fields.impairment("a_to_b")?.unwrap_or_default(),
            b_to_a: fields.impairment("b_to_a")?.unwrap_or_default(),
        },
        "change" => Request::Change {
            wire: fields.wire()?,
            a_to_b: fields.impairment("a_to_b")?,
            b_to_a: fields.impairment("b_to_a")?,
        },
        "detach" => Request::Detach { wire: fields.wire()? },
        "read" => Request::Read { wire: fields.optional("wire")? },
        other => return Err(format!("do is {other:?}: attach, change, detach and read are allowed")),
    };
    fields.end()?;
    Ok(request)
}

/// The keys of an object that have not been read yet.
struct Fields(Map<String, Value>);

impl Fields {
    fn optional<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>, String> {
        let found = self.0.remove(key).map(serde_json::from_value);
        found.transpose().map_err(|error| at(key, error))
    }

    fn needed<T: DeserializeOwned>(&mut self, key: &str) -> Result<T, String> {
        self.optional(key)?.ok_or_else(|| format!("{key} is missing"))
    }

    fn wire(&mut self) -> Result<String, String> {
        let name: String = self.needed("wire")?;
        if name.is_empty() || name.len() > LONGEST_NAME {
            return Err(format!("wire is a name of {} bytes: 1 to {LONGEST_NAME} are allowed", name.len()));
        }
        Ok(name)
    }

    fn impairment(&mut self, key: &str) -> Result<Option<Impairment>, String> {
        let file: Option<ImpairmentFile> = self.optional(key)?;
        file.map(meant).transpose().map_err(|fault| at(key, fault))
    }

    fn end(self) -> Result<(), String> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(key) => Err(format!("unknown key {key:?}")),
        }
    }
}

fn at(key: &str, fault: impl Display) -> String {
    format!("{key}: {fault}")
}

fn meant(file: ImpairmentFile) -> Result<Impairment, String> {
    let rate = match (file.rate_bps, file.queue_bytes) {
        (None, None) => None,
        (None, Some(_)) => return Err("queue_bytes needs a rate: without one nothing queues; give rate_bps".to_owned()),
        (Some(rate), None) => Some(Rate::with_usual_queue(rate)),
        (Some(bits_per_second), Some(queue_bytes)) => Some(Rate { bits_per_second, queue_bytes }),
    };
    let impairment = Impairment {
        delay_ns: file.delay_ns,
        jitter_ns: file.jitter_ns,
        distribution: match file.distribution {
            DistributionFile::Uniform => Distribution::Uniform,
            DistributionFile::Normal => Distribution::Normal,
            DistributionFile::Pareto => Distribution::Pareto,
            DistributionFile::Paretonormal => Distribution::Paretonormal,
        },
        loss: match file.loss {
            None => Loss::None,
            Some(LossFile::Random(share)) => Loss::Random(share),
            Some(LossFile::GilbertElliott(GilbertElliottFile { p, r, loss_good, loss_bad })) => {
                Loss::GilbertElliott(GilbertElliott { p, r, loss_good, loss_bad })
            }
        },
        reorder: file.reorder,
        duplicate: file.duplicate,
        corrupt: file.corrupt,
        rate,
    };
    impairment.check()?;
    Ok(impairment.simplest())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::Stream;

    const ATTACH: &str = r#"{"number":1,"do":"attach","wire":"nas:home","seed":42,
        "a_to_b":{"delay_ns":40000000,"jitter_ns":2000000,"distribution":"pareto","loss":{"random":0.01},"reorder":0.1,
                  "duplicate":0.2,"corrupt":0.3,"rate_bps":8000000,"queue_bytes":3000},
        "b_to_a":{"loss":{"gilbert_elliott":{"p":0.01,"r":0.3,"loss_good":0.1,"loss_bad":0.9}},"rate_bps":null}}"#;

    fn asked(text: &str) -> Request {
        read(text.as_bytes()).request.expect(text)
    }

    #[test]
    fn every_key_of_an_impairment_is_meant() {
        let Request::Attach { wire, seed, a_to_b, b_to_a } = asked(ATTACH) else {
            panic!("it is no attach");
        };
        assert_eq!((wire.as_str(), seed), ("nas:home", 42));
        let wanted = Impairment {
            delay_ns: 40_000_000,
            jitter_ns: 2_000_000,
            distribution: Distribution::Pareto,
            loss: Loss::Random(0.01),
            reorder: 0.1,
            duplicate: 0.2,
            corrupt: 0.3,
            rate: Some(Rate { bits_per_second: 8_000_000, queue_bytes: 3000 }),
        };
        assert_eq!(a_to_b, wanted);
        let loss = Loss::GilbertElliott(GilbertElliott { p: 0.01, r: 0.3, loss_good: 0.1, loss_bad: 0.9 });
        assert_eq!(b_to_a, Impairment { loss, ..Impairment::default() });
    }

    #[test]
    fn what_is_absent_is_nothing_to_attach_and_unchanged_to_change() {
        let none = Impairment::default();
        let attach = Request::Attach { wire: "w".into(), seed: 0, a_to_b: none, b_to_a: none };
        assert_eq!(asked(r#"{"number":1,"do":"attach","wire":"w","seed":0}"#), attach);
        let change = Request::Change { wire: "w".into(), a_to_b: None, b_to_a: Some(none) };
        assert_eq!(asked(r#"{"number":1,"do":"change","wire":"w","b_to_a":{}}"#), change);
        assert_eq!(asked(r#"{"number":1,"do":"detach","wire":"w"}"#), Request::Detach { wire: "w".into() });
        assert_eq!(asked(r#"{"number":1,"do":"read"}"#), Request::Read { wire: None });
    }

    #[test]
    fn wrong_messages_are_refused_with_what_was_found() {
        for (text, said) in [
            ("", "no JSON"),
            ("[1]", "one JSON object"),
            (r#"{"do":"read"}"#, "number is missing"),
            (r#"{"number":-1,"do":"read"}"#, "number: invalid value"),
            (r#"{"number":1}"#, "do is missing"),
            (r#"{"number":1,"do":"dance"}"#, "\"dance\""),
            (r#"{"number":1,"do":"read","more":1}"#, "unknown key \"more\""),
            (r#"{"number":1,"do":"detach"}"#, "wire is missing"),
            (r#"{"number":1,"do":"detach","wire":""}"#, "0 bytes"),
            (r#"{"number":1,"do":"attach","wire":"w"}"#, "seed is missing"),
            (r#"{"number":1,"do":"change","wire":"w","a_to_b":{"dely_ns":1}}"#, "a_to_b: unknown field `dely_ns`"),
            (r#"{"number":1,"do":"change","wire":"w","b_to_a":{"delay_ns":-5}}"#, "b_to_a: invalid value"),
            (r#"{"number":1,"do":"change","wire":"w","a_to_b":{"loss":{"random":1.2}}}"#, "loss.random is 1.2"),
            (r#"{"number":1,"do":"change","wire":"w","a_to_b":{"loss":{"random":0.1,"x":0}}}"#, "a_to_b: "),
            (r#"{"number":1,"do":"change","wire":"w","a_to_b":{"rate_bps":0}}"#, "rate_bps is 0"),
            (r#"{"number":1,"do":"change","wire":"w","a_to_b":{"queue_bytes":9000}}"#, "queue_bytes needs a rate"),
            (r#"{"number":1,"do":"change","wire":"w","a_to_b":{"distribution":"flat"}}"#, "unknown variant `flat`"),
        ] {
            let fault = read(text.as_bytes()).request.expect_err(text);
            assert!(fault.contains(said), "{text} gave {fault}");
        }
    }

    #[test]
    fn a_number_is_answered_whatever_else_is_wrong() {
        assert_eq!(read(br#"{"number":7,"do":3}"#).number, Some(7));
        assert_eq!(read(br#"{"number":"x"}"#).number, None);
    }

    #[test]
    fn each_cut_of_a_message_is_refused_and_no_byte_changed_at_random_is_more_than_refused() {
        for end in 0..ATTACH.len() {
            assert!(read(&ATTACH.as_bytes()[..end]).request.is_err());
        }
        let chance = Stream::new(6, 0);
        for number in 0..5000 {
            let mut bytes = ATTACH.as_bytes().to_vec();
            let at = usize::try_from(chance.draw(number, 0)).unwrap() % bytes.len();
            bytes[at] = chance.draw(number, 1).to_ne_bytes()[0];
            let _ = read(&bytes);
        }
    }
}
