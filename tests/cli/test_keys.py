"""`llm-sidecar keys`."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys

from cryptography.fernet import Fernet

from proxy.config.load import load_text
from tests.cli.conftest import Run
from tests.fakes.process import ROOT


def test_new_keys_are_random_and_match_their_hash(run: Run) -> None:
    """`keys new` prints `lsk_` and 43 url-safe characters, and the hash that llm.yml takes."""
    seen = set()
    for _ in range(3):
        result = run("keys", "new")
        match = re.fullmatch(r"key:  (lsk_[A-Za-z0-9_-]{43})\nhash: (sha256:[0-9a-f]{64})\n", result.out)
        assert match, result.out
        assert match[2] == "sha256:" + hashlib.sha256(match[1].encode()).hexdigest()
        load_text(f"providers: {{echo: null}}\nauth: {{keys: [{{id: k, hash: '{match[2]}'}}]}}")
        seen.add(match[1])
    assert len(seen) == 3


def test_the_hash_of_a_key(run: Run) -> None:
    """`keys hash` reads the key from standard input, where no process list shows it."""
    assert run("keys", "hash", stdin="abc\n").out.strip() == "sha256:" + hashlib.sha256(b"abc").hexdigest()
    result = run("keys", "hash", stdin="")
    assert (result.code, result.out) == (1, "")
    assert "must hold one secret" in result.err


def test_a_secret_that_is_no_text_is_refused() -> None:
    """Bytes that are not UTF-8 on standard input are a sentence and exit code 1, for each command that reads a secret."""
    for command in ("hash", "encrypt", "reencrypt"):
        result = subprocess.run(
            [sys.executable, "-m", "proxy", "keys", command], input=b"\xff\xfesecret\n", capture_output=True, cwd=ROOT,
            env={**os.environ, "LANG": "C.UTF-8"}, check=False,
        )  # fmt: skip
        assert (result.returncode, result.stdout) == (1, b"")
        assert b"as UTF-8 text" in result.stderr
        assert b"Traceback" not in result.stderr


def test_a_secret_on_the_command_line_is_refused_and_not_repeated(run: Run) -> None:
    """Whoever types it after the command learns where it belongs; no error message holds it."""
    for action in ("hash", "encrypt", "reencrypt"):
        result = run("keys", action, "sk-typed-here", stdin="abc\n")
        assert (result.code, result.out) == (1, "")
        assert "read from standard input" in result.err and "sk-typed-here" not in result.err


def test_encrypt_and_reencrypt(run: Run) -> None:
    """A token made here opens in llm.yml; re-encryption moves it under the newest key."""
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    token = run("keys", "encrypt", stdin="sk-secret-123\n", LLM_SIDECAR_FERNET_KEYS=old).out.strip()
    assert "sk-secret" not in token
    moved = run("keys", "reencrypt", stdin=f"{token}\n", LLM_SIDECAR_FERNET_KEYS=f"{new},{old}").out.strip()
    assert moved != token
    config = load_text(f"providers: {{openai: {{api_key: '{moved}'}}}}", {"LLM_SIDECAR_FERNET_KEYS": new})
    assert config.providers["openai"].settings.api_key[0].get_secret_value() == "sk-secret-123"
    result = run("keys", "reencrypt", stdin=moved, LLM_SIDECAR_FERNET_KEYS=old)
    assert result.code == 1
    assert "opens with none of the keys" in result.err


def test_encrypt_without_a_key_makes_one(run: Run) -> None:
    """The first use needs no preparation; the new key goes to standard error, the token alone to standard output."""
    result = run("keys", "encrypt", stdin="sk-secret-123")
    key = re.search(r"LLM_SIDECAR_FERNET_KEYS=(\S+)", result.err)
    assert key
    match = re.fullmatch(r"\$\{fernet:(\S+)\}\n", result.out)
    assert match
    assert Fernet(key[1]).decrypt(match[1]) == b"sk-secret-123"
