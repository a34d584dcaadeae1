//! Every mistake is refused with its place and a remedy.

use scenarios::{Place, ReadError, Severity, Source};

use crate::support::{GOOD, changed, parse, points_at};

/// Asserts that a text is refused at a line and column, with all the given words.
#[track_caller]
fn refused(text: &str, line: usize, column: usize, words: &[&str]) {
    let shown = parse(text).expect_err("it is wrong").to_string();
    points_at(&shown, line, column, words);
    let source_line = text.lines().nth(line - 1).expect("the line").trim_end();
    assert!(shown.contains(source_line), "the line itself in\n{shown}");
}

/// The good scenario with one thing changed is refused on the line of the change.
#[track_caller]
fn wrong(from: &str, to: &str, column: usize, words: &[&str]) {
    let text = changed(from, to);
    let line = GOOD
        .lines()
        .position(|line| line.contains(from))
        .expect("one line")
        + 1;
    refused(&text, line, column, words);
}

#[test]
fn unknown_fields_are_named_with_the_nearest_known_one() {
    wrong("clients: 50", "cleints: 50", 3, &["`cleints`", "`clients`"]);
}

#[test]
fn an_unknown_field_far_from_all_known_ones_lists_them() {
    refused(
        &format!("{GOOD}zzzzzzzzzzzz: 1\n"),
        17,
        1,
        &["`zzzzzzzzzzzz`", "known here: name, about"],
    );
}

#[test]
fn settings_of_a_fault_without_settings_are_refused() {
    wrong(
        "hold: {}",
        "hold: { harder: true }",
        22,
        &["`harder`", "no settings"],
    );
}

#[test]
fn wrong_types_say_what_was_given_and_what_is_wanted() {
    wrong(
        "clients: 50",
        "clients: many",
        12,
        &["`many`", "a whole number"],
    );
    wrong(
        "clients: 50",
        "clients: -1",
        12,
        &["`-1`", "a whole number"],
    );
    wrong(
        "recovery: { p50: 4s, p99: 8s }",
        "recovery: fast",
        13,
        &["`fast`", "mapping"],
    );
}

#[test]
fn a_bare_number_is_told_its_possible_units() {
    wrong("for: 5s", "for: 5", 10, &["`5` is a bare number", "5s"]);
    wrong("affected: 90%", "affected: 90", 11, &["90%"]);
}

#[test]
fn a_quantity_that_makes_no_sense_is_refused() {
    wrong("for: 5s", "for: -5s", 10, &["-5s", "negative"]);
    wrong(
        "affected: 90%",
        "affected: 120%",
        11,
        &["120%", "from 0% to 100%"],
    );
    wrong("for: 5s", "for: soon", 10, &["`soon` is not a duration"]);
}

#[test]
fn an_unknown_fault_is_named_with_the_nearest_known_one() {
    wrong("hold: {}", "hodl: {}", 14, &["`hodl`", "`hold`"]);
}

#[test]
fn a_fault_is_one_fault() {
    wrong(
        "{ hold: {} }",
        "{ hold: {}, reset: {} }",
        24,
        &["`reset`", "one"],
    );
    wrong("{ hold: {} }", "{}", 5, &["nothing is chosen", "hold"]);
    wrong("{ hold: {} }", "hold", 12, &["`hold`", "{ hold: {} }"]);
}

#[test]
fn every_fault_has_an_end() {
    let text = GOOD.replace("    for: 5s\n", "");
    refused(&text, 8, 14, &["`hold`", "`for`", "for: 2s"]);
}

#[test]
fn a_fault_that_ends_by_itself_takes_no_for() {
    refused(
        &changed("hold: {}", "reset: {}"),
        9,
        10,
        &["`reset` ends by itself", "remove"],
    );
}

#[test]
fn a_deadline_below_a_bound_is_refused() {
    wrong(
        "deadline: 20s",
        "deadline: 3s",
        11,
        &["deadline", "3s", "8s", "bounds.recovery.p99"],
    );
    let steady = changed("bounds:", "bounds:\n  time_to_steady: 18s");
    refused(&steady, 15, 11, &["time_to_steady is 18s", "21s"]);
    // An outage is counted from the fault, 5 s before the heal.
    let outage =
        |bound: &str| changed("bounds:", &format!("bounds:\n  outage: {{ max: {bound} }}"));
    assert!(parse(&outage("25s")).is_ok());
    refused(&outage("26s"), 15, 11, &["bounds.outage.max is 26s", "21s"]);
}

