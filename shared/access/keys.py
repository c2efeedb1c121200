"""Make secrets: an API key for a caller, or all that a new installation needs.

Commands of ``python -m shared.access.keys``: ``mint NAME SCOPES [LIMITS]`` prints a secret, to be
shown once, and its entry for ``API_KEYS``; ``env <.env.example >.env`` fills in a template;
``password`` asks for a password and prints its ``DASHBOARD_PASSWORD``.
"""

import argparse
import getpass
import re
import secrets
import sys
from collections.abc import Sequence
from typing import Final

from shared.access.api_keys import DASHBOARD_SCOPES, KEY_SCOPES, mint_key
from shared.access.limits import UNLIMITED
from shared.access.passwords import password_entry

_OPERATOR_SCOPES: Final = [scope for scope in KEY_SCOPES if scope != "internal"]


def fill(template: str) -> str:
    """``template`` with a fresh value for each secret that it leaves empty (``NAME=``).

    Passwords are letters and digits only, so that they need no escaping in a URL.
    Raises ``ValueError`` when the template has no line for one of them.
    """
    api_key, operator = mint_key("operator", _OPERATOR_SCOPES)
    internal_key, internal = mint_key("internal", ["internal"])
    dashboard_key, dashboard = mint_key("dashboard", DASHBOARD_SCOPES)
    login = secrets.token_urlsafe(12)
    values = {
        "POSTGRES_PASSWORD": secrets.token_hex(24),
        "REDIS_PASSWORD": secrets.token_hex(24),
        "API_KEY": api_key,
        "INTERNAL_API_KEY": internal_key,
        "DASHBOARD_API_KEY": dashboard_key,
        "DASHBOARD_LOGIN": login,
        "DASHBOARD_PASSWORD": password_entry(login),
        "GRAFANA_PASSWORD": secrets.token_urlsafe(12),
        "API_KEYS": f'"{operator} {internal} {dashboard}"',
    }
    for name, value in values.items():
        template, found = re.subn(rf"^{name}=$", f"{name}={value}", template, flags=re.MULTILINE)
        if found != 1:
            raise ValueError(f"the template must have one line {name}=, it has {found}")
    return template


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the commands; the exit code is 0, or 2 with a reason on standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m shared.access.keys", description="Make secrets."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    mint = commands.add_parser("mint", help="a key for one caller")
    mint.add_argument("name", help="letters, digits and hyphens")
    mint.add_argument("scopes", help=f"some of {','.join(KEY_SCOPES)}")
    mint.add_argument("limits", nargs="?", default=UNLIMITED, help="e.g. 1000/hour;5000/day")
    commands.add_parser("env", help="fill in the template on standard input")
    commands.add_parser("password", help="the hash of a password, for DASHBOARD_PASSWORD")
    options = parser.parse_args(arguments)
    try:
        if options.command == "env":
            print(fill(sys.stdin.read()), end="")
        elif options.command == "password":
            print(password_entry(getpass.getpass("Password: ")))
        else:
            secret, entry = mint_key(options.name, options.scopes.split(","), options.limits)
            print(f"secret, shown only now:  {secret}\nentry for API_KEYS:      {entry}")
    except ValueError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
