#!/usr/bin/env python3
"""A sync service that knows nothing of faultlane: the khala lane, written from its wire contract.

    python3 khala.py --data DIR --session-secret S --publish-secret P --token-secret T \
        [--cert chain.pem --key key.pem] [--port 0] [--prefix /eu] [--org acme='runtime.run.*'] …

It stands for somebody's own service in the tests, and for a first drill of one's own (docs/targets.md). Python 3.10 or
newer and its standard library, nothing else. Everything is on one port of the loopback, in TLS where a certificate is
given:

    GET  /sync/socket/websocket   the channel: Phoenix frames in WebSocket messages
    POST /api/sync/token          tokens, for who presents the session secret
    POST /internal/sync/append    publishing, for who presents the publish secret or a token with the scope
    GET  /internal/sync/head      a stream's newest seq and its floor
    POST /internal/sync/remove    takes events back by their keys; their seqs are not used again

An event is in the log and on disk before it is acknowledged or delivered. A connection is closed when its token's
expiry and the skew are over. Tokens cannot be revoked, and nobody's rate is limited.

It prints {"port": N} when it listens, and ends when its stdin does.

    khala.py   the service and its HTTP calls      channel.py   one client's connection      journal.py   the log
    tokens.py  JWTs      topics.py  what streams are called      websocket.py  RFC 6455
"""

from __future__ import annotations

import argparse
import asyncio
import fnmatch
import hashlib
import hmac
import json
import logging
import secrets
import ssl
import sys
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import tokens
import websocket
from channel import SCHEMA_VERSION, Channel, batch
from journal import Conflict, Event, Journal
from tokens import Denied, Tokens
from topics import stream_of

SOCKET = "/sync/socket/websocket"
VSN, PROTOCOL = "2.0.0", "khala.ws.v1"
LONGEST_BODY = 4 << 20

Headers = dict[str, str]
Query = dict[str, str]


class Refused(Exception):
    """An answer that is not 200."""

    def __init__(self, status: int, error: str, **more: Any) -> None:
        super().__init__(error)
        self.status, self.body = status, {"error": error, **more}


