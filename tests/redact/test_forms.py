"""Secrets told by the form they stand in: each form masked, its template left alone."""

from __future__ import annotations

from base64 import b64encode

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
        ('db_password              = "hunter2x9"', 'db_password              = "[PASSWORD]"'),
        ("db_password:             hunter2x9", "[PASSWORD]"),
        ("ENV['DB_PASSWORD'] ||= 'hunter2x9'", "ENV['DB_PASSWORD'] ||= '[PASSWORD]'"),
        ('var password = @"hunter2!";', 'var password = @"[PASSWORD]";'),
        ("password = b'hunter2x9'", "password = b'[PASSWORD]'"),
        ("- **Password:** hunter2x9", "- **Password:** [PASSWORD]"),
        ("**API key**: `zx81zx82zx83`", "**API key**: `[API_KEY]`"),
        ("Loaded DB_PASSWORD -> hunter2x9", "Loaded [PASSWORD]"),
        ('variable "db_password" {\n  type = string\n  default = "hunter2x9"\n}', 'variable "db_password" {\n  type = string\n  default = "[API_KEY]"\n}'),
        ("setx \u017fecret hunter2x9", "setx \u017fecret [API_KEY]"),
        ("mein Passwort lautet hunter2x9", "mein Passwort lautet [PASSWORD]"),
        ("la contraseña es hunter2x9", "la contraseña es [PASSWORD]"),
        ("DB_PASSWORDはhunter2x9です", "DB_PASSWORDは[PASSWORD]です"),
        (f"AWS_SECRET_ACCESS_KEY=/o/{VALUE}+fPoVn7hhj8Qz2Ks/", "[AWS_KEY]"),
        (f"  url: {b64encode(f'postgres://ann:{VALUE}@db/app'.encode()).decode()}", "  url: [CREDENTIALS]"),
        ("data: {id: QUtJQUlPU0ZPRE5ON0VYQU1QTEU=}", "data: {id: [CREDENTIALS]}"),
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
        "Password:            Username:",
        "**Token:** none",
        "$this->password->x1",
        "existingSecret: redis-auth",
        "Order number: 2024-101537",
        "la contraseña es obligatoria",
        'variable "db_password" {\n  type = string\n  sensitive = true\n}',
        "see aHR0cHM6Ly9leGFtcGxlLmNvbS9hL2xvbmcvcGF0aC90by9hL3BhZ2U= there",
        "data:image/png;base64,iVBORw0KGgo" + (VALUE * 3)[:45] + "/" + (VALUE * 3)[:40] + "ACRbXq7d2+" + VALUE,
        "see section 4.2.1.3",
        "draw of 07 11 23 36 40 45",
        "integrity: sha512-" + (VALUE * 5)[:86] + "==",
        "ghp_" + "x" * 36,
    ],
)
def test_a_template_is_left_alone(text: str) -> None:
    """Placeholders, variables, hashes and code in the same forms are no secrets."""
    assert redact_text(text) == text
