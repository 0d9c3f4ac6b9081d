"""Who may open the page: addresses, token, Origin, and certificates for HTTPS."""

from __future__ import annotations

import datetime
import hmac
import ipaddress
import os
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from lisa_ros.listening import ListenError, check_certificate, is_loopback
from lisa_ros.writing import cache_folder, written_beside

NO_TOKEN = (
    "This page needs the link that `lisa-ros web` printed on the robot's terminal (or its QR code):"
    " it ends with the token that lets you in."
)
WRONG_TOKEN = (
    "The token in this link is not the present one: take the link that `lisa-ros web` printed on "
    "the robot's terminal when it was last started."
)
FOREIGN = "This request comes from another page, {origin}: open the robot's own page and ask there."
NAME = "The robot's page is open to this machine alone; use http://localhost:PORT."
VALID_DAYS = 365
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class AccessControl:
    """An ASGI application around the page's: lets in who may come, tells the others why not.

    With a token, the link `/?token=...` leaves it in a cookie, and everything else wants that.
    Without one (on the loopback) the page's name must be this machine's, or a foreign site whose
    name was made to mean 127.0.0.1 could ask. Requests that do something, and the socket, must
    come from the page itself (Origin).
    """

    def __init__(self, app: Any, token: str, port: int) -> None:
        self._app, self._token = app, token
        self._cookie = f"lisa_ros_{port}"  # a browser gives cookies to all ports of a host

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()  # websocket.connect
            await send({"type": "websocket.close", "code": 1008, "reason": "not allowed"})
        else:
            await refusal(scope, receive, send)

    def _refusal(self, scope: dict[str, Any]) -> Response | None:
        asked = HTTPConnection(scope)
        host = asked.headers.get("host", "")
        if not self._token and not is_loopback(_hostname(host)):
            return PlainTextResponse(NAME, 403)
        origin = asked.headers.get("origin", "")
        acts = scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD")
        ours = (f"http://{host}".lower(), f"https://{host}".lower())  # a page that we have sent
        if acts and origin and origin.lower() not in ours:
            return PlainTextResponse(FOREIGN.format(origin=origin[:100]), 403)
        if not self._token:
            return None
        given = asked.query_params.get("token", "")
        if given and scope["type"] == "http":
            if not self._is_token(given):
                return PlainTextResponse(WRONG_TOKEN, 401)
            response = RedirectResponse("/", 303, headers={"Referrer-Policy": "no-referrer"})
            secure = scope["scheme"] in ("https", "wss")
            response.set_cookie(
                self._cookie, given, httponly=True, samesite="lax", secure=secure, max_age=86400
            )
            return response
        kept = asked.cookies.get(self._cookie, "")
        if self._is_token(kept):
            return None
        return PlainTextResponse(WRONG_TOKEN if kept else NO_TOKEN, 401)

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._token.encode())


def _hostname(host: str) -> str:
    """The name in a Host header, without its port; empty if it is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def content_security_policy(host: str) -> str:
    """Nothing from elsewhere, nothing inline; `host` as the browser named it."""
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        f"connect-src 'self' ws://{host} wss://{host}; media-src blob:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )


def fingerprint(certificate: Path) -> str:
    """SHA-256 of a file's first certificate as browsers show it."""
    found = x509.load_pem_x509_certificate(certificate.read_bytes())
    return found.fingerprint(hashes.SHA256()).hex(":").upper()


def self_signed(address: str) -> Path:
    """A PEM file with a key and a certificate of our own for this machine, kept for a year.

    It is kept so that a browser that was told to trust it need not be told again.
    """
    names: list[x509.GeneralName] = []
    for name in dict.fromkeys(("localhost", "127.0.0.1", socket.gethostname(), address)):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            names.append(x509.DNSName(name))
    path = cache_folder() / "web_certificate.pem"
    now = datetime.datetime.now(datetime.timezone.utc)
    try:
        old = x509.load_pem_x509_certificate(path.read_bytes())
        kept = old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if list(kept) == names and old.not_valid_after_utc > now + datetime.timedelta(days=1):
            check_certificate(path, path)
            return path
    except (OSError, ValueError, x509.ExtensionNotFound, ListenError):
        pass  # none yet, or not of use: a new one
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lisa_ros web page")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with written_beside(path) as beside:
        beside.touch(mode=0o600)  # it holds the key
        beside.write_bytes(secret + certificate.public_bytes(serialization.Encoding.PEM))
        os.chmod(beside, 0o600)
    return path
