//! Patterns of server names: regular expressions that match whole names, in linear time and bounded memory.

use regex::{Regex, RegexBuilder};
use regex_syntax::hir::Look;

use super::Notation;

/// The longest text of a pattern, and the most memory that its compiled form may take, in bytes.
const LONGEST: usize = 4096;
const LARGEST: usize = 1 << 20;

impl Notation for Regex {
    const FORMAT: &'static str = "name-pattern";
    const ALLOWED: &'static str =
        "a regular expression for a whole name is allowed, as in '^(?P<host>[^.]+)\\.example\\.net$'";
    const EXAMPLES: &'static [&'static str] = &[r"^(?:[^.]+\.)*(?P<host>[^.]+)\.example\.net$"];

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("an empty pattern".to_owned());
        }
        if text.len() > LONGEST {
            return Err(format!("a pattern of {} bytes; up to {LONGEST} are read", text.len()));
        }
        let meant = regex_syntax::Parser::new().parse(text).map_err(|error| syntax(&error))?;
        // A pattern that is open at an end also matches a name that someone else registers.
        let looks = meant.properties();
        if !looks.look_set_prefix().contains(Look::Start) || !looks.look_set_suffix().contains(Look::End) {
            return Err(format!(
                "the pattern {text:?} is open at an end; begin it with ^ and end it with $, around all of it"
            ));
        }
        // Names are in lower case; a capital letter in the pattern means the same letter.
        let built = RegexBuilder::new(text).case_insensitive(true).size_limit(LARGEST).dfa_size_limit(LARGEST).build();
        let pattern = built.map_err(|_| format!("a pattern that takes more than {LARGEST} bytes when compiled"))?;
        if pattern.capture_names().flatten().any(|name| name == "port") {
            return Err("a group called port; $port is the port that the client asked for".to_owned());
        }
        Ok(pattern)
    }
}

/// In one line: what the parser says, and where.
fn syntax(error: &regex_syntax::Error) -> String {
    match error {
        regex_syntax::Error::Parse(parse) => {
            format!("not a regular expression: {} at letter {}", parse.kind(), parse.span().start.offset + 1)
        }
        regex_syntax::Error::Translate(meaning) => {
            format!("not a regular expression: {} at letter {}", meaning.kind(), meaning.span().start.offset + 1)
        }
        _ => "not a regular expression".to_owned(), // the enum is open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_names_are_matched_whatever_the_case_of_the_pattern() {
        let pattern = <Regex as Notation>::read(r"^(?P<host>[^.]+)\.Example\.net$").unwrap();
        assert_eq!(&pattern.captures("nas.example.net").unwrap()["host"], "nas");
        assert!(!pattern.is_match("nas.example.net.example.org"));
    }

    #[test]
    fn patterns_over_which_others_never_end_are_matched() {
        for text in
            [r"^(?:(?:a+)+)+b$", r"^(?:a|a|aa)*b$", r"^(?:a*)*(?:a*)*(?P<host>(?:a*)*)b$", "^(?:a?){250}a{250}$"]
        {
            let pattern = <Regex as Notation>::read(text).unwrap();
            assert!(pattern.captures(&"a".repeat(249)).is_none(), "{text}");
        }
    }

    #[test]
    fn wrong_patterns_are_refused_in_one_line() {
        for (text, said) in [
            ("", "an empty pattern"),
            (r"example\.net", "open at an end"),
            (r"^example\.net", "open at an end"),
            (r"^a$|b", "open at an end"),
            (r"(?m)^a$", "open at an end"),
            ("^(a$", "unclosed group at letter 2"),
            (r"^(?P<a>x)(?P<a>y)$", "duplicate capture group name"),
            (r"^(?=a)$", "look-around"),
            (r"^(a)\1$", "backreferences"),
            (r"^\p{Nonsense}$", "Unicode property not found"),
            (r"^(?P<port>\d+)$", "a group called port"),
            ("^(?:(?:a{1000}){1000}){10}$", "takes more than"),
        ] {
            let fault = <Regex as Notation>::read(text).expect_err(text);
            assert!(fault.contains(said) && !fault.contains('\n'), "{text:?}: {fault}");
        }
        assert!(<Regex as Notation>::read(&format!("^{}$", "a".repeat(LONGEST))).is_err());
    }
}
