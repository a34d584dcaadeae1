#!/usr/bin/env python3
"""Record what a real SpacetimeDB 1.3.0 with the sync module sends, as golden frames for the codec tests.

    capture.py --server PATH/spacetimedb-standalone --module module.wasm

Writes spacetime/<name>.json beside this file: server messages as they came, or, for HTTP answers,
{"status", "content_type", "body"}; and spacetime/<name>.bsatn: the answers to the same conversation in the binary
subprotocol, with a database of its own. Tokens and identities in them are of a server that lived for a second. Needs
the PyPI package `websockets`, 15 or later.
"""
import argparse
import asyncio
import json
import pathlib
import socket
import struct
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

from websockets.asyncio.client import connect

HERE = pathlib.Path(__file__).resolve().parent / "spacetime"
DATABASE = "golden"
STREAM = "runtime.run.1.events"
HTTP = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def write(name, value):
    if isinstance(value, bytes):
        (HERE / f"{name}.bsatn").write_bytes(value)
        return
    text = value if isinstance(value, str) else json.dumps(value, indent=1)
    (HERE / f"{name}.json").write_text(text.rstrip("\n") + "\n")


def http(address, method, path, body=None, token=None, content_type=None):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if content_type:
        headers["Content-Type"] = content_type
    request = urllib.request.Request(f"http://{address}{path}", data=body, method=method, headers=headers)
    try:
        reply = HTTP.open(request, timeout=10)
    except urllib.error.HTTPError as error:
        reply = error
    with reply:
        return {
            "status": reply.status,
            "content_type": reply.headers.get("content-type"),
            "body": reply.read().decode(),
        }


def row(seq, key=None):
    payload = json.dumps({"n": seq})
    return [STREAM, seq, key or f"key-{seq}", f"sha256:{seq:064x}", payload, 1700000000000 + seq, seq, False]


class Json:
    """The text subprotocol."""

    name, database, query = "v1.json.spacetimedb", DATABASE, "?light={light}"

    @staticmethod
    def args(row):
        return json.dumps(row)

    @staticmethod
    def message(kind, fields):
        return json.dumps({kind: fields})


class Bsatn:
    """The binary subprotocol."""

    name, database, query = "v1.bsatn.spacetimedb", f"{DATABASE}-bsatn", "?compression=None&light={light}"
    tags = ["CallReducer", "Subscribe", "OneOffQuery", "SubscribeSingle", "SubscribeMulti", "Unsubscribe", "UnsubscribeMulti"]
    order = ["reducer", "args", "message_id", "query_strings", "query_string", "query", "request_id", "query_id", "flags"]

    @classmethod
    def args(cls, row):
        cell = lambda value: struct.pack("<Q", value) if type(value) is int else cls.value(value)
        return b"".join(map(cell, row))

    @classmethod
    def message(cls, kind, fields):
        values = (cls.value(fields[name], name) for name in cls.order if name in fields)
        return struct.pack("<B", cls.tags.index(kind)) + b"".join(values)

    @classmethod
    def value(cls, value, name=""):
        if isinstance(value, bool) or name == "flags":
            return struct.pack("<B", value)
        if isinstance(value, int):
            return struct.pack("<I", value)
        if isinstance(value, str):
            value = value.encode()
        if name == "message_id":
            value = bytes(value)
        if isinstance(value, bytes):
            return struct.pack("<I", len(value)) + value
        if isinstance(value, dict):
            return cls.value(value["id"])
        return struct.pack("<I", len(value)) + b"".join(map(cls.value, value))


def open_socket(address, token, wire=Json, light="false"):
    return connect(
        f"ws://{address}/v1/database/{wire.database}/subscribe{wire.query.format(light=light)}",
        subprotocols=[wire.name],
        additional_headers={"Authorization": f"Bearer {token}"} if token else {},
        compression=None,
        max_size=None,
        proxy=None,
    )


async def ask(websocket, kind, **fields):
    wire = Bsatn if websocket.subprotocol == Bsatn.name else Json
    await websocket.send(wire.message(kind, fields))
    return await asyncio.wait_for(websocket.recv(), 10)


