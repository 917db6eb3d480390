"""Certificates, a server's own TLS, and a proxy that speaks TLS for a server that has none."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import trustme


def own_tls_options(authority: trustme.CA, folder: Path) -> tuple[str, ...]:
    """Write the files and return the options with which a server and its Sentinel speak TLS themselves."""
    paths = [folder / name for name in ("ca.pem", "server.pem", "server.key")]
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    for path, blob in zip(
        paths, (authority.cert_pem, certificate.cert_chain_pems[0], certificate.private_key_pem), strict=True
    ):
        blob.write_to_path(str(path))
    names = ("--tls-ca-cert-file", "--tls-cert-file", "--tls-key-file")
    return tuple(text for pair in zip(names, map(str, paths), strict=True) for text in pair)


def has_tls(binary: Path) -> bool:
    """Tell whether a server was built with TLS: then it knows the setting, and what is wrong is the value."""
    command = (str(binary), "--port", "0", "--tls-port", "none")
    return "Bad directive" not in subprocess.run(command, capture_output=True, text=True, check=False).stdout


def context(certificate: trustme.LeafCert, clients: trustme.CA | None = None) -> ssl.SSLContext:
    """Return what a server speaks TLS with; with `clients`, only to those who have a certificate of that authority."""
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(own)
    if clients:
        own.verify_mode = ssl.CERT_REQUIRED
        clients.configure_trust(own)
    return own


@contextmanager
def speaking_tls(path: str, own: ssl.SSLContext) -> Iterator[int]:
    """Stand before the server at a socket path and speak TLS for it; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener, own, path), daemon=True).start()
        yield listener.getsockname()[1]


def _accept(listener: socket.socket, own: ssl.SSLContext, path: str) -> None:
    with suppress(OSError):
        while True:
            plain, _ = listener.accept()
            outside = own.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
            try:
                outside.do_handshake()
            except OSError:
                outside.close()
                continue
            inside = socket.socket(socket.AF_UNIX)
            inside.connect(path)
            for one, other in ((outside, inside), (inside, outside)):
                threading.Thread(target=_pass_on, args=(one, other), daemon=True).start()


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    with closing(other), suppress(OSError):
        while content := one.recv(65536):
            other.sendall(content)
