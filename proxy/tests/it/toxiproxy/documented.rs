//! Every toxic has a page, and every attribute a line on it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/toxics")
}

#[test]
fn the_schema_file_is_current() {
    let path = docs().join("schema.json");
    let current = format!("{:#}\n", proxy::toxiproxy::schema());
    if std::env::var_os("FAULTLANE_WRITE_SCHEMA").is_some() {
        fs::write(&path, &current).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap() == current,
        "run this test with FAULTLANE_WRITE_SCHEMA=1 and commit {}",
        path.display()
    );
}

#[test]
fn every_toxic_has_a_page_with_its_attributes_and_a_line_in_the_table() {
    let Value::Object(schemas) = proxy::toxiproxy::schema() else {
        panic!("an object");
    };
    assert!(schemas.len() >= 15);
    let table = fs::read_to_string(docs().join("../toxics.md")).unwrap();
    for (name, schema) in schemas {
        let page = fs::read_to_string(docs().join(format!("{name}.md"))).unwrap();
        assert!(
            page.starts_with('#') && page.contains(&format!("`{name}`")),
            "{name}"
        );
        assert!(
            table.contains(&format!("[`{name}`](toxics/{name}.md)")),
            "{name} in the table"
        );
        for attribute in schema["properties"].as_object().into_iter().flatten() {
            assert!(
                page.contains(&format!("| `{}` |", attribute.0)),
                "{name}: {}",
                attribute.0
            );
        }
    }
}
