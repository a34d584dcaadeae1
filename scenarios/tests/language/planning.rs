//! What a plan is made of, and what command-line settings do to it.

use model::criteria::Phase;
use model::defect::Defect;
use model::ids::Lane;
use model::quantity::Span;
use model::target::Kind;
use scenarios::Settings;

use crate::support::{GOOD, changed, library, plan, set, settings};

#[test]
fn a_plan_holds_what_the_scenario_says() {
    let plan = plan(GOOD, &settings()).expect("a plan");
    assert_eq!(
        (plan.scenario.as_str(), plan.lane, plan.seed),
        ("good", Lane::Khala, 7)
    );
    assert_eq!(plan.workload.clients, 50);
    assert_eq!(
        plan.workload.streams[..2],
        ["runtime.run.1.events", "runtime.run.2.events"]
    );
    assert_eq!(plan.steps.len(), 1);
    let step = &plan.steps[0];
    assert_eq!(
        (step.id.as_str(), step.at, step.lasts),
        ("f1-hold", Span::from_secs(1), Span::from_secs(5))
    );
    assert_eq!(
        (step.lease, step.node.as_deref()),
        (Span::from_secs(2), None)
    );
    assert_eq!(
        plan.criteria.bounds[&Phase::Recovery].p99,
        Some(Span::from_secs(8))
    );
    assert!(
        !plan.criteria.bounds.contains_key(&Phase::Detect),
        "a phase without a bound is not judged"
    );
    assert_eq!(
        plan.target.stream_budgets["runtime.run.stale.events"],
        (20, 10)
    );
    assert!(plan.digest.starts_with("sha256:") && plan.digest.len() == 7 + 64);
}

#[test]
fn steps_are_numbered_by_their_instants_and_node_faults_get_a_node() {
    let earlier = "timeline:\n  - { at: 2s, fault: { reset: {} } }\n  - { at: 1500ms, fault: { kill: {} }, for: 1s }";
    let plan = plan(&changed("timeline:", earlier), &settings()).expect("a plan");
    let ids: Vec<_> = plan.steps.iter().map(|step| step.id.as_str()).collect();
    assert_eq!(ids, ["f1-hold", "f2-kill", "f3-reset"]);
    assert_eq!(plan.steps[1].node.as_deref(), Some("lane"));
    assert_eq!(plan.steps[2].lasts, Span::ZERO);
}

#[test]
fn the_digest_is_of_the_plan_alone() {
    let digest = |settings: &Settings| plan(GOOD, settings).expect("a plan").digest;
    let base = digest(&settings());
    assert_eq!(base, digest(&settings()));
    assert_eq!(
        base,
        digest(&Settings {
            defect: Some(Defect::SkipSeq),
            ..settings()
        })
    );
    for other in [
        Settings {
            seed: 8,
            ..settings()
        },
        Settings {
            lane: Lane::Spacetime,
            ..settings()
        },
        Settings {
            clients: Some(51),
            ..settings()
        },
        Settings {
            quick: true,
            ..settings()
        },
        set(&[("bounds.recovery.p99", "9s")]),
        set(&[("about", "something else")]),
    ] {
        assert_ne!(base, digest(&other), "{other:?}");
    }
}

#[test]
fn a_plan_survives_its_journey_through_json() {
    for (name, text) in library() {
        for quick in [false, true] {
            let plan = plan(
                text,
                &Settings {
                    quick,
                    defect: Some(Defect::ForgetLog),
                    ..settings()
                },
            )
            .expect(name);
            let json = serde_json::to_string(&plan).expect("JSON");
            assert_eq!(
                serde_json::from_str::<scenarios::plan::Plan>(&json).expect("a plan"),
                plan
            );
        }
    }
}

