//! What whoever asked for a reload is told, and the log: that the file is in force, or all that speaks against it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::Fault;

const LATER: &str = "reloaded, but what was changed here holds from the next start on: ";

/// What became of a reload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadTold {
    /// The file is in force, in all workers; else the configuration of before stays.
    pub reloaded: bool,
    /// Keys of which what the file says holds from the next start on.
    pub next_start: Vec<String>,
    /// What the file allows itself but hardly means.
    pub notes: Vec<Fault>,
    /// What is wrong with the file.
    pub faults: Vec<Fault>,
    /// Why a file that is right could not be taken.
    pub why: Option<String>,
}

impl ReloadTold {
    /// It did not come to the file, or the file was right.
    #[must_use]
    pub fn refused(why: impl fmt::Display) -> Self {
        Self { why: Some(why.to_string()), ..Self::default() }
    }

    /// It is the file that is at fault.
    #[must_use]
    pub fn faulty(faults: Vec<Fault>) -> Self {
        Self { faults, ..Self::default() }
    }

    /// What [`Self::outcome`] says of one that succeeded.
    #[must_use]
    pub fn done(outcome: &str) -> Self {
        let waiting = outcome.strip_prefix(LATER).into_iter().flat_map(|keys| keys.split(", "));
        Self { reloaded: true, next_start: waiting.map(str::to_owned).collect(), ..Self::default() }
    }

    /// In a line, without faults and notes.
    #[must_use]
    pub fn outcome(&self) -> String {
        match &self.why {
            _ if self.reloaded && self.next_start.is_empty() => "reloaded".to_owned(),
            _ if self.reloaded => {
                let keys = self.next_start.join(", ");
                format!("{LATER}{keys}")
            }
            None => "not reloaded, the old configuration stays".to_owned(),
            Some(why) => format!("not reloaded, the old configuration stays: {why}"),
        }
    }
}

impl fmt::Display for ReloadTold {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.outcome())?;
        self.faults.iter().enumerate().try_for_each(|(index, fault)| {
            let before = if index == 0 { ": " } else { "\n" };
            write!(out, "{before}{fault}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(line: usize) -> Fault {
        let [file, path, found, allowed] = ["c.toml", "workers", "0", "1 to 64"].map(str::to_owned);
        Fault { file, line: Some(line), path, found, allowed }
    }

    #[test]
    fn each_outcome_has_its_words() {
        let taken = ReloadTold { reloaded: true, ..ReloadTold::default() };
        assert_eq!(taken.to_string(), "reloaded");
        let waits = ReloadTold { next_start: vec!["workers".to_owned()], ..taken.clone() };
        assert_eq!(waits.to_string(), "reloaded, but what was changed here holds from the next start on: workers");
        let several = ReloadTold { next_start: ["workers", "operation.metrics"].map(str::to_owned).to_vec(), ..waits };
        for told in [taken, several] {
            assert_eq!(ReloadTold::done(&told.outcome()), told);
        }
        let stays = "not reloaded, the old configuration stays";
        assert_eq!(ReloadTold::refused("no room").to_string(), format!("{stays}: no room"));
        let faulty = ReloadTold::faulty(vec![fault(1), fault(2)]);
        assert_eq!(faulty.outcome(), stays);
        let faults = "c.toml:1: workers: 0; 1 to 64\nc.toml:2: workers: 0; 1 to 64";
        assert_eq!(faulty.to_string(), format!("{stays}: {faults}"));
    }
}
