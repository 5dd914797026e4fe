from __future__ import annotations

import os
import ssl
from pathlib import Path

import certifi
import pytest

from stream.aws.authorities import tls
from stream.aws.session import AwsSession

CERTIFICATES = [f"-----BEGIN{each}" for each in Path(certifi.where()).read_text().split("-----BEGIN")[1:3]]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    file = tmp_path / "bundle.pem"
    file.write_text(CERTIFICATES[0])
    return file


def trusted(settings: ssl.SSLContext) -> int:
    return len(settings.get_ca_certs())


def test_a_file_is_parsed_once_for_all_sessions(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
    first = AwsSession(region="us-east-1").trust()
    assert first is not None
    assert (trusted(first), first.verify_mode, first.check_hostname) == (1, ssl.CERT_REQUIRED, True)
    assert AwsSession(region="eu-west-1").trust() is first


@pytest.mark.parametrize("replaced", [True, False], ids=["replaced", "written again"])
def test_a_file_that_has_changed_is_parsed_again(bundle: Path, replaced: bool) -> None:
    assert trusted(tls(str(bundle))) == 1
    new = bundle.with_name("new.pem") if replaced else bundle
    new.write_text("".join(CERTIFICATES))
    new.rename(bundle)
    assert trusted(tls(str(bundle))) == 2


@pytest.mark.parametrize("replaced", [True, False], ids=["another file of that time", "another content of that size"])
def test_a_change_shows_in_whatever_tells_two_files_apart(bundle: Path, replaced: bool) -> None:
    one, other = (certificate.strip() for certificate in CERTIFICATES)
    size = max(len(one), len(other))
    bundle.write_text(one.ljust(size, "\n"))
    before, parsed = bundle.stat(), tls(str(bundle))
    new = bundle.with_name("new.pem") if replaced else bundle
    new.write_text(other.ljust(size, "\n"))
    moment = before.st_mtime_ns if replaced else before.st_mtime_ns + 1_000_000_000
    os.utime(new, ns=(moment, moment))
    new.rename(bundle)
    assert bundle.stat().st_size == before.st_size
    assert tls(str(bundle)).get_ca_certs() != parsed.get_ca_certs()


def test_a_file_that_could_not_be_used_is_tried_again(bundle: Path) -> None:
    bundle.unlink()
    with pytest.raises(FileNotFoundError):
        tls(str(bundle))
    bundle.write_text(CERTIFICATES[0])
    assert trusted(tls(str(bundle))) == 1


def test_the_authorities_of_the_system_are_read_once_and_again_when_another_file_is_named(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_DIR", str(bundle.parent / "none"))
    monkeypatch.setenv("SSL_CERT_FILE", certifi.where())
    usual = tls()
    assert tls() is usual
    assert trusted(usual) > 1
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    assert trusted(tls()) == 1
