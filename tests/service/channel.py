"""One client's connection: Phoenix frames on the channel `sync:v1`, a queue of what it is sent, and its clocks."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Iterable

import websocket
from journal import Event, Stream
from tokens import Claims, Denied, grants
from topics import stream_of, tier, topic_of

if TYPE_CHECKING:
    from khala import Service

CHANNEL, PHOENIX = "sync:v1", "phoenix"
SCHEMA_VERSION = 1
SNAPSHOT_FORMAT = "openagents.sync.snapshot.v1"
BATCH, LARGEST_BATCH = 200, 1000
# Live messages that may wait for a client at each of its three strikes.
QUEUE_LIMIT, STRIKES, RECONNECT_AFTER_MS = 2000, 3, 2000
CLOSE_WITHIN = 1.0

def push(join_ref: str | None, event: str, payload: str) -> str:
    return f'[{json.dumps(join_ref)},null,"{CHANNEL}","{event}",{payload}]'


def sync_frame(join_ref: str | None, topic: str, seq: int, kind: str, payload: str) -> str:
    body = {
        "topic": topic,
        "seq": seq,
        "kind": f"KHALA_FRAME_KIND_{kind}",
        "payload_bytes": base64.b64encode(payload.encode()).decode(),
        "schema_version": SCHEMA_VERSION,
    }
    return push(join_ref, "sync:frame", json.dumps(body))


def batch(join_ref: str | None, topic: str, events: list[Event], head: int, complete: bool) -> list[bytes]:
    """Updates in both framings. Payloads are JSON already."""
    updates = []
    for event in events:
        update = {
            "topic": topic,
            "doc_key": f"{topic}/{event.seq}",
            "doc_version": event.seq,
            "payload_hash": event.hash,
            "watermark": event.seq,
            "hydration_required": False,
        }
        updates.append(f'{json.dumps(update)[:-1]},"payload":{event.payload}}}')
    heads = json.dumps([{"topic": topic, "watermark": head}])
    body = (
        f'{{"updates":[{",".join(updates)}],"replay_complete":{json.dumps(complete)},"head_watermarks":{heads}}}'
    )
    last = events[-1].seq if events else head
    framings = (push(join_ref, "sync:update_batch", body), sync_frame(join_ref, topic, last, "UPDATE_BATCH", body))
    return [websocket.text(framing) for framing in framings]


class Channel:
    def __init__(self, service: Service, claims: Claims, writer: asyncio.StreamWriter) -> None:
        self.service, self.claims, self.writer = service, claims, writer
        self.id = secrets.token_hex(6)
        self.refused_from = service.tokens.refused_from(claims)
        self.join_ref: str | None = None
        self.topics: dict[str, str] = {}
        self.outbox: deque[bytes] = deque()
        self.live = 0
        self.strikes = 0
        self.wake = asyncio.Event()
        self.goodbye: bytes | None = None
        self.heard = time.monotonic()

    async def serve(self, reader: asyncio.StreamReader) -> None:
        receiving = asyncio.create_task(self.receive(reader))
        watching = asyncio.create_task(self.watch())
        try:
            await self.send()
            # The client's own close is waited for: to hang up first could take the last words back.
            await receiving
        finally:
            self.unsubscribe(list(self.topics))
            receiving.cancel()
            watching.cancel()

    async def send(self) -> None:
        while True:
            while self.outbox:
                if self.writer.transport.is_closing():
                    return
                self.writer.write(self.outbox.popleft())
                self.live = min(self.live, len(self.outbox))
                await self.writer.drain()
            if self.goodbye is not None:
                self.writer.write(self.goodbye)
                return await self.writer.drain()
            await self.wake.wait()
            self.wake.clear()

    async def receive(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                message = await websocket.read_message(reader, self.writer)
                if self.goodbye is None:
                    self.request(message)
        except websocket.Closed:
            self.end(websocket.NORMAL, "")
        except websocket.Violation as violation:
            self.end(violation.code, violation.reason)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.writer.transport.abort()
            self.end(websocket.NORMAL, "")

    async def watch(self) -> None:
        """The tick, the end of a client that is silent, and that of a token."""
        tick = time.monotonic() + self.service.tick
        while self.goodbye is None:
            left = min(tick - time.monotonic(), self.refused_from - time.time())
            await asyncio.sleep(max(left, 0.001))
            if time.time() >= self.refused_from:
                self.expire()
            elif time.monotonic() - self.heard > self.service.idle:
                self.end(websocket.NORMAL, "heartbeat_timeout")
            elif time.monotonic() >= tick:
                tick += self.service.tick
                self.tick()

    def tick(self) -> None:
        self.put(websocket.frame(websocket.PING, b"tick"))
        if self.join_ref is not None:
            now = json.dumps({"server_time_unix_ms": int(time.time() * 1000)})
            self.say(push(self.join_ref, "sync:heartbeat", now))
            self.say(sync_frame(self.join_ref, CHANNEL, 0, "HEARTBEAT", now))

    def expire(self) -> None:
        self.end(websocket.POLICY, "token_expired", {"code": "unauthorized", "message": "token_expired"})

    def end(self, code: int, reason: str, error: dict[str, Any] | None = None) -> None:
        """Nothing follows but the error and the close."""
        if self.goodbye is None:
            self.outbox.clear()
            if error:
                self.say(push(self.join_ref, "sync:error", json.dumps(error)))
            self.goodbye = websocket.close(code, reason)
            self.wake.set()
            # A client that does not read cannot hold the connection.
            asyncio.get_running_loop().call_later(CLOSE_WITHIN, self.writer.transport.abort)

    def put(self, message: bytes) -> None:
        if self.goodbye is None:
            self.outbox.append(message)
            self.wake.set()

    def say(self, message: str) -> None:
        self.put(websocket.text(message))

    def deliver(self, framings: Iterable[bytes]) -> None:
        """A live update. A replay makes nobody slow, only what piles up behind it."""
        if time.time() >= self.refused_from:
            return self.expire()
        for framing in framings:
            self.live += 1
            self.put(framing)
        if self.live > (self.strikes + 1) * QUEUE_LIMIT:
            self.strikes += 1
            last = self.strikes == STRIKES
            error = {
                "code": "slow_consumer",
                "message": "updates are read too slowly",
                "action": "disconnect" if last else "throttle",
                "queue_depth": self.live,
                "queue_limit": QUEUE_LIMIT,
                "reconnect_after_ms": RECONNECT_AFTER_MS,
                "full_resync_required": False,
            }
            if last:
                self.end(websocket.POLICY, "slow_consumer", error)
            else:
                self.say(push(self.join_ref, "sync:error", json.dumps(error)))

    def request(self, message: str) -> None:
        try:
            join_ref, ref, topic, event, payload = json.loads(message)
        except (ValueError, TypeError):
            return self.end(websocket.UNSUPPORTED, "not a frame of five")

        def reply(response: dict[str, Any], status: str = "ok") -> None:
            body = {"response": response, "status": status}
            self.say(json.dumps([join_ref, ref, topic, "phx_reply", body]))

        if (topic, event) == (PHOENIX, "heartbeat"):
            self.heard = time.monotonic()
            reply({})
        elif topic != CHANNEL:
            reply({"code": "bad_subscription", "message": f"there is no channel {topic}"}, "error")
        elif event == "phx_join":
            self.join_ref = join_ref
            topics = [topic for stream in self.claims["oa_sync_streams"] if (topic := topic_of(stream))]
            reply({"subscription_id": self.id, "allowed_topics": topics, "current_watermarks": self.heads(topics)})
        elif self.join_ref is None:
            reply({"code": "bad_subscription", "message": "join the channel first"}, "error")
        elif event == "sync:heartbeat":
            self.heard = time.monotonic()
            reply({})
        elif event == "sync:subscribe":
            try:
                reply(self.subscribe(payload))
            except Denied as denied:
                reply({"code": denied.reason, "message": denied.reason}, "error")
            except Stale as stale:
                body = json.dumps(stale.body)
                self.say(push(self.join_ref, "sync:error", body))
                self.say(sync_frame(self.join_ref, CHANNEL, 0, "ERROR", body))
                reply(stale.body, "error")
        elif event == "sync:unsubscribe":
            self.unsubscribe(payload.get("topics", []))
            reply({})
        elif event == "phx_leave":
            self.unsubscribe(list(self.topics))
            reply({})
            self.say(push(self.join_ref, "phx_close", "{}"))
            self.join_ref = None
        else:
            reply({"code": "bad_subscription", "message": f"{event} is not known"}, "error")

    def subscribe(self, asked: Any) -> dict[str, Any]:
        """Queues the replay and subscribes in one step, so that what is published next follows it."""
        try:
            topics = [str(topic) for topic in asked["topics"]]
            resume = asked.get("resume_after") or {}
            if isinstance(resume, list):
                resume = {entry["topic"]: entry["watermark"] for entry in resume}
            cursors = {topic: int(resume[topic]) if topic in resume else None for topic in topics}
            size = min(max(int(asked.get("replay_batch_size", BATCH)), 1), LARGEST_BATCH)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise Denied("bad_subscription") from None
        if not topics:
            raise Denied("bad_subscription")
        if not all(grants(self.claims, stream_of(topic)) for topic in topics):
            raise Denied("forbidden_topic")
        streams = {topic: self.service.journal.stream(stream_of(topic)) for topic in topics}
        stale = [
            answer
            for topic, cursor in cursors.items()
            if cursor is not None and (answer := self.stale(topic, streams[topic], cursor))
        ]
        if stale:
            raise Stale(stale, streams)
        for topic, stream in streams.items():
            events = list(stream.after(cursors[topic] or 0))
            batches = [events[at : at + size] for at in range(0, len(events), size)] or [[]]
            for number, part in enumerate(batches, 1):
                for framing in batch(self.join_ref, topic, part, stream.head, number == len(batches)):
                    self.put(framing)
            self.topics[topic] = stream_of(topic)
            self.service.subscribers.setdefault(stream_of(topic), {})[self] = topic
        body = {"subscription_id": self.id, "topics": list(self.topics), "current_watermarks": self.heads(topics)}
        self.say(sync_frame(self.join_ref, CHANNEL, 0, "SUBSCRIBED", json.dumps(body)))
        return body

    def stale(self, topic: str, stream: Stream, cursor: int) -> dict[str, Any] | None:
        qos, budget = tier(topic)
        budget = self.service.budget(stream_of(topic)) or budget
        if cursor > stream.head:
            reason = "cursor_ahead_of_head"
        elif cursor < stream.floor:
            reason = "retention_floor_breach"
        elif stream.head - cursor > budget:
            reason = "replay_budget_exceeded"
        else:
            return None
        return {
            "topic": topic,
            "reason": reason,
            "qos_tier": qos,
            "resume_after": cursor,
            "retention_floor": stream.floor,
            "head_watermark": stream.head,
            "replay_lag": max(stream.head - cursor, 0),
            "replay_budget_events": budget,
        }

    def unsubscribe(self, topics: list[str]) -> None:
        for topic in topics:
            if stream := self.topics.pop(topic, None):
                self.service.subscribers[stream].pop(self, None)

    def heads(self, topics: Iterable[str]) -> list[dict[str, Any]]:
        journal = self.service.journal
        return [{"topic": topic, "watermark": journal.stream(stream_of(topic)).head} for topic in topics]


class Stale(Exception):
    """Cursors that cannot be resumed from, and what to begin anew from."""

    def __init__(self, topics: list[dict[str, Any]], streams: dict[str, Stream]) -> None:
        snapshots = [
            {
                "topic": stale["topic"],
                "head_watermark": stale["head_watermark"],
                "snapshot": streams[stale["topic"]].snapshot(),
            }
            for stale in topics
        ]
        self.body = {
            "code": "stale_cursor",
            "message": "the cursors cannot be resumed from",
            "full_resync_required": True,
            "reason_codes": sorted({stale["reason"] for stale in topics}),
            "stale_topics": topics,
            "snapshot_plan": {"format": SNAPSHOT_FORMAT, "topics": snapshots},
        }
