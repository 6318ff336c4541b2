"""Asking the cluster's DNS, which shows that CoreDNS, kube-proxy and the API work together."""

import socket
import struct

NAME = "kubernetes.default.svc.cluster.local"


def answers(server: str) -> bool:
    """Tell whether a DNS server knows the API server's name."""
    query = question(NAME)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(1)
        try:
            client.connect((server, 53))
            client.send(query)
            answer = client.recv(512)
        except OSError:
            return False
    return is_answer(answer, query)


def question(name: str) -> bytes:
    """Return a query for a name's IPv4 address."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!6H", 1, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", 1, 1)


def is_answer(message: bytes, query: bytes) -> bool:
    """Tell whether a message answers a query without error and with a record."""
    if len(message) < len(query):
        return False
    number, flags, _, records, _, _ = struct.unpack("!6H", message[:12])
    return bool(number == 1 and flags & 0x800F == 0x8000 and records > 0)
