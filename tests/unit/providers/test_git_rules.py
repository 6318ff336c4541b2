"""What is refused before any server is asked, and what a server's refusal is called."""

import base64

import pytest

from labfunctions_operator.providers.git import GitCredentials, SourceError, normalize_path
from labfunctions_operator.providers.git_cache import cache_key
from labfunctions_operator.providers.git_command import parse_url
from labfunctions_operator.providers.git_errors import explain

OPENSSH_HEAD = "-----BEGIN OPENSSH PRIVATE KEY-----\n"
OPENSSH_TAIL = "\n-----END OPENSSH PRIVATE KEY-----"


def openssh_key(cipher: bytes = b"none") -> str:
    body = b"openssh-key-v1\0" + len(cipher).to_bytes(4) + cipher + b"rest of the key"
    return OPENSSH_HEAD + base64.b64encode(body).decode() + OPENSSH_TAIL


def encoded(values: dict[str, str]) -> dict[str, str]:
    return {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}


class TestUrls:
    @pytest.mark.parametrize(
        ("url", "scheme", "host"),
        [
            ("https://example.com/team/wine.git", "https", "example.com"),
            ("http://gitserver.demo.svc/wine.git", "http", "gitserver.demo.svc"),
            ("http://127.0.0.1:3000/wine", "http", "127.0.0.1:3000"),
            ("http://[::1]:3000/wine", "http", "[::1]:3000"),
            ("ssh://git@example.com:2222/wine.git", "ssh", "example.com:2222"),
            ("git@example.com:team/wine.git", "ssh", "example.com"),
            ("git@example.com:/srv/wine.git", "ssh", "example.com"),
        ],
    )
    def test_allowed(self, url: str, scheme: str, host: str) -> None:
        remote = parse_url(url)

        assert (remote.scheme, remote.host) == (scheme, host)

    @pytest.mark.parametrize(
        "url",
        [
            "file:///etc",
            "/srv/git/wine.git",
            "ext::sh -c touch% /tmp/x",
            "ext::sh",
            "git://example.com/wine.git",
            "ftp://example.com/wine.git",
            "--upload-pack=touch",
            "-oProxyCommand=touch@example.com:x",
            "git@-oProxyCommand=touch:x",
            "ssh://-oProxyCommand=touch/wine.git",
            "ssh://git@-oProxyCommand=touch/wine.git",
            "ssh://-oProxyCommand=x@example.com/wine.git",
            "git@example.com:-x",
            "https://example.com",
            "https:///wine.git",
            "https://example.com:port/wine.git",
            "https://[::1/wine.git",
            "https://example.com/a b",
            "https://example.com/a\nb",
            "https://example.com/wine.git?private_token=s3cret",
            "",
        ],
    )
    def test_refused(self, url: str) -> None:
        with pytest.raises(SourceError) as caught:
            parse_url(url)

        assert caught.value.reason == "UrlNotAllowed"
        assert "s3cret" not in caught.value.message

    @pytest.mark.parametrize(
        "url",
        [
            "https://user:s3cret@example.com/wine.git",
            "https://s3cret@example.com/wine.git",
            "ssh://git:s3cret@example.com/wine.git",
        ],
    )
    def test_credentials_belong_elsewhere(self, url: str) -> None:
        with pytest.raises(SourceError, match=r"source\.git\.secretRef") as caught:
            parse_url(url)

        assert caught.value.reason == "UrlNotAllowed"
        assert "s3cret" not in str(caught.value)


class TestPaths:
    @pytest.mark.parametrize(
        ("path", "normal"),
        [(".", "."), ("", "."), ("./wine/", "wine"), ("a//b/./c", "a/b/c"), ("..a/b", "..a/b")],
    )
    def test_normal_form(self, path: str, normal: str) -> None:
        assert normalize_path(path) == normal

    @pytest.mark.parametrize("path", ["..", "../a", "a/..", "a/../../b", "/", "/etc", "./../a"])
    def test_leading_out(self, path: str) -> None:
        with pytest.raises(SourceError) as caught:
            normalize_path(path)

        assert caught.value.reason == "PathEscapes"

    @pytest.mark.parametrize("path", ["a\\b", "a\0b", "a\nb"])
    def test_nonsense(self, path: str) -> None:
        with pytest.raises(SourceError) as caught:
            normalize_path(path)

        assert caught.value.reason == "PathNotFound"