#[test]
fn settings_are_laid_over_the_short_form_and_the_short_form_over_the_scenario() {
    let quick = Settings {
        quick: true,
        ..settings()
    };
    assert_eq!(plan(GOOD, &quick).expect("a plan").workload.clients, 10);
    assert_eq!(
        plan(
            GOOD,
            &Settings {
                clients: Some(9),
                ..quick.clone()
            }
        )
        .expect("a plan")
        .workload
        .clients,
        9
    );
    let all = Settings {
        clients: Some(9),
        quick: true,
        ..set(&[("workload.clients", "8"), ("timeline.0.for", "6s")])
    };
    let plan = plan(GOOD, &all).expect("a plan");
    assert_eq!(plan.workload.clients, 8);
    assert_eq!(
        plan.workload.streams.len(),
        6,
        "what the short form does not name stays"
    );
    assert_eq!(plan.steps[0].lasts, Span::from_secs(6));
}

#[test]
fn a_setting_may_make_what_is_not_there_and_take_any_yaml() {
    let plan = plan(
        GOOD,
        &set(&[
            ("bounds.detect", "{ p99: 4s }"),
            ("target.profile.read_idle", "4s"),
        ]),
    )
    .expect("a plan");
    assert_eq!(
        plan.criteria.bounds[&Phase::Detect].p99,
        Some(Span::from_secs(4))
    );
    assert_eq!(plan.target.profile.read_idle, Span::from_secs(4));
}

#[test]
fn a_wrong_setting_is_blamed_on_the_command_line() {
    for (key, value, words) in [
        ("workload.cleints", "3", "did you mean `clients`?"),
        ("bounds.recovery.p99", "fast", "`fast` is not a duration"),
        ("bounds.recovery.p99", "5", "bare number"),
        ("deadline", "1s", "below a bound"),
        ("timeline.3.for", "1s", "not a place in a list of 1"),
        ("timeline.first.for", "1s", "not a place"),
        ("deadline.x", "1s", "mapping"),
        ("workload.clients", "0", "`clients` is 0"),
        ("workload.clients", "[", "--set"),
        ("about", "", "no value"),
        ("", "5", "unknown field"),
    ] {
        let shown = plan(GOOD, &set(&[(key, value)]))
            .expect_err(words)
            .to_string();
        assert!(shown.contains(words), "`{words}` in\n{shown}");
        assert!(
            shown.contains(&format!("--> --set {key}={value}")),
            "{shown}"
        );
    }
    let zero = plan(
        GOOD,
        &Settings {
            clients: Some(0),
            ..settings()
        },
    )
    .expect_err("zero")
    .to_string();
    assert!(zero.contains("--> --clients 0"), "{zero}");
}

#[test]
fn the_ramp_is_stretched_to_what_the_target_admits() {
    let narrow = plan(GOOD, &set(&[("target.accept_rate", "10/s")])).expect("a plan");
    assert!(
        narrow.workload.ramp >= Span::from_secs(5),
        "{}",
        narrow.workload.ramp
    );
    assert!(narrow.steady.within > Span::from_secs(20));
    let tokens = plan(
        GOOD,
        &set(&[("target.token_rate", "10/s"), ("target.token_burst", "10")]),
    )
    .expect("a plan");
    assert!(
        tokens.workload.ramp >= Span::from_secs(4),
        "{}",
        tokens.workload.ramp
    );
    let wide = plan(GOOD, &set(&[("target.accept_rate", "1000/s")])).expect("a plan");
    assert_eq!(wide.workload.ramp, Span::from_secs(2));
}

#[test]
fn a_description_has_a_line_for_each_injection_and_each_undo() {
    for (name, text) in library() {
        let plan = plan(
            text,
            &Settings {
                defect: Some(Defect::SkipSeq),
                ..settings()
            },
        )
        .expect(name);
        let shown = plan.describe();
        for step in &plan.steps {
            assert_eq!(shown.matches(step.id.as_str()).count(), 2, "{shown}");
        }
        for words in [
            plan.digest.as_str(),
            "undo: ",
            "lease 2s",
            "skip-seq",
            "recovery",
            "heartbeat 1s",
        ] {
            assert!(shown.contains(words), "`{words}` in\n{shown}");
        }
    }
    let shown = plan(GOOD, &settings()).expect("a plan").describe();
    assert!(
        shown.contains("+1s  f1-hold") && shown.contains("+6s  f1-hold"),
        "{shown}"
    );
}

