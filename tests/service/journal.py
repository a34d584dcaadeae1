"""The log: streams of events in a file of JSON lines, on disk before anybody hears of them, read back at start."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterator


class Conflict(Exception):
    def __init__(self, expected: int, actual: int) -> None:
        super().__init__(f"sequence_conflict expected_next_seq={expected} actual_next_seq={actual}")


@dataclass
class Event:
    stream: str
    seq: int
    key: str
    hash: str
    payload: str
    durable: asyncio.Future[None] | None = None


@dataclass
class Stream:
    """Its events by seq. Removed ones leave a hole; their seqs are not used again."""

    events: dict[int, Event] = field(default_factory=dict)
    keys: dict[str, Event] = field(default_factory=dict)
    # What has been given out, and what of it is on disk.
    reserved: int = 0
    head: int = 0
    # How many of the newest are replayed; 0 for all.
    retention: int = 0

    @property
    def floor(self) -> int:
        """The oldest that can be replayed, less one."""
        return max(self.head - self.retention, 0) if self.retention else 0

    def after(self, cursor: int) -> Iterator[Event]:
        seqs = range(max(cursor, self.floor) + 1, self.head + 1)
        return (self.events[seq] for seq in seqs if seq in self.events)

    def snapshot(self) -> dict[str, Any]:
        """Everything up to the head: how many, and the chain of their hashes."""
        count, digest = 0, ""
        for seq in range(1, self.head + 1):
            if event := self.events.get(seq):
                count, digest = count + 1, hashlib.sha256((digest + event.hash).encode()).hexdigest()
        return {"count": count, "digest": digest}


class Journal:
    def __init__(self, path: Path, retention: Callable[[str], int], publish: Callable[[Event], None]) -> None:
        self.streams: dict[str, Stream] = {}
        self.retention, self.publish = retention, publish
        self.waiting: list[tuple[str, Callable[[], None]]] = []
        self.due = asyncio.Event()
        self.read(path)
        self.file = open(path, "ab")

    def stream(self, name: str) -> Stream:
        if name not in self.streams:
            self.streams[name] = Stream(retention=self.retention(name))
        return self.streams[name]

    def read(self, path: Path) -> None:
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        # A line that a crash cut off was never acknowledged.
        if lines and not lines[-1].endswith(b"\n"):
            torn = lines.pop()
            os.truncate(path, path.stat().st_size - len(torn))
        for line in lines:
            record = json.loads(line)
            if "remove" in record:
                self.forget(record["stream"], record["remove"])
                continue
            event = Event(**record)
            stream = self.stream(event.stream)
            stream.events[event.seq] = stream.keys[event.key] = event
            stream.head = stream.reserved = event.seq

    async def append(self, name: str, key: str, hashed: str, payload: str, expected: int) -> tuple[int, bool]:
        """The event's seq, and whether its key was known: idempotency comes first, then the order."""
        stream = self.stream(name)
        if known := stream.keys.get(key):
            if known.durable:
                await asyncio.shield(known.durable)
            return known.seq, True
        if expected not in (0, stream.reserved + 1):
            raise Conflict(expected, stream.reserved + 1)
        stream.reserved += 1
        event = Event(name, stream.reserved, key, hashed, payload, asyncio.get_running_loop().create_future())
        stream.keys[key] = event
        record = {"stream": name, "seq": event.seq, "key": key, "hash": hashed, "payload": payload}

        def durable() -> None:
            stream.events[event.seq], stream.head = event, event.seq
            self.publish(event)
            assert event.durable
            event.durable.set_result(None)
            event.durable = None

        await self.write(record, durable)
        return event.seq, False

    async def remove(self, name: str, keys: list[str]) -> int:
        stream = self.stream(name)
        held = [key for key in keys if key in stream.keys and not stream.keys[key].durable]
        await self.write({"stream": name, "remove": held}, lambda: self.forget(name, held))
        return len(held)

    def forget(self, name: str, keys: list[str]) -> None:
        stream = self.stream(name)
        for key in keys:
            if event := stream.keys.pop(key, None):
                stream.events.pop(event.seq, None)

    async def write(self, record: dict[str, Any], then: Callable[[], None]) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def durable() -> None:
            then()
            done.set_result(None)

        self.waiting.append((json.dumps(record), durable))
        self.due.set()
        # Whoever asked may go away meanwhile; what is written is written.
        await asyncio.shield(done)

    async def commit(self) -> None:
        """Writes what waits, all of it with one fsync, for as long as the service runs."""
        loop = asyncio.get_running_loop()
        while True:
            await self.due.wait()
            self.due.clear()
            batch, self.waiting = self.waiting, []
            lines = "".join(f"{line}\n" for line, _ in batch).encode()
            await loop.run_in_executor(None, self.sync, lines)
            for _, durable in batch:
                durable()

    def sync(self, lines: bytes) -> None:
        try:
            self.file.write(lines)
            self.file.flush()
            os.fsync(self.file.fileno())
        except OSError as error:
            # What became of these events is not known: to go on and answer would be a guess.
            os.write(2, f"the log cannot be written: {error}\n".encode())
            os._exit(1)