class TestSecrets:
    def test_a_user_and_a_password(self) -> None:
        found = GitCredentials.from_secret(encoded({"username": "ada", "password": "pw"}))

        assert (found.username, found.password) == ("ada", "pw")

    def test_a_token_needs_no_user_and_no_exact_end_of_line(self) -> None:
        found = GitCredentials.from_secret(encoded({"token": "abc\n"}))

        assert (found.username, found.password) == ("git", "abc")

    @pytest.mark.parametrize("key", ["ssh-privatekey", "identity"])
    def test_a_key(self, key: str) -> None:
        values = {key: openssh_key().replace("\n", "\r\n"), "known_hosts": "example.com ssh-rsa A"}

        found = GitCredentials.from_secret(encoded(values))

        assert found.private_key == openssh_key() + "\n"
        assert found.known_hosts == "example.com ssh-rsa A\n"

    def test_a_pem_key(self) -> None:
        pem = "-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY-----\n"

        found = GitCredentials.from_secret(encoded({"identity": pem, "known_hosts": "h k v"}))

        assert found.private_key == pem

    def test_a_certificate_alone_and_keys_of_others(self) -> None:
        ca = "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n"

        found = GitCredentials.from_secret(encoded({"ca.crt": ca, "unrelated": "x"}))

        assert found.ca == ca
        assert found.password is None

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({}, "none of username"),
            ({"unrelated": "x"}, "none of username"),
            ({"username": "ada"}, "no password or token"),
            ({"token": "a\nb"}, "token holds control characters"),
            ({"token": "a", "password": "b"}, "password and token differ"),
            ({"ca.crt": "nonsense"}, "ca.crt holds no PEM certificate"),
            ({"identity": "nonsense", "known_hosts": "h"}, "is not a private key"),
            ({"identity": openssh_key()}, "an ssh key needs known_hosts"),
            ({"identity": openssh_key(), "known_hosts": "\n"}, "an ssh key needs known_hosts"),
            ({"identity": openssh_key(b"aes256-ctr"), "known_hosts": "h"}, "by a passphrase"),
            (
                {
                    "identity": "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMII\n",
                    "known_hosts": "h",
                },
                "by a passphrase",
            ),
            ({"identity": f"{OPENSSH_HEAD}AAAA{OPENSSH_TAIL}", "known_hosts": "h"}, "is damaged"),
            ({"identity": f"{OPENSSH_HEAD}?{OPENSSH_TAIL}", "known_hosts": "h"}, "is damaged"),
        ],
    )
    def test_nonsense(self, values: dict[str, str], message: str) -> None:
        with pytest.raises(SourceError, match=message) as caught:
            GitCredentials.from_secret(encoded(values))

        assert caught.value.reason == "SecretInvalid"

    @pytest.mark.parametrize("value", ["not base64!", "//79"])
    def test_what_is_not_text(self, value: str) -> None:
        with pytest.raises(SourceError, match="token is not base64 of UTF-8 text"):
            GitCredentials.from_secret({"token": value})

    def test_secrets_are_not_shown(self) -> None:
        assert "s3cret" not in repr(GitCredentials(password="s3cret", private_key="s3cret"))

    def test_clones_are_kept_apart_by_credentials(self) -> None:
        keys = {
            cache_key(url, credentials)
            for url in ("https://a/b", "https://a/c")
            for credentials in (None, GitCredentials(password="1"), GitCredentials(password="2"))
        }

        assert len(keys) == 6


