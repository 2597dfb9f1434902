"""Secrets told by the form they stand in: each form masked, its template left alone."""

from __future__ import annotations

import pytest

from policies.redact.whole import redact_text

VALUE = "q7Rw2xLp9TzK4mVn8BcD"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (f"sshpass -p {VALUE} ssh ann", "sshpass -p [PASSWORD] ssh ann"),
        (f"mysql -u root -p{VALUE} shop", "mysql -u root -p[PASSWORD] shop"),
        (f"<dbPassword>{VALUE}</dbPassword>", "<dbPassword>[PASSWORD]</dbPassword>"),
        ("<password>swordfish</password>", "<password>[PASSWORD]</password>"),
        ("define('AUTH_KEY', 'a$b^7 k(2)=x');", "define('AUTH_KEY', '[API_KEY]');"),
        ("jdbc:oracle:thin:scott/t1ger@//h:1521/x", "[DB_CONNECTION_STRING]"),
        (f"?se=2026&sig={VALUE}H5jX3sYd6fGh1vWr%3D&sp=r", "?se=2026&sig=[API_KEY]&sp=r"),
        ("POST https://hooks.zapier.com/hooks/catch/1234567/b2cd3ef/", "POST https://[WEBHOOK_URL]/"),
        (f"fastly: {VALUE}", "fastly: [API_KEY]"),
        (f"cookie: session={VALUE}; path=/", "cookie: session=[AUTH_TOKEN]; path=/"),
        (f"---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\n{VALUE}\n---- END SSH2 ENCRYPTED PRIVATE KEY ----", "[PRIVATE_KEY]"),
        (f"mot de passe : {VALUE}", "[PASSWORD]"),
    ],
)  # fmt: skip
def test_a_form_is_masked(text: str, masked: str) -> None:
    """What stands where only a secret stands is replaced, and nothing around it."""
    assert redact_text(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "sshpass -p $PASSWORD ssh ann",
        "mysql -u root -p shop",
        "mysql -P3306 -h db",
        "<password>${db.password}</password>",
        '["password", "Enter 2 words"]',
        "define('AUTH_KEY', 'put your unique phrase here');",
        "github_commit: 3f786850e387550fdab836ed7e6dc881de23001b",
        "openai_base_url=https://api.openai.com/v1",
        "session=spring-training-2024",
        "postgres://${USER}:${PASS}@host/db",
        "postgres://app:<password>@host/db",
        "compass=N45",
        "see section 4.2.1.3",
        "draw of 07 11 23 36 40 45",
        "integrity: sha512-" + (VALUE * 5)[:86] + "==",
        "ghp_" + "x" * 36,
    ],
)
def test_a_template_is_left_alone(text: str) -> None:
    """Placeholders, variables, hashes and code in the same forms are no secrets."""
    assert redact_text(text) == text
