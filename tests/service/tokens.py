"""Tokens: JWT, HS256, with the claims of the lane's contract. Issued for sessions, checked at upgrades and calls."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time
from dataclasses import dataclass
from typing import Any

from topics import topic_of

SUBSCRIBE, CHECKPOINT, APPEND = "sync.subscribe", "sync.checkpoint", "sync.append"
SCOPES = (SUBSCRIBE, CHECKPOINT, APPEND)
AUDIENCE = "khala"
CLAIMS_VERSION = 1
SHORTEST, USUAL, LONGEST = 60, 300, 900
REFRESH_LEAD = 30
OLDEST = 3600

Claims = dict[str, Any]


class Denied(Exception):
    """A request is refused; `reason` is one of the contract's names."""

    def __init__(self, reason: str, status: int = 401) -> None:
        super().__init__(reason)
        self.reason, self.status = reason, status


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars="-_", validate=True)


@dataclass
class Tokens:
    """Keys by id: the current one signs, the previous one is still good."""

    secret: str
    issuer: str
    skew: int
    shortest: int = SHORTEST

    def key(self, kid: str) -> bytes | None:
        known = kid in ("current", "previous")
        return hashlib.sha256(f"{self.secret}/{kid}".encode()).digest() if known else None

    def sign(self, claims: Claims, kid: str = "current") -> str:
        key = self.key(kid)
        assert key is not None
        head = encoded(json.dumps({"typ": "JWT", "alg": "HS256", "kid": kid}).encode())
        signed = f"{head}.{encoded(json.dumps(claims).encode())}"
        return f"{signed}.{encoded(hmac.digest(key, signed.encode(), 'sha256'))}"

    def issue(self, org: str, asked: dict[str, Any], streams: list[str]) -> dict[str, Any]:
        """The answer to a request for a token."""
        now = int(time.time())
        ttl = min(max(int(asked.get("ttl_seconds") or USUAL), self.shortest), LONGEST)
        device = str(asked.get("device_id") or "device")
        claims = {
            "iss": self.issuer,
            "aud": AUDIENCE,
            "sub": device,
            "jti": secrets.token_hex(8),
            "iat": now,
            "nbf": now,
            "exp": now + ttl,
            "oa_org_id": org,
            "oa_session_id": f"{org}/{device}",
            "oa_device_id": device,
            "oa_sync_scopes": asked.get("scopes") or [SUBSCRIBE],
            "oa_sync_streams": streams,
            "oa_claims_version": CLAIMS_VERSION,
        }
        refresh = max(ttl - REFRESH_LEAD, 1)
        return {
            "token": self.sign(claims),
            "token_type": "Bearer",
            "transport": "khala_ws",
            "expires_in": ttl,
            "refresh_after_in": refresh,
            "issued_at": now,
            "refresh_after": now + refresh,
            "expires_at": now + ttl,
            "issuer": self.issuer,
            "audience": AUDIENCE,
            "subject": device,
            "scopes": claims["oa_sync_scopes"],
            "granted_topics": [topic for stream in streams if (topic := topic_of(stream))],
            "granted_streams": streams,
            "kid": "current",
            "token_id": claims["jti"],
            "session_id": claims["oa_session_id"],
            "device_id": device,
        }

    def check(self, token: str | None, scope: str | None = None) -> Claims:
        """The claims of a good token that has the scope."""
        if not token:
            raise Denied("missing_token")
        try:
            head_part, claims_part, signature_part = token.split(".")
            head, signature = json.loads(decoded(head_part)), decoded(signature_part)
            algorithm, kid = head.get("alg"), head.get("kid")
        except (ValueError, binascii.Error, AttributeError):
            raise Denied("invalid_signature") from None
        if algorithm != "HS256":
            raise Denied("invalid_signature")
        if kid is None:
            raise Denied("missing_kid")
        key = self.key(str(kid))
        if key is None:
            raise Denied("unknown_kid")
        if not hmac.compare_digest(hmac.digest(key, f"{head_part}.{claims_part}".encode(), "sha256"), signature):
            raise Denied("invalid_signature")
        claims: Claims = json.loads(decoded(claims_part))
        now = time.time()
        if (claims["iss"], claims["aud"], claims["oa_claims_version"]) != (self.issuer, AUDIENCE, CLAIMS_VERSION):
            raise Denied("claim_mismatch")
        if max(claims["iat"], claims["nbf"]) > now + self.skew:
            raise Denied("token_not_yet_valid")
        if now >= self.refused_from(claims):
            raise Denied("token_expired")
        if now - claims["iat"] > OLDEST + self.skew:
            raise Denied("token_too_old")
        if scope and scope not in claims["oa_sync_scopes"]:
            raise Denied("missing_scope", 403)
        return claims

    def refused_from(self, claims: Claims) -> float:
        return float(claims["exp"] + self.skew)


def grants(claims: Claims, stream: str) -> bool:
    return stream in claims["oa_sync_streams"]
