"""The cluster's own certificate authority, and what it signs."""

import base64
import datetime
import ipaddress
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dev.cluster.files import write_if_changed

LIFETIME = datetime.timedelta(days=3650)
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Identity:
    """Whom a certificate names: `name` is a user, `group` one that it belongs to."""

    file: str
    name: str
    group: str | None = None
    hosts: tuple[str, ...] = (LOOPBACK,)


def ensure_pki(folder: Path, identities: Sequence[Identity]) -> None:
    """Make the authority, the service accounts' key and those certificates that are not there.

    The folder appears by a rename when it has the former.
    """
    if not folder.is_dir():
        _make_authority(folder)
    for identity in identities:
        if not (folder / f"{identity.file}.crt").exists():
            _sign(folder, identity)


def _make_authority(folder: Path) -> None:
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True, mode=0o700)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _authority(authority_key)
    _write_pair(fresh, "ca", authority_key, authority)
    _write_service_account_keys(fresh)
    fresh.rename(folder)


def _sign(folder: Path, identity: Identity) -> None:
    authority = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
    loaded = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = _leaf(identity, key, authority, cast(ec.EllipticCurvePrivateKey, loaded))
    _write_pair(folder, identity.file, key, leaf)


def write_kubeconfig(path: Path, *, pki: Path, identity: str, server: str) -> None:
    """Write a kubeconfig that holds its certificates, so that it can be copied away."""

    def encoded(name: str) -> str:
        return base64.b64encode((pki / name).read_bytes()).decode()

    user = {
        "client-certificate-data": encoded(f"{identity}.crt"),
        "client-key-data": encoded(f"{identity}.key"),
    }
    cluster = {"server": server, "certificate-authority-data": encoded("ca.crt")}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "labfunctions", "cluster": cluster}],
        "users": [{"name": identity, "user": user}],
        "contexts": [
            {"name": "labfunctions", "context": {"cluster": "labfunctions", "user": identity}}
        ],
        "current-context": "labfunctions",
    }
    write_if_changed(path, yaml.safe_dump(config, sort_keys=False), mode=0o600)


def _authority(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "labfunctions-local")])
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        _builder(name, name, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )


def _leaf(
    identity: Identity,
    key: ec.EllipticCurvePrivateKey,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    names = [x509.NameAttribute(NameOID.COMMON_NAME, identity.name)]
    if identity.group:
        names.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, identity.group))
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    hosts = x509.SubjectAlternativeName([_alternative_name(host) for host in identity.hosts])
    return (
        _builder(x509.Name(names), authority.subject, key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(hosts, critical=False)
        .sign(authority_key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # An hour back: clocks that were set since must not make the keys invalid.
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + LIFETIME)
    )


def _alternative_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write_pair(
    folder: Path, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate
) -> None:
    # The certificate comes last: with it, the pair counts as made.
    _write_key(folder / f"{name}.key", key)
    text = certificate.public_bytes(serialization.Encoding.PEM).decode()
    write_if_changed(folder / f"{name}.crt", text)


def _write_service_account_keys(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    _write_key(folder / "service-accounts.key", key)
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (folder / "service-accounts.pub").write_bytes(public)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