class TestExplanations:
    @pytest.mark.parametrize(
        ("stderr", "reason", "message"),
        [
            (
                "fatal: unable to access 'the repository/': Could not resolve host: nowhere",
                "RepositoryUnreachable",
                "does not resolve",
            ),
            (
                "ssh: Could not resolve hostname h: Name or service not known\n"
                "fatal: Could not read from remote repository.",
                "RepositoryUnreachable",
                "does not resolve",
            ),
            (
                "fatal: unable to access 'the repository/': Failed to connect to h port 80:"
                " Connection refused",
                "RepositoryUnreachable",
                "refuses connections",
            ),
            (
                "ssh: connect to host h port 22: Connection refused\nfatal: Could not read",
                "RepositoryUnreachable",
                "refuses connections",
            ),
            (
                "fatal: Failed to connect to h port 80 after 130000 ms: Connection timed out",
                "RepositoryUnreachable",
                "did not answer in time",
            ),
            (
                "fatal: unable to access 'the repository/': Failed to connect to h port 443 after"
                " 130 ms: Couldn't connect to server",
                "RepositoryUnreachable",
                "refuses connections",
            ),
            (
                "ssh: connect to host h port 22: No route to host",
                "RepositoryUnreachable",
                "no network route",
            ),
            (
                "fatal: Authentication failed for 'the repository/'",
                "AuthenticationFailed",
                "refused the credentials",
            ),
            (
                "fatal: could not read Username for 'http://h': terminal prompts disabled",
                "AuthenticationFailed",
                "refused the credentials",
            ),
            (
                "fatal: unable to access 'the repository/': The requested URL returned error: 403",
                "AuthenticationFailed",
                "refused the credentials",
            ),
            (
                "git@h: Permission denied (publickey).\nfatal: Could not read from remote"
                " repository.\n\nPlease make sure you have the correct access rights\nand the"
                " repository exists.",
                "AuthenticationFailed",
                "refused the credentials",
            ),
            (
                "No ED25519 host key is known for h and you have requested strict checking.\n"
                "Host key verification failed.\nfatal: Could not read from remote repository.",
                "AuthenticationFailed",
                "known_hosts",
            ),
            (
                'Load key "/tmp/x": error in libcrypto\ngit@h: Permission denied (publickey).',
                "SecretInvalid",
                "cannot be parsed",
            ),
            (
                "remote: Repository not found.\nfatal: repository 'the repository/' not found",
                "RepositoryUnreachable",
                "has no such repository",
            ),
            (
                "fatal: '/tls.git' does not appear to be a git repository\nfatal: Could not read",
                "RepositoryUnreachable",
                "has no such repository",
            ),
            (
                "fatal: the repository/info/refs not valid: is this a git repository?",
                "RepositoryUnreachable",
                "has no such repository",
            ),
            (
                "fatal: unable to access 'the repository/': server certificate verification"
                " failed. CAfile: none CRLfile: none",
                "RepositoryUnreachable",
                "ca.crt",
            ),
            (
                "fatal: unable to access 'the repository/': SSL certificate problem: unable to get"
                " local issuer certificate",
                "RepositoryUnreachable",
                "ca.crt",
            ),
            (
                "fatal: unable to access 'the repository/': gnutls_handshake() failed: Handshake",
                "RepositoryUnreachable",
                "ca.crt",
            ),
            (
                "fatal: unable to access 'the repository/': The requested URL returned error: 503",
                "RepositoryUnreachable",
                "(HTTP 503)",
            ),
            (
                "fatal: remote error: upload-pack: not our ref dddddddd",
                "RefNotFound",
                "no longer offers",
            ),
            (
                "error: Server does not allow request for unadvertised object dddddddd",
                "RefNotFound",
                "no longer offers",
            ),
            (
                "fatal: dumb http transport does not support shallow capabilities",
                "RepositoryUnreachable",
                "dumb HTTP",
            ),
            ("fatal: transport 'file' not allowed", "UrlNotAllowed", "not allowed"),
            ("fatal: the remote end hung up unexpectedly", "RepositoryUnreachable", "closed the"),
            (
                "fatal: unable to access 'the repository/': GnuTLS recv error (-110): The TLS"
                " connection was non-properly terminated.",
                "RepositoryUnreachable",
                "closed the connection",
            ),
            (
                "warning: odd\nfatal: something\x1b[31m new\nmore",
                "RepositoryUnreachable",
                "git failed at h: fatal: something [31m new",
            ),
            ("", "RepositoryUnreachable", "git failed at h: no explanation"),
        ],
    )
    def test_causes(self, stderr: str, reason: str, message: str) -> None:
        error = explain(stderr, host="h", with_credentials=True)

        assert error.reason == reason
        assert message in error.message
        assert "\n" not in error.message

    def test_nobody_is_told_of_wrong_credentials_who_gave_none(self) -> None:
        error = explain("fatal: could not read Username", host="h", with_credentials=False)

        assert error.message == (
            "h asks for credentials; name their Secret in source.git.secretRef"
        )
