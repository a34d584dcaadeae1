//! Byte counters in Prometheus' text format. They are those of the planes themselves, and live.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use super::named::Named;
use crate::status::Counters;
use crate::tap::Way;

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
    let tasks = tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks();
    let name = "faultlane_tasks";
    line(
        &mut text,
        format_args!("# HELP {name} Tasks of this process"),
    );
    line(&mut text, format_args!("# TYPE {name} gauge"));
    line(&mut text, format_args!("{name} {tasks}"));
    text
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
