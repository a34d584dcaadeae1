//! What the documentation says must be true of the language.

use model::defect::Defect;
use scenarios::schema;

use crate::support::{docs, parse, plan, settings, source};

/// The first block of YAML in a page.
pub(crate) fn example(page: &str) -> &str {
    let (_, rest) = page.split_once("```yaml\n").expect("an example");
    rest.split_once("```").expect("its end").0
}

fn faults() -> Vec<String> {
    let schema = schema();
    let variants = schema["$defs"]["Fault"]["oneOf"]
        .as_array()
        .expect("variants");
    variants
        .iter()
        .map(|variant| variant["required"][0].as_str().expect("a name").to_owned())
        .collect()
}

#[test]
fn the_example_of_the_language_is_a_scenario_without_warnings() {
    let page = docs("scenarios.md");
    let checked = parse(example(&page)).unwrap_or_else(|error| panic!("{error}"));
    assert!(checked.warnings.is_empty(), "{:?}", checked.warnings);
}

#[test]
fn every_fault_has_a_page_whose_example_is_valid() {
    let (faults, language) = (faults(), docs("scenarios.md"));
    assert_eq!(faults.len(), 24, "{faults:?}");
    for fault in faults {
        let page = docs(&format!("faults/{fault}.md"));
        let timeline = example(&page);
        let text = format!("name: a\ntimeline:\n{timeline}\naffected: 10%\ndeadline: 20s\n");
        let checked = parse(&text).unwrap_or_else(|error| panic!("{fault}\n{error}"));
        assert!(
            checked.warnings.is_empty(),
            "{fault}: {:?}",
            checked.warnings
        );
        let plan = plan(&text, &settings()).expect("a plan");
        assert_eq!(plan.steps[0].fault.name(), fault);
        assert!(
            language.contains(&format!("[{fault}](faults/{fault}.md)")),
            "{fault}"
        );
    }
}

#[test]
fn every_setting_is_in_the_reference() {
    let (schema, language) = (schema(), docs("scenarios.md"));
    let types = [
        "Workload",
        "Target",
        "ProfileChanges",
        "Steady",
        "Entry",
        "BoundsByPhase",
        "Limits",
        "Abort",
    ];
    let fields = types.iter().flat_map(|name| {
        let properties = schema["$defs"][name]["properties"]
            .as_object()
            .unwrap_or_else(|| panic!("{name}"));
        properties.keys().cloned().collect::<Vec<_>>()
    });
    let top = schema["properties"]
        .as_object()
        .expect("properties")
        .keys()
        .cloned();
    for field in fields.chain(top) {
        assert!(
            language.contains(&format!("`{field}`")) || language.contains(&format!("{field}:")),
            "{field}"
        );
    }
}

#[test]
fn the_page_of_external_probes_is_true() {
    let (page, schema) = (docs("external-probes.md"), schema());
    let checked = parse(example(&page)).unwrap_or_else(|error| panic!("{error}"));
    assert!(checked.warnings.is_empty(), "{:?}", checked.warnings);
    assert_eq!(checked.scenario.steady.probes.len(), 2);
    for name in ["AbortProbe", "HttpProbe", "PromqlProbe", "CommandProbe"] {
        let properties = schema["$defs"][name]["properties"].as_object();
        for field in properties.expect(name).keys() {
            assert!(page.contains(&format!("`{field}`")), "{name}.{field}");
        }
    }
    let config = page.rsplit_once("```yaml\n").expect("the last example").1;
    let config = config.split_once("```").expect("its end").0;
    // The program of the example is nobody's; all else of it is as it has to be.
    let config = config.replace("/usr/local/bin/queue-depth", "/bin/sh");
    let config = scenarios::agent_config::parse(&source(&config));
    let config = config.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.commands["queue-depth"].run, ["/bin/sh", "--json"]);
}

#[test]
fn every_defect_is_described_with_its_anomaly_and_scenario() {
    let page = docs("defects.md");
    for defect in Defect::ALL {
        let line = page
            .lines()
            .find(|line| line.starts_with(&format!("| `{defect}` |")))
            .unwrap_or_else(|| panic!("{defect} is not described"));
        assert!(
            line.contains(&format!("| `{}` |", defect.anomaly())),
            "{line}"
        );
        assert!(
            line.ends_with(&format!("| {} |", defect.scenario())),
            "{line}"
        );
    }
}

#[test]
fn the_example_of_an_operated_agent_is_understood() {
    let page = docs("agent.md");
    let config = scenarios::agent_config::parse(&source(example(&page)));
    let config = config.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.listen.as_deref(), Some("10.0.0.5:7400"));
    assert_eq!(config.policy.faults_at_once, Some(2));

    let (_, section) = page.split_once("## Nodes\n").expect("the section");
    // Neither its programs nor systemd are everywhere; all else of it is as it has to be.
    let nodes: String = example(section)
        .replace("/usr/local/bin/db-ctl", "/bin/sh")
        .replace("/usr/local/bin/cache-ctl", "/bin/sh")
        .replace("/usr/bin/pgrep", "/bin/sh")
        .lines()
        .filter(|line| !line.contains("systemd:"))
        .fold(String::new(), |text, line| text + line + "\n");
    let config = scenarios::agent_config::parse(&source(&nodes));
    let config = config.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.nodes["db"].start.as_deref(), Some("start-db"));
    assert_eq!(config.nodes["cache"].pid.as_deref(), Some("cache-pid"));
}
