//! Byte counters in Prometheus' text format. They are those of the planes themselves, and live.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use super::named::{Named, toxic};
use crate::status::Counters;
use crate::tap::Way;
use crate::threads;

type Count = fn(&Counters, Way) -> &AtomicU64;

const COUNTERS: [(&str, &str, Count); 2] = [
    (
        "toxiproxy_proxy_received_bytes_total",
        "Bytes read from clients (upstream) and upstreams (downstream)",
        Counters::received,
    ),
    (
        "toxiproxy_proxy_sent_bytes_total",
        "Bytes passed on to upstreams (upstream) and clients (downstream)",
        Counters::bytes,
    ),
];

/// The counters of these proxies.
pub(super) fn text(proxies: &BTreeMap<String, Named>) -> String {
    let mut text = String::new();
    for (name, help, count) in COUNTERS {
        line(&mut text, format_args!("# HELP {name} {help}"));
        line(&mut text, format_args!("# TYPE {name} counter"));
        for proxy in proxies.values() {
            for way in [Way::Downstream, Way::Upstream] {
                let value = count(&proxy.plane().counters, way).load(Ordering::Relaxed);
                let labels = format_args!(
                    "direction=\"{}\",listener=\"{}\",proxy=\"{}\",upstream=\"{}\"",
                    way.name(),
                    escaped(proxy.listen()),
                    escaped(proxy.name()),
                    escaped(proxy.upstream()),
                );
                line(&mut text, format_args!("{name}{{{labels}}} {value}"));
            }
        }
    }
    let name = "faultlane_proxy_connections";
    line(&mut text, format_args!("# HELP {name} Open connections"));
    line(&mut text, format_args!("# TYPE {name} gauge"));
    for (proxy, open) in proxies.values().map(|proxy| (proxy, proxy.plane().open())) {
        let proxy = escaped(proxy.name());
        line(
            &mut text,
            format_args!("{name}{{proxy=\"{proxy}\"}} {open}"),
        );
    }
    let tasks = threads::tasks();
    let name = "faultlane_tasks";
    line(
        &mut text,
        format_args!("# HELP {name} Tasks of this process"),
    );
    line(&mut text, format_args!("# TYPE {name} gauge"));
    line(&mut text, format_args!("{name} {tasks}"));
    acts(&mut text, proxies);
    text
}

/// What toxics have done since they came or were changed; workers keep it to themselves.
fn acts(text: &mut String, proxies: &BTreeMap<String, Named>) {
    const NAME: &str = "faultlane_toxic_acts_total";
    line(
        text,
        format_args!(
            "# HELP {NAME} What a toxic did: pieces, bits, messages; and messages that it could not act on or read (spared)"
        ),
    );
    line(text, format_args!("# TYPE {NAME} counter"));
    let here = proxies.values().filter(|proxy| !proxy.plane().is_relayed());
    for proxy in here {
        for rule in &proxy.plane().rules().list {
            let Some(toxic) = toxic(rule) else {
                continue;
            };
            let counts = [("acted", &rule.bites.acts), ("spared", &rule.bites.spared)];
            for (outcome, count) in counts {
                let labels = format_args!(
                    "outcome=\"{outcome}\",proxy=\"{}\",toxic=\"{}\"",
                    escaped(proxy.name()),
                    escaped(&toxic.name),
                );
                let value = count.load(Ordering::Relaxed);
                line(text, format_args!("{NAME}{{{labels}}} {value}"));
            }
        }
    }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a string takes whatever is written to it");
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