#[test]
fn counts_that_make_no_drill_are_refused() {
    wrong("clients: 50", "clients: 0", 12, &["`clients` is 0"]);
    wrong(
        "streams_per_client: 3",
        "streams_per_client: 7",
        23,
        &["7 of 6 streams"],
    );
    wrong("share: 100%", "share: 0%", 12, &["0%"]);
    wrong("affected: 90%", "affected: 0%", 11, &["0%"]);
}

#[test]
fn more_clients_cannot_be_affected_than_the_faults_take() {
    refused(
        &changed("share: 100%", "share: 50%"),
        11,
        11,
        &["90% cannot be affected", "share"],
    );
}

#[test]
fn limits_of_times_and_leases_hold() {
    wrong("at: 1s", "at: 2h", 9, &["2h is longer than an hour"]);
    wrong("for: 5s", "for: 1ms", 10, &["1ms", "100ms"]);
    wrong("share: 100%", "lease: 1m", 12, &["a lease of 1m", "10s"]);
    wrong(
        "share: 100%",
        "node: lane",
        11,
        &["`hold` is not done to a node"],
    );
    let kill = changed("hold: {}", "kill: {}");
    refused(
        &kill.replace("share: 100%", "node: lan"),
        10,
        11,
        &["`lan`", "`lane`"],
    );
    refused(
        &kill
            .replace("share: 100%", "share: 50%")
            .replace("90%", "50%"),
        10,
        12,
        &["every client of its node"],
    );
}

#[test]
fn a_node_is_under_one_node_fault_at_a_time() {
    let second = |at: &str| {
        let entry = format!("  - {{ at: {at}, fault: {{ pause: {{}} }}, for: 1s }}\naffected");
        changed("affected", &entry).replace("hold: {}", "kill: {}")
    };
    refused(
        &second("6s"),
        11,
        11,
        &["node `lane` is still under `kill` of 1s to 6s"],
    );
    assert!(parse(&second("6100ms")).is_ok());
    assert!(parse(&second("2s").replace("for: 1s", "for: 1s, node: tokens")).is_ok());
}

#[test]
fn settings_of_faults_are_checked() {
    let fault = |fault: &str| GOOD.replace("{ hold: {} }", fault);
    let momentary = |text: &str| fault(text).replace("    for: 5s\n", "");
    for (text, words) in [
        (fault("{ latency: { delay: 0s } }"), "a delay of 0s"),
        (fault("{ latency: { delay: 1ms, jitter: 2ms } }"), "jitter"),
        (fault("{ bandwidth: { per_second: 0B } }"), "nothing passes"),
        (fault("{ crash_loop: { every: 50ms } }"), "a period of 50ms"),
        (fault("{ crash_loop: { times: 1 } }"), "1 is no loop"),
        (fault("{ refuse_upgrade: { status: 200 } }"), "200"),
        (momentary("{ ws_close: { code: 1006 } }"), "1006"),
        (
            momentary("{ token_expiry: { after: 2s, spread: 4s } }"),
            "at least 5s",
        ),
    ] {
        let shown = parse(&text).expect_err(words).to_string();
        assert!(
            shown.contains(words) && shown.contains("test.yaml:8:"),
            "{words} in\n{shown}"
        );
    }
}

#[test]
fn settings_of_faults_in_the_kernel_are_checked() {
    let fault = |fault: &str| GOOD.replace("{ hold: {} }", fault);
    for (settings, words) in [
        (
            "{ partition: { peers: [10.0.0.1], of: 2 } }",
            "2 of 1 peers",
        ),
        ("{ partition: { of: 1 } }", "1 of 0 peers"),
        ("{ partition: { peers: [10.0.0.1/8] } }", "10.0.0.0/8"),
        (
            "{ partition: { peers: [node-2] } }",
            "`node-2` is not an address",
        ),
        ("{ partition: { ports: [0] } }", "0"),
        ("{ packet_loss: { rate: 0% } }", "a loss of 0%"),
        ("{ packet_loss: { rate: 100% } }", "nothing passes"),
        (
            "{ throttle: { interface: eth0, per_second: 0B } }",
            "nothing passes",
        ),
        (
            "{ throttle: { interface: -eth0, per_second: 1MiB } }",
            "no name of an interface",
        ),
        ("{ netem: { interface: eth0 } }", "does nothing"),
        (
            "{ netem: { interface: eth0, reorder: 5% } }",
            "go past others",
        ),
        (
            "{ netem: { interface: eth0, delay: 1ms, jitter: 2ms } }",
            "the jitter (2ms)",
        ),
    ] {
        let shown = parse(&fault(settings)).expect_err(words).to_string();
        assert!(
            shown.contains(words) && shown.contains("test.yaml:8:"),
            "{words} in\n{shown}"
        );
    }
    let ssh = parse(&fault("{ partition: { ports: [22] } }"));
    let warnings = ssh.unwrap_or_else(|error| panic!("{error}")).warnings;
    assert!(warnings[0].to_string().contains("SSH"), "{warnings:?}");
}

