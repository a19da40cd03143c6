"""Keys and signatures are those of openssl, secret keys stay secret, and what is no key says so."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from fbft_edge.bundle.signing import SIGNATURE_BYTES, fingerprint, secret_fingerprint, sign, signer, write_signing_keys
from fbft_edge.cli.main import main
from fbft_edge.errors import ArgumentError

DATA = b'{"schema": "fbft.bundle/1"}\n'
CURVE_KEY = b'curve\n    public-key = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"\n'


def openssl(*arguments: str | Path) -> str:
    return subprocess.run(["openssl", *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return write_signing_keys(tmp_path / "keys", "release")


def test_a_secret_key_is_for_its_owner_alone(keys: tuple[Path, Path]) -> None:
    assert stat.S_IMODE(keys[0].stat().st_mode) == 0o600


def test_keys_are_called_as_they_are_used(keys: tuple[Path, Path]) -> None:
    assert [path.name for path in keys] == ["release.key_secret", "release.pub"]


def test_openssl_reads_both_keys_as_one_pair(keys: tuple[Path, Path]) -> None:
    secret, public = keys
    assert openssl("pkey", "-in", secret, "-pubout") == public.read_text()


def test_openssl_verifies_our_signature(keys: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(DATA)
    (tmp_path / "data.sig").write_bytes(sign(DATA, keys[0]))
    files = ("-rawin", "-in", tmp_path / "data", "-sigfile", tmp_path / "data.sig")
    assert "Verified Successfully" in openssl("pkeyutl", "-verify", "-pubin", "-inkey", keys[1], *files)


def test_what_openssl_signs_with_its_own_key_is_accepted(tmp_path: Path) -> None:
    secret, public, data, signature = (tmp_path / name for name in ("secret", "public", "data", "signature"))
    openssl("genpkey", "-algorithm", "ed25519", "-out", secret)
    openssl("pkey", "-in", secret, "-pubout", "-out", public)
    data.write_bytes(DATA)
    openssl("pkeyutl", "-sign", "-inkey", secret, "-rawin", "-in", data, "-out", signature)
    assert signer(DATA, signature.read_bytes(), [public]) == public


def test_a_fingerprint_is_that_of_the_documented_command(keys: tuple[Path, Path], tmp_path: Path) -> None:
    openssl("pkey", "-pubin", "-in", keys[1], "-outform", "DER", "-out", tmp_path / "der")
    expected = openssl("dgst", "-sha256", "-r", tmp_path / "der")[:16]
    assert (fingerprint(keys[1]), secret_fingerprint(keys[0])) == (expected, expected)


@pytest.mark.parametrize("position", [0, 13, len(DATA) - 1])
def test_a_signature_is_of_these_bytes_only(keys: tuple[Path, Path], position: int) -> None:
    altered = bytearray(DATA)
    altered[position] ^= 1
    assert signer(bytes(altered), sign(DATA, keys[0]), [keys[1]]) is None


@pytest.mark.parametrize("position", range(0, SIGNATURE_BYTES, 7))
def test_an_altered_signature_is_none(keys: tuple[Path, Path], position: int) -> None:
    altered = bytearray(sign(DATA, keys[0]))
    altered[position] ^= 0x80
    assert signer(DATA, bytes(altered), [keys[1]]) is None


def test_the_key_that_signed_is_found_among_others(keys: tuple[Path, Path], tmp_path: Path) -> None:
    _, other = write_signing_keys(tmp_path, "other")
    assert signer(DATA, sign(DATA, keys[0]), [other, keys[1]]) == keys[1]


def test_a_key_that_did_not_sign_is_not_taken(keys: tuple[Path, Path], tmp_path: Path) -> None:
    _, other = write_signing_keys(tmp_path, "other")
    assert signer(DATA, sign(DATA, keys[0]), [other]) is None


def test_one_trusted_key_that_cannot_be_used_is_an_error_even_beside_the_right_one(keys: tuple[Path, Path]) -> None:
    with pytest.raises(ArgumentError, match="cannot be read"):
        signer(DATA, sign(DATA, keys[0]), [keys[1], keys[1].with_name("lost.pub")])


@pytest.mark.parametrize("which", [0, 1])
def test_a_key_is_never_overwritten(keys: tuple[Path, Path], which: int) -> None:
    keys[1 - which].unlink()
    before = keys[which].read_bytes()
    with pytest.raises(ArgumentError, match="never overwritten"):
        write_signing_keys(keys[0].parent, "release")
    assert (keys[which].read_bytes(), keys[1 - which].exists()) == (before, False)


@pytest.mark.parametrize("name", ["", "../release", "a/b", "/release"])
def test_a_key_lies_in_the_folder_that_was_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArgumentError, match="plain file name"):
        write_signing_keys(tmp_path, name)


def test_keys_where_nothing_can_be_written_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArgumentError, match="cannot be written"):
        write_signing_keys(tmp_path / "file", "release")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_secret_key_that_others_may_read_is_not_used(keys: tuple[Path, Path], mode: int) -> None:
    keys[0].chmod(mode)
    with pytest.raises(ArgumentError, match="chmod 600"):
        sign(DATA, keys[0])


def test_a_secret_key_behind_a_link_is_used(keys: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(keys[0])
    assert len(sign(DATA, tmp_path / "link")) == SIGNATURE_BYTES


def test_a_key_with_a_passphrase_says_how_to_take_it_off(keys: tuple[Path, Path], tmp_path: Path) -> None:
    openssl("pkey", "-in", keys[0], "-aes256", "-passout", "pass:secret", "-out", tmp_path / "locked")
    with pytest.raises(ArgumentError, match="passphrase"):
        sign(DATA, tmp_path / "locked")


@pytest.mark.parametrize("algorithm", ["rsa", "x25519", "ed448"])
def test_keys_of_other_algorithms_are_refused(tmp_path: Path, algorithm: str) -> None:
    secret, public = tmp_path / "secret", tmp_path / "public"
    openssl("genpkey", "-algorithm", algorithm, "-out", secret)
    openssl("pkey", "-in", secret, "-pubout", "-out", public)
    with pytest.raises(ArgumentError, match="not for Ed25519"):
        sign(DATA, secret)
    with pytest.raises(ArgumentError, match="not for Ed25519"):
        signer(DATA, bytes(64), [public])


@pytest.mark.parametrize("contents", [b"", b"\0" * 100, b"-----BEGIN PUBLIC KEY-----\n", CURVE_KEY, b"a" * 70_000])
def test_what_is_no_key_is_refused(tmp_path: Path, contents: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(contents)
    path.chmod(0o600)
    for use in (lambda: sign(DATA, path), lambda: signer(DATA, bytes(64), [path])):
        with pytest.raises(ArgumentError, match=r"PEM|at most"):
            use()


def test_a_public_key_is_no_secret_one_nor_the_other_way_round(keys: tuple[Path, Path]) -> None:
    keys[1].chmod(0o600)
    with pytest.raises(ArgumentError, match="not a secret key"):
        sign(DATA, keys[1])
    with pytest.raises(ArgumentError, match="not a public key"):
        signer(DATA, bytes(64), [keys[0]])


def test_nobody_waits_for_a_key_that_is_a_fifo_or_reads_one_that_is_a_device(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero"), tmp_path):
        with pytest.raises(ArgumentError, match="cannot be read"):
            signer(DATA, bytes(64), [path])


def test_without_the_library_the_remedy_is_named(keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    for use in (lambda: sign(DATA, keys[0]), lambda: signer(DATA, bytes(64), [keys[1]])):
        with pytest.raises(ArgumentError, match=r'pip install "fbft-edge\[signing\]"'):
            use()


def test_the_command_makes_keys_that_sign_and_never_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["keygen", "--signing", str(tmp_path / "keys")]
    assert main(command) == 0
    secret, public = tmp_path / "keys" / "release.key_secret", tmp_path / "keys" / "release.pub"
    assert signer(DATA, sign(DATA, secret), [public]) == public
    printed = capsys.readouterr().out
    assert all(text in printed for text in (str(secret), str(public), fingerprint(public)))
    assert (main(command), "never overwritten" in capsys.readouterr().err) == (2, True)


def test_the_command_calls_keys_as_they_were_named(tmp_path: Path) -> None:
    assert main(["keygen", "--signing", str(tmp_path), "--name", "hall-3"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hall-3.key_secret", "hall-3.pub"]
