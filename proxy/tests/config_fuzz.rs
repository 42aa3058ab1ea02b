//! Whatever stands in a configuration, an answer comes.
#![allow(clippy::unwrap_used)] // clippy.toml lets tests do so, but not what stands beside them

use std::fs;
use std::path::Path;

use edgeproxy::config::fuzz;
use proptest::prelude::*;

const SMALLEST: &str = include_str!("config/valid/smallest.toml");
const EVERY_KEY: &str = include_str!("config/valid/every_key.toml");

#[test]
fn every_prefix_and_every_line_taken_out_of_a_configuration_has_an_answer() {
    for text in [SMALLEST, EVERY_KEY] {
        for end in (0..=text.len()).filter(|end| text.is_char_boundary(*end)) {
            fuzz::config(&text.as_bytes()[..end]);
        }
        let lines: Vec<_> = text.lines().collect();
        for out in 0..lines.len() {
            let rest: Vec<_> =
                lines.iter().enumerate().filter(|(index, _)| *index != out).map(|(_, line)| *line).collect();
            fuzz::config(rest.join("\n").as_bytes());
        }
    }
}

#[test]
fn the_kept_corpus_has_an_answer() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/invalid");
    let paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(paths.len() > 50);
    for path in paths {
        fuzz::config(&fs::read(path).unwrap());
    }
}

/// Lines of the example of every key, in any order, with some letters changed.
fn shuffled() -> impl Strategy<Value = String> {
    let lines: Vec<String> = EVERY_KEY.lines().map(str::to_owned).collect();
    let change = (
        any::<proptest::sample::Index>(),
        prop::sample::select(vec!["", "\"", "[", "=", "$", "0", "-", "\u{e9}", "\n"]),
    );
    (prop::collection::vec(prop::sample::select(lines), 1..40), prop::collection::vec(change, 0..4)).prop_map(
        |(lines, changes)| {
            let mut text = lines.join("\n");
            for (place, letter) in changes {
                let mut at = place.index(text.len() + 1);
                while !text.is_char_boundary(at) {
                    at -= 1;
                }
                text.insert_str(at, letter);
            }
            text
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_has_an_answer(text in any::<String>()) {
        fuzz::config(text.as_bytes());
    }

    #[test]
    fn arbitrary_bytes_have_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz::config(&bytes);
    }

    #[test]
    fn lines_in_any_order_have_an_answer(text in shuffled()) {
        fuzz::config(text.as_bytes());
    }
}
