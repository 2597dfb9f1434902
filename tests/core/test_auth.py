"""Who calls: keys by digest, expiry, on behalf, loopback, permissions."""

import hashlib

import pytest

from proxy.auth import ALL, Authenticator, hash_key, require
from proxy.clock import Clock
from proxy.config.load import ConfigError, load_text
from proxy.errors import ApiError
from tests.fakes.clock import StillClock
from tests.policies.build import ECHO

KEY = "lsk_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"


def authenticator(keys: str, more: str = "", teams: str = "{}", clock: Clock | None = None) -> Authenticator:
    config = load_text(ECHO + f"teams: {teams}\nauth:\n  keys: [{keys}]\n{more}", {"OPS": KEY + "ops"})
    return Authenticator(config.auth, config.teams, clock or Clock())


def headers(key: str, **more: str) -> dict[bytes, bytes]:
    found = {b"authorization": f"Bearer {key}".encode()}
    return found | {name.replace("_", "-").encode(): value.encode() for name, value in more.items()}


def code(auth: Authenticator, given: dict[bytes, bytes]) -> str:
    try:
        return "ok:" + auth.caller(given).key_id
    except ApiError as error:
        return error.code


ONE = f'{{id: a, hash: "{hash_key(KEY)}", user: ann, roles: [generate]}}'


def test_a_key_is_found_by_its_hash_and_by_nothing_like_it():
    """Only the whole key counts: prefixes, extensions, the hash itself and other cases are unknown."""
    auth = authenticator(ONE)
    assert code(auth, headers(KEY)) == "ok:a"
    assert code(auth, {b"api-key": KEY.encode()}) == "ok:a"
    assert code(auth, {b"authorization": b"bEaReR " + KEY.encode()}) == "ok:a"
    for wrong in (
        KEY[:-1],
        KEY + "a",
        KEY.upper(),
        hash_key(KEY),
        hashlib.sha256(KEY.encode()).hexdigest(),
        "",
        " ",
        "' OR '1'='1",
    ):
        assert code(auth, headers(wrong)) == "invalid_api_key"
    assert code(auth, {}) == "invalid_api_key"
    assert code(auth, {b"authorization": b"Basic " + KEY.encode()}) == "invalid_api_key"


@pytest.mark.parametrize("key", [f" {KEY}", f"{KEY} ", f"{KEY}\u00a0"])
def test_a_key_that_no_request_could_carry_is_refused_at_load(key):
    """White space around a header's value is no part of it: such a key would let nobody in, and say nothing."""
    with pytest.raises(ConfigError, match="no request could carry this key"):
        load_text(ECHO + "auth: {keys: [{id: a, key: '${OPS}'}]}", {"OPS": key})


def test_two_keys_with_a_long_common_prefix_are_two_callers():
    """Verdicts are cached by the whole credential (E7)."""
    first, second = "x" * 200 + "1", "x" * 200 + "2"
    auth = authenticator(f'{{id: a, hash: "{hash_key(first)}"}}, {{id: b, hash: "{hash_key(second)}"}}')
    for _ in range(2):
        assert code(auth, headers(first)) == "ok:a"
        assert code(auth, headers(second)) == "ok:b"


def test_a_key_may_stand_in_the_file_by_variable():
    """`key: ${NAME}` works like its hash, and its value is in no repr."""
    auth = authenticator('{id: ops, key: "${OPS}"}')
    assert code(auth, headers(KEY + "ops")) == "ok:ops"


def test_an_expired_key_is_refused_even_if_it_was_just_good():
    """Expiry is looked at on every call, cached verdict or not."""
    clock = StillClock(1798761599.0)  # a second before 2027-01-01 in UTC
    auth = authenticator(f'{{id: a, hash: "{hash_key(KEY)}", expires: "2027-01-01"}}', clock=clock)
    assert code(auth, headers(KEY)) == "ok:a"
    clock.advance(1)
    assert code(auth, headers(KEY)) == "invalid_api_key"


def test_others_are_named_only_by_keys_that_may():
    """x-llm-user and x-llm-team are honoured with on_behalf, ignored without, and never widen permissions."""
    behalf = f'{{id: a, hash: "{hash_key(KEY)}", user: svc, roles: [generate], on_behalf: true}}'
    caller = authenticator(behalf).caller(headers(KEY, x_llm_user="zoë", x_llm_team="other"))
    assert (caller.team, caller.user) == ("other", "zoë")
    assert caller.permissions == {"llm:generate"}
    assert not caller.on_behalf
    plain = authenticator(ONE).caller(headers(KEY, x_llm_user="zoë", x_llm_team="other"))
    assert (plain.team, plain.user) == ("default", "ann")


@pytest.mark.parametrize("name", ["a{b}", "x" * 129, "line\nbreak", "\x00"])
def test_names_that_could_break_a_key_or_a_log_line_are_refused(name):
    """A team's name goes into store keys and log lines: braces, control characters and long names are 400."""
    behalf = f'{{id: a, hash: "{hash_key(KEY)}", on_behalf: true}}'
    assert code(authenticator(behalf), headers(KEY, x_llm_team=name)) == "invalid_request"


def test_unknown_teams():
    """With listed teams an unlisted one is refused; `unknown_team: default` lets it be."""
    behalf = f'{{id: a, hash: "{hash_key(KEY)}", team: known, on_behalf: true}}'
    auth = authenticator(behalf, teams="{known: {}}")
    assert code(auth, headers(KEY, x_llm_team="known")) == "ok:a"
    assert code(auth, headers(KEY, x_llm_team="stranger")) == "unknown_team"
    lax = authenticator(behalf, "  unknown_team: default\n", teams="{known: {}}")
    assert code(lax, headers(KEY, x_llm_team="stranger")) == "ok:a"


def test_without_auth_everyone_is_local():
    """No `auth:` means user `local` of team `default` with every permission (and loopback only)."""
    caller = Authenticator(None, (), Clock()).caller({})
    assert (caller.team, caller.user, caller.permissions) == ("default", "local", ALL)


def test_permissions_are_the_roles():
    """A key has what its roles grant, own roles included, and nothing else."""
    auth = authenticator(f'{{id: a, hash: "{hash_key(KEY)}", roles: [auditor]}}', '  roles: {auditor: ["llm:view"]}\n')
    caller = auth.caller(headers(KEY))
    require(caller, "llm:view")
    with pytest.raises(ApiError) as refused:
        require(caller, "llm:generate")
    assert refused.value.status == 403
