//! The allowed word that was probably meant.

/// The candidate nearest to `found`, if one is near enough to be a slip of the pen: a quarter of its letters
/// at most, so that no word of three is taken for another.
pub(crate) fn nearest<'a>(found: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const LONGEST: usize = 64; // longer words are no slip, and the comparison is quadratic
    if found.chars().count() > LONGEST {
        return None;
    }
    candidates
        .into_iter()
        .map(|candidate| (distance(found, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.chars().count() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Letters to put in, take out or change (Levenshtein), row by row.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, letter) in one.chars().enumerate() {
        let mut next = vec![index + 1];
        for ((column, wanted), (diagonal, above)) in other.iter().enumerate().zip(row.iter().zip(row.iter().skip(1))) {
            let left = next.get(column).copied().unwrap_or(usize::MAX - 1);
            next.push((diagonal + usize::from(letter != *wanted)).min(above + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_levenshtein() {
        for (one, other, expected) in [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("same", "same", 0)] {
            assert_eq!(distance(one, other), expected, "{one} {other}");
            assert_eq!(distance(other, one), expected, "{other} {one}");
        }
    }

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        let keys = ["connections", "rate", "tcp", "udp"];
        assert_eq!(nearest("conections", keys), Some("connections"));
        assert_eq!(nearest("tpc", keys), None);
        assert_eq!(nearest("ssl", ["tls", "ssh"]), None);
        assert_eq!(nearest("backlog", keys), None);
        assert_eq!(nearest(&"connections".repeat(10_000), keys), None);
    }
}
