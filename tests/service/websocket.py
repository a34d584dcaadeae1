"""RFC 6455 from the server's side: the handshake's key, frames in both directions, and nothing else."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import struct

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
LONGEST_MESSAGE = 1 << 20
# A longer message of the server leaves in several frames, as a gateway with small buffers would send it.
FRAGMENT = 16 << 10

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
NORMAL, PROTOCOL_ERROR, UNSUPPORTED, INVALID_TEXT, POLICY, TOO_BIG = 1000, 1002, 1003, 1007, 1008, 1009


class Violation(Exception):
    """The client broke the protocol, or sent what is not taken; `code` is for the close frame."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class Closed(Exception):
    """The client closes the connection."""


def accept_key(key: str) -> str:
    return base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()


def frame(opcode: int, payload: bytes, final: bool = True) -> bytes:
    head = (0x80 if final else 0) | opcode
    length = len(payload)
    if length < 126:
        return struct.pack("!BB", head, length) + payload
    if length < 1 << 16:
        return struct.pack("!BBH", head, 126, length) + payload
    return struct.pack("!BBQ", head, 127, length) + payload


def text(message: str) -> bytes:
    payload = message.encode()
    if len(payload) <= FRAGMENT:
        return frame(TEXT, payload)
    pieces = [payload[at : at + FRAGMENT] for at in range(0, len(payload), FRAGMENT)]
    last = len(pieces) - 1
    return b"".join(frame(TEXT if n == 0 else CONTINUATION, piece, n == last) for n, piece in enumerate(pieces))


def close(code: int, reason: str) -> bytes:
    return frame(CLOSE, struct.pack("!H", code) + reason.encode()[:123])


async def read_frame(reader: asyncio.StreamReader) -> tuple[bool, int, bytes]:
    first, second = await reader.readexactly(2)
    final, opcode, length = bool(first & 0x80), first & 0x0F, second & 0x7F
    if first & 0x70:
        raise Violation(PROTOCOL_ERROR, "reserved bits without an extension")
    if not second & 0x80:
        raise Violation(PROTOCOL_ERROR, "a client's frames are masked")
    if opcode >= CLOSE and (length > 125 or not final):
        raise Violation(PROTOCOL_ERROR, "control frames are short and whole")
    if length == 126:
        (length,) = struct.unpack("!H", await reader.readexactly(2))
    elif length == 127:
        (length,) = struct.unpack("!Q", await reader.readexactly(8))
    if length > LONGEST_MESSAGE:
        raise Violation(TOO_BIG, "the message is too long")
    mask = await reader.readexactly(4)
    payload = await reader.readexactly(length)
    # As one number: a loop over the bytes would take this language a hundred times as long.
    key = int.from_bytes((mask * (length // 4 + 1))[:length], "big")
    return final, opcode, (int.from_bytes(payload, "big") ^ key).to_bytes(length, "big")


async def read_message(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    """The next text message; pings are answered meanwhile, and fragments put together."""
    parts: list[bytes] = []
    while True:
        final, opcode, payload = await read_frame(reader)
        if opcode == CLOSE:
            raise Closed
        if opcode == PING:
            writer.write(frame(PONG, payload))
        elif opcode == PONG:
            pass
        elif opcode == BINARY:
            raise Violation(UNSUPPORTED, "messages are text")
        elif opcode not in (TEXT, CONTINUATION) or (opcode == CONTINUATION) != bool(parts):
            raise Violation(PROTOCOL_ERROR, "a frame out of place")
        else:
            parts.append(payload)
            if sum(map(len, parts)) > LONGEST_MESSAGE:
                raise Violation(TOO_BIG, "the message is too long")
            if final:
                try:
                    return b"".join(parts).decode()
                except UnicodeDecodeError:
                    raise Violation(INVALID_TEXT, "the text is not UTF-8") from None