#[test]
fn a_description_says_what_a_fault_of_the_machine_does_to_whom() {
    for (fault, words) in [
        (
            "{ partition: { peers: [10.0.0.1, 10.1.0.0/16], of: 1, ports: [80, 443], direction: in, action: reject } }",
            "reject packets with 1 of 10.0.0.1, 10.1.0.0/16 on ports 80, 443, coming in",
        ),
        (
            "{ packet_loss: { rate: 25% } }",
            "lose 25% of the packets with everyone, both ways",
        ),
        (
            "{ throttle: { interface: eth0, per_second: 1MiB } }",
            "let `eth0` send 1MiB a second; what would wait longer than 50ms is lost",
        ),
        (
            "{ netem: { interface: eth0, delay: 9ms, jitter: 2ms, loss: 1% } }",
            "of what `eth0` sends: delay by 9ms ± 2ms, lose 1%",
        ),
        (
            "{ cpu_burn: { cores: 50%, load: 90%, pin: true } }",
            "keep 50% of the cores busy for 90% of the time, a worker on each [node lane;",
        ),
        ("{ cpu_burn: { cores: 1 } }", "keep 1 core busy [node lane;"),
        (
            "{ memory_fill: { size: 50%, reserve: 1GiB } }",
            "take up 50% of memory, leaving 1GiB or the usual reserve, whichever is more",
        ),
        (
            "{ disk_fill: { size: 100MiB } }",
            "take up 100MiB of the disk with a file in the folder of its data, leaving the usual reserve",
        ),
        (
            "{ clock_skew: { offset: -1h } }",
            "let the clock be -1h off [node tokens;",
        ),
    ] {
        let text = GOOD.replace("{ hold: {} }", fault);
        let plan = plan(&text, &settings()).unwrap_or_else(|error| panic!("{fault}\n{error}"));
        let shown = plan.describe();
        assert!(shown.contains(words), "`{words}` in\n{shown}");
    }
}

#[test]
fn a_plan_that_was_read_back_has_the_digest_that_it_names_and_an_altered_one_has_not() {
    for (name, text) in library() {
        for quick in [false, true] {
            let odd = &[("bounds.recovery.p99", "7333ms"), ("affected", "33.3%")];
            let settings = Settings { quick, ..set(odd) };
            let planned = plan(text, &settings).expect("a plan");
            let written = serde_json::to_string_pretty(&planned).expect("JSON");
            let mut read: scenarios::plan::Plan = serde_json::from_str(&written).expect("a plan");
            assert_eq!(read.computed_digest(), planned.digest, "{name}");
            read.criteria.deadline = Span::from_secs(3600);
            assert_ne!(read.computed_digest(), planned.digest, "{name}");
        }
    }
}

#[test]
fn a_target_that_cuts_nobody_off_at_an_expiry_is_not_asked_how_soon_that_is_noticed() {
    for (scenario, kind, judged) in [
        ("token-expiry-storm", Kind::Embedded, true),
        ("token-expiry-storm", Kind::Spacetimedb, false),
        ("restart", Kind::Spacetimedb, true),
    ] {
        let text = scenarios::library::source(scenario).expect("it is in the library");
        let settings = Settings {
            kind,
            ..Settings::new(Lane::Spacetime, 1)
        };
        let plan = plan(text, &settings).expect("a plan");
        assert_eq!(
            plan.criteria.bounds.contains_key(&Phase::Detect),
            judged,
            "{scenario} on {kind}"
        );
        assert_eq!(plan.target.kind, kind);
    }
}
