//! Toxics of a timeline, against the schema that the proxy's own settings give: docs/toxics/schema.json.

use std::sync::LazyLock;

use model::fault::Toxic;
use serde_json::{Map, Value};

use super::Checks;
use crate::typed::nearest;

static SCHEMAS: LazyLock<Map<String, Value>> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../docs/toxics/schema.json"))
        .expect("a test compares it with what the proxy says")
});

pub(super) fn check(checks: &mut Checks<'_>, entry: [&str; 2], toxic: &Toxic) {
    let [timeline, place] = entry;
    let at = [timeline, place, "fault", "toxic"];
    let Some(schema) = SCHEMAS.get(&toxic.kind) else {
        let known: Vec<&str> = SCHEMAS.keys().map(String::as_str).collect();
        let message = format!("there is no toxic `{}`", toxic.kind);
        checks.error(
            &[&at[..], &["type"]].concat(),
            message,
            nearest(&toxic.kind, &known),
        );
        return;
    };
    let known: Vec<&str> = schema["properties"]
        .as_object()
        .into_iter()
        .flat_map(|properties| properties.keys().map(String::as_str))
        .collect();
    for key in toxic.attributes.keys() {
        if !known.contains(&key.as_str()) {
            let message = format!("`{}` has no attribute `{key}`", toxic.kind);
            let path = [&at[..], &["attributes", key]].concat();
            checks.key_error(&path, message, nearest(key, &known));
        }
    }
    let validator = jsonschema::validator_for(schema).expect("it comes from types");
    let attributes = Value::Object(toxic.attributes.clone());
    for mistake in validator.iter_errors(&attributes) {
        let place = mistake.instance_path.to_string();
        let segments: Vec<&str> = place
            .split('/')
            .filter(|segment| !segment.is_empty())
            .collect();
        let path = [&at[..], &["attributes"], &segments[..]].concat();
        let hint = format!("see docs/toxics/{}.md", toxic.kind);
        checks.error(&path, format!("`{}`: {mistake}", toxic.kind), hint);
    }
}
