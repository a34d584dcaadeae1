"""Topics, as clients name them, and the streams behind them."""

from __future__ import annotations

import re

TOPICS = (
    (r"run:(.+):events", "runtime.run.{}.events"),
    (r"worker:(.+):lifecycle", "runtime.worker.{}.lifecycle"),
    (r"fleet:user:(.+):workers", "runtime.fleet.user.{}.workers"),
    (r"fleet:guest:(.+):workers", "runtime.fleet.guest.{}.workers"),
)
WORKER_EVENTS = ("runtime.codex_worker_events", "runtime.codex.worker.events")
OTHERS = "runtime.topic."


def stream_of(topic: str) -> str:
    if topic == WORKER_EVENTS[0]:
        return WORKER_EVENTS[1]
    for pattern, stream in TOPICS:
        if found := re.fullmatch(pattern, topic):
            return stream.format(found[1])
    return OTHERS + topic.replace(":", ".")


def topic_of(stream: str) -> str | None:
    if stream == WORKER_EVENTS[1]:
        return WORKER_EVENTS[0]
    for pattern, name in TOPICS:
        if found := re.fullmatch(re.escape(name).replace(r"\{\}", "(.+)"), stream):
            return pattern.replace("(.+)", found[1])
    return stream[len(OTHERS) :] if stream.startswith(OTHERS) else None


def tier(topic: str) -> tuple[str, int]:
    """A topic's class of service, and its replay budget in events."""
    if topic.startswith("run:") or topic.endswith("_summaries"):
        return "run_events", 20_000
    if topic.startswith("worker:"):
        return "lifecycle", 10_000
    return ("codex_events", 3_000) if topic == WORKER_EVENTS[0] else ("standard", 500)
