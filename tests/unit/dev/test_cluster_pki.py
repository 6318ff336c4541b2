from pathlib import Path

from cryptography import x509

from dev.cluster.pki import Identity, ensure_pki


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_who_comes_later_is_signed_by_the_same_authority(tmp_path: Path) -> None:
    folder = tmp_path / "pki"
    first, later = Identity("first", "system:first"), Identity("later", "system:later")
    ensure_pki(folder, (first,))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    ensure_pki(folder, (first, later))

    assert {name: (folder / name).read_bytes() for name in before} == before
    assert (folder / "later.key").stat().st_mode & 0o077 == 0
    authority = certificate(folder / "ca.crt")
    certificate(folder / "later.crt").verify_directly_issued_by(authority)
