//! What holds for every text and every setting.

use model::ids::Lane;
use proptest::prelude::*;
use scenarios::{Settings, Source};

use crate::support::{GOOD, library, plan, set, settings, source};

/// Reads whatever it is; what matters is that it returns, and that a refusal can be shown.
fn survive(text: &str) {
    if let Err(diagnostics) = scenarios::parse(&source(text)) {
        let shown = diagnostics.to_string();
        assert!(
            shown.contains("test.yaml:") && shown.starts_with(|c: char| c.is_ascii_alphabetic()),
            "{shown}"
        );
    }
}

/// A scenario of the library in which one place was replaced.
fn mutated() -> impl Strategy<Value = String> {
    let texts: Vec<_> = library().map(|(_, text)| text).collect();
    let pieces = prop::sample::select(vec![
        "", " ", "\n", ":", "- ", "{", "}", "[", "]", "&a ", "*a", "<<: ", "---\n", "\t", "\"",
        "'", "|", "#", "!!str ", "0", "-1", "1e9", "5s", "%", "null", "~", "~: ", "? ", "fault",
        "hold: {}", "kill:", "\u{feff}", "é", "\r\n",
    ]);
    (
        prop::sample::select(texts),
        any::<prop::sample::Index>(),
        0_usize..12,
        pieces,
    )
        .prop_map(|(text, at, cut, piece)| {
            let chars: Vec<char> = text.chars().collect();
            let at = at.index(chars.len());
            let rest = chars.iter().skip(at + cut);
            chars[..at]
                .iter()
                .copied()
                .chain(piece.chars())
                .chain(rest.copied())
                .collect()
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        survive(&text);
    }

    #[test]
    fn no_lines_of_yaml_panic(lines in prop::collection::vec("[ -]{0,6}[a-z]{1,8}(: ?[a-z0-9{}\\[\\],&*!%]{0,8})?", 0..20)) {
        survive(&lines.join("\n"));
    }

    #[test]
    fn no_damaged_scenario_panics(text in mutated()) {
        survive(&text);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(source) = Source::from_bytes("test.yaml".to_owned(), bytes) {
            survive(&source.text);
        }
    }

    #[test]
    fn no_setting_panics(key in "[a-z0-9._ ]{0,24}", value in "\\PC{0,24}") {
        let _ = plan(GOOD, &set(&[(&key, &value)]));
    }

    #[test]
    fn equal_seeds_make_equal_plans_and_others_make_others(seed: u64, other: u64) {
        let planned = |seed| plan(GOOD, &Settings { seed, ..settings() }).expect("a plan");
        prop_assert_eq!(planned(seed), planned(seed));
        prop_assert_eq!(planned(seed).digest == planned(other).digest, seed == other);
    }

}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, ..ProptestConfig::default() })]

    #[test]
    fn a_digest_tells_scenarios_lanes_and_forms_apart(quick: bool, seed: u64) {
        let mut digests = Vec::new();
        for (name, text) in library() {
            for lane in Lane::ALL {
                digests.push(plan(text, &Settings { quick, ..Settings::new(lane, seed) }).expect(name).digest);
            }
        }
        let count = digests.len();
        digests.sort();
        digests.dedup();
        prop_assert_eq!(digests.len(), count);
    }
}
