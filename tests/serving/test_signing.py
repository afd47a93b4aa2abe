"""Signatures: whom a bundle is from, where that is asked."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as elliptic_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from serving.manifest import MANIFEST, SIGNATURE, Manifest, RefusedError
from serving.signing import check_signature, sign


def write_key(folder: Path, name: str) -> tuple[Path, Path]:
    """Files of a new key: private, public."""
    folder.mkdir(exist_ok=True)
    key, private, public = Ed25519PrivateKey.generate(), folder / f"{name}.key", folder / f"{name}.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture
def bundle(tmp_path: Path) -> Manifest:
    """As much of a bundle as is signed."""
    root = tmp_path / "bento"
    (root / MANIFEST).parent.mkdir(parents=True)
    (root / MANIFEST).write_bytes(b'{"digest": "d"}\n')
    return Manifest(root=root, content={"name": "clicktrail-fraud", "version": "d"})


def test_signed_by_a_trusted_key(bundle: Manifest, tmp_path: Path) -> None:
    """The key is found in a folder or alone, and its file named; signing again gives the same bytes."""
    private, public = write_key(tmp_path / "keys", "ops")
    write_key(tmp_path / "keys", "another")
    sign(bundle.root, private)
    assert check_signature(bundle, tmp_path / "keys") == "ops.pem"
    assert check_signature(bundle, public) == "ops.pem"
    before = (bundle.root / SIGNATURE).read_bytes()
    sign(bundle.root, private)
    assert (bundle.root / SIGNATURE).read_bytes() == before


def test_anybody_else_is_refused(bundle: Manifest, tmp_path: Path) -> None:
    """No signature, one by another key, one of another manifest, one with a flipped bit: each is refused."""
    private, public = write_key(tmp_path / "keys", "ops")
    with pytest.raises(RefusedError, match="is not signed, and CLICKTRAIL_TRUSTED_KEYS"):
        check_signature(bundle, public)
    sign(bundle.root, write_key(tmp_path / "others", "mallory")[0])
    with pytest.raises(RefusedError, match="by none of the keys in"):
        check_signature(bundle, tmp_path / "keys")
    sign(bundle.root, private)
    good = (bundle.root / SIGNATURE).read_bytes()
    (bundle.root / SIGNATURE).write_bytes(bytes([good[0] ^ 1]) + good[1:])
    with pytest.raises(RefusedError, match="by none of the keys in"):
        check_signature(bundle, public)
    (bundle.root / SIGNATURE).write_bytes(good)
    (bundle.root / MANIFEST).write_bytes(b'{"digest": "e"}\n')
    with pytest.raises(RefusedError, match="or the manifest was changed"):
        check_signature(bundle, public)


def test_keys_that_are_none_are_named(bundle: Manifest, tmp_path: Path) -> None:
    """A file that is no key, a key of another kind and a folder without any are refused with the setting's name."""
    private, public = write_key(tmp_path / "keys", "ops")
    with pytest.raises(ValueError, match=r"CLICKTRAIL_SIGNING_KEY names .*ops\.pem, which is no private key"):
        sign(bundle.root, public)
    sign(bundle.root, private)
    with pytest.raises(RefusedError, match=r"CLICKTRAIL_TRUSTED_KEYS names .*ops\.key, which is no public key"):
        check_signature(bundle, private)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RefusedError, match=r"there is no \.pem file"):
        check_signature(bundle, tmp_path / "empty")
    other = tmp_path / "other.pem"
    key = elliptic_key(SECP256R1())
    other.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(RefusedError, match="is no Ed25519 key"):
        check_signature(bundle, other)
    other.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(ValueError, match="is no Ed25519 key; openssl genpkey"):
        sign(bundle.root, other)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not here")
def test_openssl_can_check_it(bundle: Manifest, tmp_path: Path) -> None:
    """Whoever has the public key needs nothing of ours."""
    private, public = write_key(tmp_path / "keys", "ops")
    sign(bundle.root, private)
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", public, "-rawin", "-in", bundle.root / MANIFEST]
    done = subprocess.run([*command, "-sigfile", bundle.root / SIGNATURE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