#[test]
fn faults_of_a_machine_and_a_clock_are_bounded() {
    let fault = |fault: &str| GOOD.replace("{ hold: {} }", fault);
    for (settings, words) in [
        ("{ cpu_burn: { cores: 0 } }", "0 cores are none"),
        ("{ cpu_burn: { cores: 0% } }", "0% cores are none"),
        ("{ cpu_burn: { cores: many } }", "`many` is not a share"),
        ("{ cpu_burn: { cores: 2, load: 0% } }", "a load of 0%"),
        ("{ cpu_burn: { cores: 2, load: 101% } }", "`101%`"),
        ("{ cpu_burn: { cores: [2] } }", "a number of cores"),
        ("{ memory_fill: { size: 5 } }", "bare number"),
        (
            "{ memory_fill: { size: lots } }",
            "neither a size nor a share",
        ),
        ("{ memory_fill: { size: 0% } }", "a size of 0%"),
        ("{ memory_fill: { size: 4KiB } }", "a size of 4KiB"),
        (
            "{ memory_fill: { size: 1GiB, reserve: 2000000GiB } }",
            "more than machines have",
        ),
        ("{ disk_fill: { size: 0B } }", "a size of 0B"),
        (
            "{ disk_fill: { size: 1GiB, folder: data } }",
            "not an absolute path",
        ),
        (
            "{ disk_fill: { size: 1GiB, folder: /srv/../etc } }",
            "not an absolute path",
        ),
        (
            "{ disk_fill: { size: 1GiB, folder: /srv } }",
            "may not fill `/srv`",
        ),
        ("{ clock_skew: { offset: 30s } }", "lanes overlook"),
        ("{ clock_skew: { offset: -9000h } }", "longer than a year"),
        (
            "{ clock_skew: { offset: soon } }",
            "`soon` is not an offset",
        ),
    ] {
        let shown = parse(&fault(settings)).expect_err(words).to_string();
        assert!(
            shown.contains(words) && shown.contains("test.yaml:8:"),
            "{words} in\n{shown}"
        );
    }
    for (settings, node, words) in [
        ("{ clock_skew: { offset: +1h } }", "lane", "not for `lane`"),
        ("{ cpu_burn: { cores: 1 } }", "db", "no node `db`"),
    ] {
        let text = fault(settings).replace("share: 100%", &format!("node: {node}"));
        let shown = parse(&text).expect_err(words).to_string();
        assert!(shown.contains(words), "{words} in\n{shown}");
    }
    let shared = fault("{ clock_skew: { offset: +1h } }").replace("share: 100%", "share: 50%");
    let shown = parse(&shared).expect_err("a share").to_string();
    assert!(shown.contains("takes every client"), "{shown}");
}

