//! What `edgeproxy doctor` finds of keys, and of the clock by which headers are signed.

use super::key_file::{self, KeyFault, MOST_KEYS};
use super::WINDOW;
use crate::config::model::{Config, KeyFile};
use crate::kernel::clock;
use crate::transparent::doctor::{Finding, Status};

/// Nothing, where no header is signed.
pub(crate) fn look(config: &Config) -> Vec<Finding> {
    judge(config, clock::is_kept_right())
}

fn judge(config: &Config, is_kept_right: Option<bool>) -> Vec<Finding> {
    if config.key_files.is_empty() {
        return Vec::new();
    }
    let of_file = |file: &KeyFile| {
        let name = format!("keys of {}", file.place);
        match key_file::read(file) {
            Ok(keys) => {
                let count = keys.len();
                let found = format!("{count} key{}, of {MOST_KEYS} at most", if count == 1 { "" } else { "s" });
                finding(name, Status::Ok, found, String::new())
            }
            Err(KeyFault { found, allowed, is_of_asker, .. }) => {
                let status = if is_of_asker { Status::NotTried } else { Status::Missing };
                finding(name, status, found, allowed)
            }
        }
    };
    let window = WINDOW.as_secs();
    let needed = format!("signed headers need clocks that are less than {window} s apart");
    let clock = match is_kept_right {
        Some(true) => finding("clock", Status::Ok, "the kernel says that it is kept right".to_owned(), String::new()),
        Some(false) => {
            let found = format!("the kernel does not know that anybody keeps it right; {needed}");
            finding("clock", Status::Note, found, "timedatectl set-ntp true".to_owned())
        }
        None => finding("clock", Status::NotTried, format!("the kernel does not say; {needed}"), String::new()),
    };
    config.key_files.iter().map(of_file).chain([clock]).collect()
}

fn finding(name: impl Into<String>, status: Status, found: String, mend: String) -> Finding {
    Finding { name: name.into(), status, found, mend }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(key: &str) -> Config {
        let backend = format!("[backend.b]\ntargets = [\"192.0.2.1:1\"]\nsend_proxy = \"v2\"\n{key}\n");
        let text = format!("[listener.in]\ntcp = [\"0.0.0.0:1\"]\n[[rule]]\nto = \"b\"\n{backend}");
        crate::config::parse(&text, "f").expect("right")
    }

    #[test]
    fn keys_and_the_clock_are_looked_at_where_headers_are_signed() {
        assert!(judge(&config(""), None).is_empty());
        let config = config("sign_proxy = \"/nonexistent/hop.key\"");
        for (is_kept, status) in [(Some(true), Status::Ok), (Some(false), Status::Note), (None, Status::NotTried)] {
            let [keys, clock] = <[Finding; 2]>::try_from(judge(&config, is_kept)).expect("two");
            assert_eq!((keys.name.as_str(), keys.status), ("keys of backend.b.sign_proxy", Status::Missing));
            assert!(keys.found.starts_with("/nonexistent/hop.key: ") && keys.mend.contains("openssl rand -hex 32"));
            assert_eq!((clock.name.as_str(), clock.status), ("clock", status));
            assert_eq!(clock.found.contains("30 s apart"), is_kept != Some(true));
        }
        // Whatever this host says.
        assert_eq!(look(&config).len(), 2);
    }
}
