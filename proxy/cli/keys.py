"""`llm-sidecar keys`: client keys and their hashes, provider secrets and their encryption."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from proxy.cli import add

_EPILOG = """\
examples:
  llm-sidecar keys new                         a new client key, and the hash that llm.yml holds
  llm-sidecar keys hash < key.txt              the hash of a key that exists
  llm-sidecar keys encrypt < key.txt           a ${fernet:…} to write into llm.yml for a provider's key
  llm-sidecar keys reencrypt < token.txt       the same secret under the newest of LLM_SIDECAR_FERNET_KEYS

Secrets are read from standard input, never from the command line, where others could see them.
LLM_SIDECAR_FERNET_KEYS is a comma list of Fernet keys; the first one encrypts. Without it, `keys encrypt`
makes one and prints it.
"""


def register(commands: Any) -> None:
    """Add the command."""
    command = add(commands, "keys", "make, hash and encrypt keys", _EPILOG, config=False)
    actions = command.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, help in (
        ("new", "print a new client key and its hash"),
        ("hash", "print the hash of the client key on standard input"),
        ("encrypt", "encrypt the provider secret on standard input"),
        ("reencrypt", "encrypt the token on standard input anew, under the first key"),
    ):
        action = actions.add_parser(name, help=help, description=f"{help[:1].upper()}{help[1:]}.")
        action.add_argument("surplus", nargs="*", help=argparse.SUPPRESS)  # or argparse would repeat a secret


def run(args: argparse.Namespace) -> int:
    """Do what ``args.action`` says."""
    from proxy.config.dotenv import environment
    from proxy.config.expand import FernetError
    from proxy.config.problem import ConfigError

    try:
        if args.surplus:
            raise _NoSecret("a secret is read from standard input, never from the command line, where others see it")
        if args.action == "new":
            return _new()
        environ = environment(os.environ, os.getcwd())
        if args.action == "hash":
            return _hash()
        return _encrypt(environ) if args.action == "encrypt" else _reencrypt(environ)
    except (FernetError, ConfigError, _NoSecret) as error:
        print(f"llm-sidecar keys {args.action}: {error}", file=sys.stderr)
        return 1


class _NoSecret(Exception):
    """Standard input holds no secret."""


def new_key() -> str:
    """Return a client key: ``lsk_`` and 43 url-safe characters, 256 random bits."""
    import secrets

    return f"lsk_{secrets.token_urlsafe(32)}"


def _secret() -> str:
    if sys.stdin.isatty():
        import getpass

        text = getpass.getpass("secret: ")
    else:
        text = sys.stdin.read(1 << 16)
    text = text.strip()
    if not text or "\n" in text:
        raise _NoSecret("standard input must hold one secret, on one line")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _NoSecret("standard input must hold the secret as UTF-8 text") from None
    return text


def _new() -> int:
    from proxy.auth import hash_key

    key = new_key()
    print(f"key:  {key}")
    print(f"hash: {hash_key(key)}")
    if sys.stdout.isatty():
        print(
            "\nGive the key to its owner; it is shown only now. llm.yml needs the hash alone:\n"
            f'  auth:\n    keys:\n      - {{id: NAME, hash: "{hash_key(key)}", team: TEAM, roles: [generate]}}'
        )
    return 0


def _hash() -> int:
    from proxy.auth import hash_key

    print(hash_key(_secret()))
    return 0


def _encrypt(environ: dict[str, str]) -> int:
    from proxy.config.expand import FERNET_KEYS, fernet

    secret = _secret()
    if not environ.get(FERNET_KEYS, "").strip():
        from cryptography.fernet import Fernet

        key = Fernet.generate_key().decode()
        print(
            f"{FERNET_KEYS} is not set; here is a new key. Keep it out of the file that holds the token:\n"
            f"  {FERNET_KEYS}={key}",
            file=sys.stderr,
        )
        environ = {**environ, FERNET_KEYS: key}
    print(f"${{fernet:{fernet(environ).encrypt(secret.encode()).decode()}}}")
    return 0


def _reencrypt(environ: dict[str, str]) -> int:
    from cryptography.fernet import InvalidToken

    from proxy.config.expand import FERNET_KEYS, fernet

    token = _secret().removeprefix("${fernet:").removesuffix("}")
    box = fernet(environ)
    try:
        print(f"${{fernet:{box.rotate(token.encode()).decode()}}}")
    except InvalidToken:
        print(f"llm-sidecar keys reencrypt: the token opens with none of the keys in {FERNET_KEYS}", file=sys.stderr)
        return 1
    return 0