async def messages(address, token, wire):
    async with open_socket(address, token, wire) as one, open_socket(address, token, wire, "true") as light:
        write("identity_token", await one.recv())
        await light.recv()
        events = f"SELECT * FROM sync_event WHERE stream_id = '{STREAM}' AND seq > 1"
        head = f"SELECT * FROM stream_head WHERE stream_id = '{STREAM}'"
        write("initial_subscription", await ask(one, "Subscribe", query_strings=[events, head], request_id=1))
        write("transaction_update_failed_subscribe", await ask(one, "Subscribe", query_strings=["SELECT 1"], request_id=2))
        await ask(one, "Subscribe", query_strings=[events], request_id=3)
        multi = {"query_strings": [events, head], "request_id": 4, "query_id": {"id": 1}}
        write("subscribe_multi_applied", await ask(one, "SubscribeMulti", **multi))
        await ask(light, "SubscribeMulti", **multi)
        multi = {"query_strings": ["SELECT * FROM nowhere"], "request_id": 5, "query_id": {"id": 2}}
        write("subscription_error", await ask(one, "SubscribeMulti", **multi))
        single = {"query": "SELECT * FROM stream_checkpoint", "request_id": 6, "query_id": {"id": 3}}
        write("subscribe_applied", await ask(one, "SubscribeSingle", **single))
        write("unsubscribe_applied", await ask(one, "Unsubscribe", request_id=7, query_id={"id": 3}))
        call = {"reducer": "append_sync_event", "args": wire.args(row(4)), "request_id": 8, "flags": 0}
        write("transaction_update_committed", await ask(one, "CallReducer", **call))
        write("transaction_update_light", await asyncio.wait_for(light.recv(), 10))
        call = {"reducer": "append_sync_event", "args": wire.args(row(9)), "request_id": 9, "flags": 0}
        write("transaction_update_failed", await ask(one, "CallReducer", **call))
        call = {"reducer": "append_sync_event", "args": wire.args(row(4)), "request_id": 10, "flags": 0}
        write("transaction_update_repeated_key", await ask(one, "CallReducer", **call))
        call = {"reducer": "no_such_reducer", "args": wire.args([]), "request_id": 11, "flags": 0}
        write("transaction_update_no_reducer", await ask(one, "CallReducer", **call))
        query = {"message_id": [1, 2, 3], "query_string": "SELECT 1"}
        write("one_off_query_error", await ask(one, "OneOffQuery", **query))
        query = {"message_id": [4], "query_string": head}
        write("one_off_query_rows", await ask(one, "OneOffQuery", **query))
        write("unsubscribe_multi_applied", await ask(one, "UnsubscribeMulti", request_id=12, query_id={"id": 1}))
        write("unsubscribe_unknown", await ask(one, "UnsubscribeMulti", request_id=13, query_id={"id": 77}))


def capture(address, module):
    write("http_identity", http(address, "POST", "/v1/identity"))
    token = json.loads(json.loads((HERE / "http_identity.json").read_text())["body"])["token"]
    write("http_websocket_token", http(address, "POST", "/v1/identity/websocket-token", token=token))
    write("http_publish", http(address, "PUT", f"/v1/database/{DATABASE}", module, token))
    call = f"/v1/database/{DATABASE}/call"
    for seq in (1, 2, 3):
        body = json.dumps(row(seq)).encode()
        write("http_call", http(address, "POST", f"{call}/append_sync_event", body, token, "application/json"))
    body = json.dumps(row(9)).encode()
    write("http_call_conflict", http(address, "POST", f"{call}/append_sync_event", body, token, "application/json"))
    write("http_call_media_type", http(address, "POST", f"{call}/append_sync_event", body, token, "text/plain"))
    write("http_call_arguments", http(address, "POST", f"{call}/append_sync_event", b"[1]", token, "application/json"))
    write("http_call_no_reducer", http(address, "POST", f"{call}/nothing", b"[]", token, "application/json"))
    write("http_call_no_database", http(address, "POST", "/v1/database/no/call/x", b"[]", token, "application/json"))
    sql = f"/v1/database/{DATABASE}/sql"
    write("http_sql", http(address, "POST", sql, f"SELECT * FROM stream_head WHERE stream_id = '{STREAM}'".encode(), token))
    write("http_sql_error", http(address, "POST", sql, b"SELECT * FROM nowhere", token))
    subscribe = f"/v1/database/{DATABASE}/subscribe"
    write("http_subscribe_plain", http(address, "GET", subscribe, token=token))
    asyncio.run(messages(address, token, Json))
    http(address, "PUT", f"/v1/database/{Bsatn.database}", module, token)
    for seq in (1, 2, 3):
        body = json.dumps(row(seq)).encode()
        path = f"/v1/database/{Bsatn.database}/call/append_sync_event"
        http(address, "POST", path, body, token, "application/json")
    asyncio.run(messages(address, token, Bsatn))
    write("http_bad_token", http(address, "POST", sql, b"SELECT * FROM stream_head", "nonsense"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", required=True)
    parser.add_argument("--module", required=True)
    options = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = "127.0.0.1:%d" % probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [options.server, "start", "--listen-addr", address]
        command += ["--data-dir", f"{folder}/data", "--jwt-key-dir", f"{folder}/keys"]
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            for _ in range(500):
                try:
                    http(address, "GET", "/v1/ping")
                    break
                except OSError:
                    time.sleep(0.02)
            capture(address, pathlib.Path(options.module).read_bytes())
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
