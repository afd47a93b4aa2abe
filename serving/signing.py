"""Signatures of bundles: Ed25519 over the bytes of the manifest, which names every file of the bundle by its sha256.

The signature lies beside the manifest and is listed nowhere, so signing changes no digest; the same key signs the same
manifest with the same bytes. Anybody can check one: `openssl pkeyutl -verify -pubin -inkey KEY.pem -rawin
-in manifest.json -sigfile manifest.json.sig`.

CLICKTRAIL_SIGNING_KEY names what `python -m serving.build` signs with, CLICKTRAIL_TRUSTED_KEYS whose signatures are
demanded. `cryptography` is loaded only where one of them is set.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from clicktrail.publish import publish_bytes
from serving.manifest import MANIFEST, SIGNATURE, Manifest, RefusedError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_HOW = "openssl genpkey -algorithm ed25519 makes one"


def sign(root: Path, key: Path) -> None:
    """Write the signature of the bundle in `root` beside its manifest, in one step.

    Raises:
        ValueError: the key cannot be read.
    """
    publish_bytes(root / SIGNATURE, _private(key).sign((root / MANIFEST).read_bytes()), "bundle.signature")


def check_signature(manifest: Manifest, trusted: Path) -> str:
    """One of the trusted keys signed this bundle; returns its file's name.

    Args:
        manifest: of the bundle.
        trusted: public key (PEM), or a folder of them (`*.pem`).

    Raises:
        RefusedError: none did, or the keys cannot be read.
    """
    keys = _public(trusted)
    from cryptography.exceptions import InvalidSignature

    signed = (manifest.root / MANIFEST).read_bytes()
    try:
        found = (manifest.root / SIGNATURE).read_bytes()
    except FileNotFoundError:
        message = (
            f"{manifest.tag} is not signed, and CLICKTRAIL_TRUSTED_KEYS ({trusted}) demands it: build it again with "
            "CLICKTRAIL_SIGNING_KEY"
        )
        raise RefusedError(message) from None
    for name, key in keys.items():
        try:
            key.verify(found, signed)
        except InvalidSignature:
            continue
        return name
    message = (
        f"the signature of {manifest.tag} is by none of the keys in {trusted}, or the manifest was changed: take the "
        "bundle from whoever signs, or add their public key"
    )
    raise RefusedError(message)


def _private(path: Path) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        message = (
            f"CLICKTRAIL_SIGNING_KEY names {path}, which is no private key in PEM without a password ({error}); {_HOW}"
        )
        raise ValueError(message) from error
    if not isinstance(key, Ed25519PrivateKey):
        message = f"CLICKTRAIL_SIGNING_KEY names {path}, which is no Ed25519 key; {_HOW}"
        raise ValueError(message)  # noqa: TRY004 - a setting that is wrong, as above
    return key


def _public(path: Path) -> dict[str, Ed25519PublicKey]:
    """Public keys by the names of their files."""
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError as error:
        message = (
            f"CLICKTRAIL_TRUSTED_KEYS is set, but signatures cannot be checked here: install cryptography ({error})"
        )
        raise RefusedError(message) from error

    files = sorted(path.glob("*.pem")) if path.is_dir() else [path]
    out: dict[str, Ed25519PublicKey] = {}
    for file in files:
        try:
            key = load_pem_public_key(file.read_bytes())
        except (OSError, ValueError) as error:
            message = f"CLICKTRAIL_TRUSTED_KEYS names {file}, which is no public key in PEM ({error})"
            raise RefusedError(message) from error
        if not isinstance(key, Ed25519PublicKey):
            message = f"CLICKTRAIL_TRUSTED_KEYS names {file}, which is no Ed25519 key"
            raise RefusedError(message)
        out[file.name] = key
    if not out:
        message = (
            f"CLICKTRAIL_TRUSTED_KEYS names {path}, in which there is no .pem file: put the trusted public keys there"
        )
        raise RefusedError(message)
    return out