class Service:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.tick, self.idle = options.tick, options.idle
        self.tokens = Tokens(options.token_secret, "https://sync.example.test", options.skew, options.shortest_ttl)
        self.orgs = dict(org.split("=", 1) for org in options.org) or {"acme": "*"}
        self.windows: dict[str, tuple[int, int]] = {}
        for window in options.window:
            stream, _, numbers = window.partition("=")
            retention, _, budget = numbers.partition(":")
            self.windows[stream] = int(retention), int(budget)
        self.subscribers: dict[str, dict[Channel, str]] = {}
        options.data.mkdir(parents=True, exist_ok=True)
        self.journal = Journal(options.data / "log.jsonl", self.retention, self.publish)

    def retention(self, stream: str) -> int:
        return self.windows.get(stream, (0, 0))[0]

    def budget(self, stream: str) -> int:
        return self.windows.get(stream, (0, 0))[1]

    def publish(self, event: Event) -> None:
        """To all subscribers; those who are told the same in the same words share the bytes."""
        made: dict[tuple[str, str | None], list[bytes]] = {}
        for channel, topic in list(self.subscribers.get(event.stream, {}).items()):
            words = topic, channel.join_ref
            if words not in made:
                made[words] = batch(channel.join_ref, topic, [event], event.seq, True)
            channel.deliver(made[words])

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self.exchange(reader, writer):
                pass
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, ssl.SSLError):
            pass
        except asyncio.CancelledError:
            # The service ends, and with it every connection: nobody waits for this one.
            pass
        finally:
            writer.close()

    async def exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether another may follow on the connection."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        try:
            method, target, _ = head[0].split(" ")
            headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in head[1:-2])}
            length = int(headers.get("content-length", "0"))
            if not 0 <= length <= LONGEST_BODY:
                raise ValueError
        except ValueError:
            writer.write(answer(400, {"error": "bad_request"}, close=True))
            return False
        body = await reader.readexactly(length)
        url = urlsplit(target)
        path, query = url.path, dict(parse_qsl(url.query))
        try:
            if not path.startswith(self.options.prefix):
                raise Refused(404, f"there is nothing at {path}")
            path = path[len(self.options.prefix) :]
            if path == SOCKET:
                await self.upgrade(headers, query, reader, writer)
                return False
            status, said = 200, await self.call(method, path, headers, query, body)
        except Denied as denied:
            status, said = denied.status, {"error": denied.reason}
        except Refused as refused:
            status, said = refused.status, refused.body
        keep = headers.get("connection", "").lower() != "close"
        writer.write(answer(status, said, close=not keep))
        await writer.drain()
        return keep

    async def upgrade(
        self, headers: Headers, query: Query, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if "websocket" not in headers.get("upgrade", "").lower() or headers.get("sec-websocket-version") != "13":
            raise Refused(426, "a WebSocket upgrade is expected")
        if (origin := headers.get("origin")) and origin not in self.options.origin:
            raise Denied("origin_not_allowed", 403)
        window = {"vsn": VSN, "protocol_version": PROTOCOL, "schema_version": str(SCHEMA_VERSION)}
        for parameter, supported in window.items():
            if query.get(parameter, supported if parameter != "vsn" else "") != supported:
                what = "upgrade_required" if parameter == "vsn" else f"unsupported_{parameter}"
                raise Refused(400, what, supported=window)
        claims = self.tokens.check(query.get("token"), tokens.SUBSCRIBE)
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
            + f"sec-websocket-accept: {websocket.accept_key(headers.get('sec-websocket-key', ''))}\r\n\r\n".encode()
        )
        await Channel(self, claims, writer).serve(reader)

    async def call(self, method: str, path: str, headers: Headers, query: Query, body: bytes) -> dict[str, Any]:
        bearer = headers.get("authorization", "").removeprefix("Bearer").strip()
        match method, path:
            case "POST", "/api/sync/token":
                return {"data": self.token(bearer, read(body))}
            case "POST", "/internal/sync/append":
                return await self.append(bearer, body)
            case "GET", "/internal/sync/head":
                name = query.get("stream_id", "")
                self.allow(bearer, tokens.SUBSCRIBE, name)
                stream = self.journal.stream(name)
                return {"head": stream.head, "floor": stream.floor}
            case "POST", "/internal/sync/remove":
                self.allow(bearer)
                asked = read(body)
                return {"removed": await self.journal.remove(asked["stream_id"], asked["idempotency_keys"])}
        raise Refused(404, f"there is no {method} {path}")

    def allow(self, bearer: str, scope: str | None = None, stream: str | None = None) -> None:
        """The publish secret opens everything; a token what it is for."""
        if hmac.compare_digest(bearer.encode(), self.options.publish_secret.encode()):
            return
        if bearer and (scope is None or bearer.count(".") != 2):
            raise Denied("unauthorized")
        claims = self.tokens.check(bearer, scope)
        if stream is not None and not tokens.grants(claims, stream):
            raise Denied("forbidden_topic", 403)

    def token(self, bearer: str, asked: dict[str, Any]) -> dict[str, Any]:
        if not hmac.compare_digest(bearer.encode(), self.options.session_secret.encode()):
            raise Denied("unauthorized")
        if (device := str(asked.get("device_id"))) in self.options.refuse_device:
            # As services do that help by saying what they were sent.
            raise Refused(401, f"bad session {bearer} of {device}")
        org = asked.get("org") or next(iter(self.orgs))
        if unknown := [scope for scope in asked.get("scopes", []) if scope not in tokens.SCOPES]:
            raise Refused(422, "invalid_scope", scopes=unknown)
        streams = [*asked.get("streams", []), *map(stream_of, asked.get("topics", []))]
        own = self.orgs.get(org, "").split(",")
        for stream in streams:
            if not any(fnmatch.fnmatchcase(stream, pattern) for pattern in own):
                raise Refused(403, "forbidden_stream", stream=stream)
        return self.tokens.issue(org, asked, streams)

    async def append(self, bearer: str, body: bytes) -> dict[str, Any]:
        # Who is nobody is told so, whatever he sends.
        self.allow(bearer, tokens.APPEND)
        asked = read(body)
        self.allow(bearer, tokens.APPEND, asked.get("stream_id", ""))
        try:
            stream, key, payload = asked["stream_id"], asked["idempotency_key"], asked["payload_json"]
            parsed, expected = json.loads(payload), int(asked.get("expected_next_seq", 0))
        except (KeyError, TypeError, ValueError):
            raise Refused(422, "invalid_event") from None
        if asked.get("payload_hash") != hash_of(parsed):
            raise Refused(422, "payload_hash_mismatch")
        try:
            seq, duplicate = await self.journal.append(stream, key, asked["payload_hash"], payload, expected)
        except Conflict as conflict:
            raise Refused(409, str(conflict)) from None
        return {"seq": seq, "duplicate": duplicate}

    async def write_as_another(self, stream: str, rate: float) -> None:
        """Somebody else who publishes to a stream, too."""
        for number in range(sys.maxsize):
            await asyncio.sleep(1 / rate)
            payload = {"author": "somebody else", "number": number}
            await self.journal.append(stream, secrets.token_hex(8), hash_of(payload), canonical(payload), 0)


def canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def hash_of(value: Any) -> str:
    return "sha256:" + hashlib.sha256(canonical(value).encode()).hexdigest()


def read(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Refused(400, "the body is not a JSON object")
    return value


def answer(status: int, said: dict[str, Any], close: bool) -> bytes:
    body = json.dumps(said).encode()
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
    head += f"connection: {'close' if close else 'keep-alive'}\r\n"
    if status == 200:
        return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
    # As gateways do that write their error pages while they go.
    return f"{head}transfer-encoding: chunked\r\n\r\n{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"


def parsed_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A sync service that speaks the khala lane.")
    add = parser.add_argument
    add("--data", type=Path, required=True, help="the folder of the log")
    add("--port", type=int, default=0)
    add("--cert", help="PEM: the certificate chain; with --key, everything is TLS")
    add("--key", help="PEM: the private key")
    add("--prefix", default="", help="what stands before every path")
    add("--session-secret", required=True, help="what is presented for tokens")
    add("--publish-secret", required=True, help="what publishers present")
    add("--token-secret", required=True, help="what tokens are signed by")
    add("--org", action="append", default=[], metavar="NAME=PATTERN[,…]", help="an organisation and its streams")
    add("--origin", action="append", default=[], help="an Origin that may connect")
    add("--window", action="append", default=[], metavar="STREAM=RETENTION:BUDGET", help="in events")
    add("--shortest-ttl", type=int, default=tokens.SHORTEST, metavar="SECONDS", help="a request for less gets this")
    add("--refuse-device", action="append", default=[], metavar="ID", help="gets no token, and what it presented told")
    add("--skew", type=int, default=30, metavar="SECONDS", help="how far tokens' clocks may be off")
    add("--tick", type=float, default=15, metavar="SECONDS")
    add("--idle", type=float, default=60, metavar="SECONDS", help="a connection without heartbeats lives so long")
    add("--foreign-writer", action="append", default=[], metavar="STREAM:RATE", help="another publisher's events")
    return parser.parse_args()


async def main() -> None:
    options = parsed_options()
    # That a client went away while something was on its way to it is no news.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    service = Service(options)
    context = None
    if options.cert:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(options.cert, options.key)
        context.set_alpn_protocols(["http/1.1"])
    server = await asyncio.start_server(service.connection, "127.0.0.1", options.port, ssl=context, backlog=4096)
    tasks = [asyncio.create_task(service.journal.commit())]
    for writer in options.foreign_writer:
        stream, _, rate = writer.rpartition(":")
        tasks.append(asyncio.create_task(service.write_as_another(stream, float(rate))))
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
