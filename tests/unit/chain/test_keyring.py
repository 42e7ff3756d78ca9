"""Keys load from the network's keyring and from hex files, sign as the chain wants it, and never show a secret."""

from __future__ import annotations

import base64
import json
import os
import pickle
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from dapi.chain.keyring import SigningKey, load_signing_key, load_signing_key_file
from dapi.errors import ConfigError, DapiError, StartError

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "vectors" / "keyring.json").read_text("utf-8"))
PASSWORD: str = VECTORS["password"]
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141

secrets = st.integers(1, ORDER - 1).map(lambda number: number.to_bytes(32, "big"))


class KeyringFolderTests(SynchronousTestCase):
    """Keyring files made by another implementation: see tests/vectors/README.md."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        for name, content in VECTORS["files"].items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    def load(self, backend: str, name: str, password: str | None = PASSWORD) -> SigningKey:
        return load_signing_key(backend, str(self.folder), name, password)

    def refusal(self, backend: str, name: str, password: str | None = PASSWORD) -> str:
        """Return the message of the StartError, having looked for secrets in it and in its traceback."""
        error = self.assertRaises(StartError, self.load, backend, name, password)
        self.assert_no_secret(error)
        return str(error)

    def assert_no_secret(self, error: DapiError) -> None:
        shown = Failure(error).getTraceback() + repr(error) + repr(error.__cause__)
        for secret in (PASSWORD, "secret words", VECTORS["participant"]["secret"], VECTORS["warm"]["secret"]):
            self.assertNotIn(secret, shown)
            self.assertNotIn(base64.b64encode(secret.encode()).decode(), shown)

    def test_backend_file(self) -> None:
        key = self.load("file", "participant")
        self.assertEqual(key.public_key.hex(), VECTORS["participant"]["public_key"])
        self.assertEqual(key.address, VECTORS["participant"]["address"])

    def test_backend_test_needs_no_password(self) -> None:
        for password in (None, "", "another"):
            key = self.load("test", "participant", password)
            self.assertEqual(key.address, VECTORS["participant"]["address"])

    def test_name_with_a_slash_and_a_percent_sign(self) -> None:
        self.assertEqual(self.load("test", "warm/gpu 1%").address, VECTORS["warm"]["address"])

    def test_unknown_fields_are_ignored(self) -> None:
        self.assertEqual(self.load("test", "later").address, VECTORS["warm"]["address"])

    def test_white_space_around_the_file_is_ignored(self) -> None:
        path = self.folder / "keyring-test" / "participant.info"
        path.write_text(f"{path.read_text()}\n")
        self.assertEqual(self.load("test", "participant").address, VECTORS["participant"]["address"])

    def test_home_folder(self) -> None:
        self.patch(os, "environ", {**os.environ, "HOME": str(self.folder)})
        key = load_signing_key("file", "~", "participant", PASSWORD)
        self.assertEqual(key.address, VECTORS["participant"]["address"])

    def test_wrong_password(self) -> None:
        message = self.refusal("file", "participant", "wrong password")
        self.assertIn("wrong password", message)
        self.assertIn("KEYRING_PASSWORD", message)

    def test_damaged_file(self) -> None:
        path = self.folder / "keyring-file" / "participant.info"
        head, dot, tag = path.read_text().rpartition(".")
        path.write_text(head + dot + ("B" if tag[0] == "A" else "A") + tag[1:])
        self.assertIn("damaged", self.refusal("file", "participant"))

    def test_a_file_of_the_other_backend(self) -> None:
        os.replace(self.folder / "keyring-file" / "participant.info", self.folder / "keyring-test" / "participant.info")
        self.assertIn("backend 'test'", self.refusal("test", "participant"))

    def test_missing_key_names_those_that_are_there(self) -> None:
        message = self.refusal("test", "nobody")
        for part in ("no key 'nobody'", "'participant'", "'warm/gpu 1%'"):
            self.assertIn(part, message)

    def test_missing_key_does_not_count_address_files(self) -> None:
        self.assertNotIn(".address", self.refusal("file", "nobody"))

    def test_a_name_cannot_leave_the_folder(self) -> None:
        self.assertIn("no key", self.refusal("test", "../keyring-file/participant"))

    def test_empty_folder(self) -> None:
        (self.folder / "empty" / "keyring-file").mkdir(parents=True)
        error = self.assertRaises(StartError, load_signing_key, "file", str(self.folder / "empty"), "any", PASSWORD)
        self.assertIn("there are no keys", str(error))

    def test_missing_folder(self) -> None:
        error = self.assertRaises(StartError, load_signing_key, "file", str(self.folder / "none"), "any", PASSWORD)
        self.assertIn("there is no keyring", str(error))
        self.assertIn("keyring_dir", str(error))

    def test_a_file_in_place_of_the_folder(self) -> None:
        (self.folder / "other").mkdir()
        (self.folder / "other" / "keyring-file").write_text("")
        error = self.assertRaises(StartError, load_signing_key, "file", str(self.folder / "other"), "any", PASSWORD)
        self.assertIn("cannot be read", str(error))

    def test_a_folder_in_place_of_the_file(self) -> None:
        (self.folder / "keyring-test" / "folder.info").mkdir()
        self.assertIn("cannot be read", self.refusal("test", "folder"))

    def test_kinds_that_cannot_sign(self) -> None:
        for kind in ("offline", "ledger", "multi"):
            message = self.refusal("test", kind)
            self.assertIn(f"of the kind '{kind}'", message)
            self.assertIn("holds no secret", message)

    def test_keys_of_another_type(self) -> None:
        self.assertIn("/cosmos.crypto.ed25519.PrivKey", self.refusal("test", "ed25519"))
        self.assertIn("ethsecp256k1", self.refusal("test", "ethereum"))

    def test_records_from_before_version_0_46(self) -> None:
        message = self.refusal("test", "legacy")
        self.assertIn("before version 0.46", message)
        self.assertIn("keys migrate", message)

    def test_damaged_records(self) -> None:
        self.assertIn("its public key does not belong", self.refusal("test", "mismatch"))
        for name in ("zero", "short"):
            self.assertIn("valid secp256k1 key", self.refusal("test", name))
        for name in ("empty", "noise"):
            self.assertIn("no keyring record", self.refusal("test", name))

    def test_what_the_password_is_hashed_with_is_bounded(self) -> None:
        self.assertIn("16385 rounds", self.refusal("file", "rounds"))

    def test_another_cipher(self) -> None:
        self.assertIn("PBES2-HS512+A256KW", self.refusal("file", "cipher"))

    def test_payloads_that_are_no_items(self) -> None:
        for name in ("payload", "text"):
            self.assertIn("does not hold a keyring item", self.refusal("file", name))

    def test_files_that_are_not_encrypted(self) -> None:
        header = base64.urlsafe_b64encode(b'{"alg":"PBES2-HS256+A128KW","enc":"A256GCM","p2c":"8192"}').decode()
        contents = [
            b"",
            b"a.b.c",
            b"a.a.a.a.a",
            b"\xff\xfe",
            b'{"ciphertext":"AA","iv":"AA","tag":"AA","header":{"alg":"PBES2-HS256+A128KW"}}',
            f"{header.rstrip('=')}.AA.AA.AA.AA".encode(),
        ]
        for content in contents:
            (self.folder / "keyring-file" / "participant.info").write_bytes(content)
            self.assertIn("is no keyring file", self.refusal("file", "participant"))

    def test_backends_that_are_not_supported(self) -> None:
        for backend in ("os", "", "File", "kwallet", "memory"):
            error = self.assertRaises(ConfigError, self.load, backend, "participant")
            self.assertIn(repr(backend), str(error))
            self.assertIn("file, test", str(error))

    def test_settings_that_are_missing(self) -> None:
        self.assertIn("signer_key_name", str(self.assertRaises(ConfigError, self.load, "file", "")))
        for password in (None, ""):
            error = self.assertRaises(ConfigError, self.load, "file", "participant", password)
            self.assertIn("KEYRING_PASSWORD", str(error))


class KeyFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.secret: str = VECTORS["warm"]["secret"]

    def write(self, content: str | bytes, mode: int = 0o600) -> str:
        self.path.write_bytes(content.encode() if isinstance(content, str) else content)
        self.path.chmod(mode)
        return str(self.path)

    def test_hex_in_all_its_forms(self) -> None:
        for text in (self.secret, f"0x{self.secret}\n", f"  {self.secret.upper()}\r\n"):
            key = load_signing_key_file(self.write(text))
            self.assertEqual(key.address, VECTORS["warm"]["address"])

    def test_refused_when_open_to_others(self) -> None:
        for mode in (0o640, 0o604, 0o660, 0o620, 0o777):
            error = self.assertRaises(StartError, load_signing_key_file, self.write(self.secret, mode))
            self.assertIn(f"{mode:03o}", str(error))
            self.assertIn("chmod 600", str(error))

    def test_read_only_is_fine(self) -> None:
        self.assertEqual(load_signing_key_file(self.write(self.secret, 0o400)).address, VECTORS["warm"]["address"])

    def test_refused_content(self) -> None:
        long = f"{self.secret}00"
        for content in ("", self.secret[:-1], long, f"{self.secret}g", f"{self.secret} {self.secret}", b"\xff" * 64):
            error = self.assertRaises(StartError, load_signing_key_file, self.write(content))
            self.assertIn("64 hex digits", str(error))
            self.assertNotIn(self.secret[:16], str(error))

    def test_refused_numbers(self) -> None:
        for number in (0, ORDER, 2**256 - 1):
            error = self.assertRaises(StartError, load_signing_key_file, self.write(f"{number:064x}"))
            self.assertIn("valid secp256k1 key", str(error))
            self.assertIsNone(error.__cause__)

    def test_unreadable(self) -> None:
        for path in (self.mktemp(), self.folder()):
            error = self.assertRaises(StartError, load_signing_key_file, path)
            self.assertIn("cannot be read", str(error))

    def folder(self) -> str:
        path = Path(self.mktemp())
        path.mkdir()
        return str(path)


class SigningKeyTests(SynchronousTestCase):
    @given(secret=secrets, message=st.binary(max_size=200))
    @settings(deadline=None)
    def test_signatures_verify_and_have_a_low_s(self, secret: bytes, message: bytes) -> None:
        key = SigningKey(secret)
        signature = key.sign(message)
        self.assertEqual(len(signature), 64)
        r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
        self.assertLessEqual(s, ORDER // 2)
        public_key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), key.public_key)
        public_key.verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))

    @given(secret=secrets, message=st.binary(max_size=200))
    @settings(deadline=None, max_examples=30)
    def test_signatures_have_the_nonce_of_rfc_6979(self, secret: bytes, message: bytes) -> None:
        """OpenSSL derives the same nonce, so r is the same; its s may be the high one."""
        other = ec.derive_private_key(int.from_bytes(secret, "big"), ec.SECP256K1())
        der = other.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
        signature = SigningKey(secret).sign(message)
        r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
        self.assertIn(der, [encode_dss_signature(r, s), encode_dss_signature(r, ORDER - s)])

    def test_a_published_signature(self) -> None:
        """The usual first vector of RFC 6979 on secp256k1: key 1 signs "Satoshi Nakamoto"."""
        self.assertEqual(
            SigningKey(bytes(31) + b"\x01").sign(b"Satoshi Nakamoto").hex(),
            "934b1ea10a4b3c1757e2b0c017d0b6143ce3c9a7e6a4a49860d7a6ab210ee3d8"
            "2442ce9d2b916064108014783e923ec36b49743e2ffa1c4496f01a512aafd9e5",
        )

    def test_shows_its_address_and_not_its_secret(self) -> None:
        key = SigningKey(bytes.fromhex(VECTORS["warm"]["secret"]))
        for shown in (repr(key), str(key), f"{key}"):
            self.assertEqual(shown, f"<SigningKey {VECTORS['warm']['address']}>")
        self.assertFalse(hasattr(key, "__dict__"))

    def test_cannot_be_pickled(self) -> None:
        self.assertRaises(TypeError, pickle.dumps, SigningKey(b"\x01" * 32))

    def test_refuses_other_lengths(self) -> None:
        for secret in (b"", b"\x01" * 31, b"\x01" * 33):
            self.assertRaises(ValueError, SigningKey, secret)