#[test]
fn a_machine_can_be_under_several_faults_at_once() {
    let more = "  - { at: 2s, fault: { cpu_burn: { cores: 1 } }, for: 1s }
  - { at: 2s, fault: { memory_fill: { size: 50% } }, for: 1s }
  - { at: 2s, fault: { kill: {} }, for: 1s }
affected";
    let text = changed("affected", more).replace("hold: {}", "disk_fill: { size: 1MiB }");
    parse(&text).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn a_kernel_can_be_under_several_faults_at_once() {
    let second = "  - { at: 2s, fault: { packet_loss: { rate: 5% } }, for: 1s }\naffected";
    let text = changed("affected", second).replace("hold: {}", "partition: {}");
    parse(&text).unwrap_or_else(|error| panic!("{error}"));
    let killed = text.replace("packet_loss: { rate: 5% }", "kill: {}");
    parse(&killed).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn toxics_are_checked_against_their_settings() {
    let toxic = |toxic: &str| GOOD.replace("{ hold: {} }", &format!("{{ toxic: {{ {toxic} }} }}"));
    for (text, words) in [
        ("type: slicerr", &["no toxic `slicerr`", "`slicer`"][..]),
        (
            "type: slicer, attributes: { average_sise: 9 }",
            &["no attribute `average_sise`", "`average_size`"],
        ),
        (
            "type: latency, attributes: { latency: 50ms }",
            &[
                "\"50ms\" is not of type \"integer\"",
                "docs/toxics/latency.md",
            ],
        ),
        ("type: latency, stream: both", &["`stream`", "direction"]),
        ("direction: both", &["`type`"]),
    ] {
        let text = toxic(text);
        let shown = parse(&text).expect_err(words[0]).to_string();
        for word in words {
            assert!(
                shown.contains(word) && shown.contains("test.yaml:8:"),
                "{word} in\n{shown}"
            );
        }
    }
    let good = toxic("type: latency, direction: upstream, attributes: { latency: 50 }");
    assert!(parse(&good).is_ok());
    let endless = good.replace("    for: 5s\n", "");
    let shown = parse(&endless).expect_err("it has no end").to_string();
    assert!(shown.contains("`toxic` has no end"), "{shown}");
}

#[test]
fn the_steady_window_must_outlast_late_waves() {
    let text = changed("deadline: 20s", "deadline: 20s\nsteady: { window: 1s }");
    refused(&text, 15, 19, &["a steady window of 1s", "3s"]);
    let text = changed("deadline: 20s", "deadline: 20s\nsteady: { within: 4s }");
    refused(&text, 15, 19, &["within 4s", "5s"]);
}

#[test]
fn several_mistakes_are_found_at_once() {
    let text = changed("clients: 50", "cleints: 50")
        .replace("streams: 6", "streams: six")
        .replace("hold: {}", "hodl: {}")
        .replace("deadline: 20s", "deadline: 20");
    let found = parse(&text).expect_err("it is wrong");
    let lines: Vec<usize> = found
        .iter()
        .map(|diagnostic| match &diagnostic.place {
            Place::File { mark, .. } => mark.line,
            Place::Setting(setting) => panic!("{setting}"),
        })
        .collect();
    assert_eq!(lines, [3, 4, 8, 14], "{found}");
}

#[test]
fn a_missing_field_is_named() {
    let shown = parse(&changed("deadline: 20s\n", ""))
        .expect_err("it is wrong")
        .to_string();
    assert!(
        shown.contains("`deadline` is missing") && shown.contains("test.yaml:1:1"),
        "{shown}"
    );
    let shown = parse(&changed("  - at: 1s\n    fault", "  - fault"))
        .expect_err("it is wrong")
        .to_string();
    assert!(
        shown.contains("`at` is missing") && shown.contains("test.yaml:7:5"),
        "{shown}"
    );
}

#[test]
fn a_mistake_in_the_short_form_points_into_it() {
    refused(
        &changed("clients: 10", "clients: 0"),
        16,
        24,
        &["`clients` is 0"],
    );
    refused(
        &changed("{ clients: 10 }", "{ cleints: 10 }"),
        16,
        15,
        &["`cleints`", "`clients`"],
    );
    refused(
        &changed("{ clients: 10 }", "{}\n  quick: {}"),
        17,
        3,
        &["no short form of its own"],
    );
    assert!(parse(&changed("quick:\n  workload: { clients: 10 }", "quick: 5")).is_err());
}

#[test]
fn what_is_not_one_small_yaml_document_is_refused() {
    for (text, words) in [
        ("", "empty"),
        ("# only a remark\n\n", "empty"),
        ("a: [1, 2", "test.yaml:"),
        ("name: a\nname: b\n", "duplicate key `name`"),
        ("name: a\n---\nname: b\n", "second YAML document"),
        ("- 1\n- 2\n", "test.yaml:1:1"),
        ("just words", "`just words`"),
        ("base: &b { x: 1 }\nworkload:\n  <<: *b\n", "merge keys"),
        ("name: &a [*a]\n", "test.yaml:"),
    ] {
        let shown = parse(text).expect_err(text).to_string();
        assert!(shown.contains(words), "{words} for {text:?} in\n{shown}");
    }
}

#[test]
fn bombs_are_refused_before_they_cost_anything() {
    let mut aliases = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..10 {
        let row = vec![format!("*a{}", n - 1); 10].join(", ");
        let line = format!("a{n}: &a{n} [{row}]\n");
        aliases.push_str(&line);
    }
    let deep = format!("a: {}{}", "[".repeat(5_000), "]".repeat(5_000));
    let blocks: Vec<String> = (0..2_000)
        .map(|depth| format!("{}a:\n", " ".repeat(depth % 100)))
        .collect();
    let long = format!("a: [{}]", "1, ".repeat(60_000));
    let large = format!("{GOOD}# {}", "x".repeat(300 * 1024));
    let began = std::time::Instant::now();
    for text in [aliases, deep, blocks.concat(), long, large] {
        let shown = parse(&text).expect_err("it is a bomb").to_string();
        assert!(shown.contains("test.yaml:"), "{shown}");
    }
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
}

#[test]
fn what_is_not_text_is_refused_with_the_place_of_the_first_bad_byte() {
    let read = |bytes: &[u8]| {
        Source::from_bytes("a.yaml".to_owned(), bytes.to_vec()).map_err(|error| error.to_string())
    };
    for (bytes, place) in [
        (&[0_u8, 159, 146][..], "a.yaml:1:1"),
        (b"name: a\nabout: \xff", "a.yaml:2:8"),
        (b"a\0b", "a.yaml:1:2"),
    ] {
        let shown = read(bytes).expect_err("it is binary");
        assert!(shown.contains(place) && shown.contains("UTF-8"), "{shown}");
    }
    assert!(
        parse("a: \0")
            .expect_err("NUL")
            .to_string()
            .contains("test.yaml:1:4")
    );
    assert!(
        read(&vec![b'#'; 300 * 1024])
            .expect_err("too large")
            .contains("256 KiB")
    );
    let missing = Source::read(std::path::Path::new("no/such/file.yaml"));
    assert!(matches!(missing, Err(ReadError::Io { .. })));
}

#[test]
fn what_is_probably_not_meant_is_a_warning() {
    let warnings = |text: &str| parse(text).expect("it is valid").warnings;
    assert!(warnings(GOOD).is_empty());
    let short = warnings(&changed("for: 5s", "for: 2s"));
    assert_eq!(short.len(), 1, "{short:?}");
    assert_eq!(short[0].severity, Severity::Warning);
    assert!(
        short[0]
            .to_string()
            .starts_with("warning: a hold of 2s is never detected"),
        "{}",
        short[0]
    );
    let crossed = warnings(&changed("p50: 4s, p99: 8s", "p50: 9s, p99: 8s"));
    assert!(crossed[0].message.contains("above"), "{crossed:?}");
    let never = warnings(&changed(
        "deadline: 20s",
        "deadline: 20s\nabort: { connected_below: 10%, lasting: 30s }",
    ));
    assert!(never[0].message.contains("cannot fire"), "{never:?}");
}

#[test]
fn settings_without_their_names_are_refused() {
    const WANTED: &str = "a list was given where a mapping of settings is wanted";
    refused("- p\n- about\n- {}\n", 1, 1, &[WANTED]);
    let named = "recovery: { p50: 4s, p99: 8s }";
    wrong(named, "recovery: [4s, 8s]", 3, &[WANTED]);
    let workload = "workload:\n  clients: 50\n  streams: 6\n  streams_per_client: 3\n";
    let listed = changed(workload, "workload: [50, 2, 6, 3]\n");
    refused(&listed, 2, 1, &[WANTED]);
}

#[test]
fn a_bomb_is_called_too_large_or_too_deep_and_not_badly_indented() {
    let bomb: Vec<String> = (1..10)
        .map(|n| {
            let row = [format!("*a{}", n - 1).as_str(); 10].join(", ");
            format!("a{n}: &a{n} [{row}]\n")
        })
        .collect();
    let bomb = format!("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n{}", bomb.concat());
    for (text, message) in [
        (bomb, "the aliases expand to more"),
        ("[".repeat(5_000), "nested deeper"),
        (format!("a: [{}]", "1, ".repeat(60_000)), "larger than"),
    ] {
        let shown = parse(&text).expect_err("it is a bomb").to_string();
        assert!(shown.contains(message), "{shown}");
        assert!(shown.contains("hint: such a file is small"), "{shown}");
        assert!(!shown.contains('{'), "nothing of the library's: {shown}");
    }
}

#[test]
fn a_tag_is_refused() {
    for tag in ["!!python/object", "!mine"] {
        let text = changed("clients: 50", &format!("clients: {tag} 50"));
        let shown = parse(&text).expect_err("tags are not known").to_string();
        assert!(
            shown.contains(&format!("`{tag}`")) && shown.contains("test.yaml:3:"),
            "{shown}"
        );
    }
}

#[test]
fn only_a_regular_file_is_read() {
    for path in ["/", "/dev/zero"] {
        let error = Source::read(path.as_ref()).expect_err("it is no file");
        assert!(error.to_string().contains("not a regular file"), "{error}");
    }
}
