"""Check all settings and print those in force: ``python -m services.local.config [FILE]``.

Without a file they are those of ``make run`` in this environment; with one, such as ``.env``, those
that the containers take from it.
"""

import os
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from dotenv import dotenv_values
from pydantic import SecretStr
from pydantic_settings import BaseSettings

from services.batch.settings import BatchSettings, webhook_faults
from services.dashboard.settings import DashboardSettings
from services.history.settings import HistorySettings
from services.inference.settings import InferenceSettings, bundle_faults
from services.local.components import environment, service_url
from services.local.settings import LocalSettings, run_faults
from shared.access.api_keys import ApiKey
from shared.observability.tracing import tracing_faults
from shared.pipes import ends_with_its_reader
from shared.settings import UnusableSettings, misspelt, read_settings
from shared.web.settings import ServerSettings

Kinds = Mapping[str, type[BaseSettings]]

_SERVICES: Final[Kinds] = {
    "every service": ServerSettings,
    "inference": InferenceSettings,
    "history and its consumer": HistorySettings,
    "batch and its worker": BatchSettings,
    "dashboard": DashboardSettings,
}
_RUN: Final[Kinds] = {"make run": LocalSettings, **_SERVICES}
_TEMPLATE: Final = Path(__file__).parents[2] / ".env.example"
_PASSWORD: Final = re.compile(r"(?<=://)([^:@/]*):.*@")


def check_settings() -> LocalSettings:
    """The settings of a local run; raises ``UnusableSettings`` with the faults of all processes."""
    _check(_RUN, tracing_faults())
    settings = LocalSettings()
    faults = run_faults(settings)
    faults += bundle_faults(InferenceSettings()) + webhook_faults(BatchSettings())
    if faults:
        raise UnusableSettings(faults)
    return settings


def _check(kinds: Kinds, faults: Sequence[str] = ()) -> None:
    found = dict.fromkeys(faults)
    for kind in kinds.values():
        try:
            read_settings(kind)
        except UnusableSettings as error:
            found |= dict.fromkeys(error.faults)
    if found:
        raise UnusableSettings(list(found))


def _of_run() -> Iterator[str]:
    """A line for each setting of a run that starts now in this environment."""
    settings = check_settings()
    yield from _lines({"make run": LocalSettings}, missing="(embedded)")
    os.environ |= environment(
        host=settings.local_host,
        database_url=settings.database_url or "postgresql:///",
        redis_url=settings.redis_url or "unix://",
        inference_url=service_url(settings.local_host, settings.inference_port),
        history_url=service_url(settings.local_host, settings.history_port),
        batch_url=service_url(settings.local_host, settings.batch_port),
        api_key="not made yet",
        bundle_store=str(settings.bundle_store),
    )
    yield from _lines(_SERVICES, left_out=set(LocalSettings.model_fields))


def _of_containers(file: str) -> Iterator[str]:
    """A line for each setting that the containers take from ``file``."""
    os.environ.clear()
    os.environ |= {name: value for name, value in dotenv_values(file).items() if value}
    names = set(re.findall(r"^#?([A-Z_]+)=", _TEMPLATE.read_text(encoding="utf-8"), re.MULTILINE))
    _check(_SERVICES, [*misspelt(names), *tracing_faults()])
    fields = {name for kind in _SERVICES.values() for name in kind.model_fields}
    yield from _lines(_SERVICES, left_out={name for name in fields if name.upper() not in names})


def _lines(kinds: Kinds, *, left_out: Collection[str] = (), missing: str = "") -> Iterator[str]:
    seen = set(left_out)
    for process, kind in kinds.items():
        settings = kind()
        names = [name for name in kind.model_fields if name not in seen]
        if names:
            yield f"{process}:"
        for name in names:
            value = getattr(settings, name)
            text = _shown(value, missing) if kind.model_fields[name].repr else _hidden(value)
            default = "" if name in settings.model_fields_set else "  (default)"
            yield f"  {name.upper()}={text}{default}"
        seen |= set(names)


def _shown(value: object, missing: str = "") -> str:
    if value is None:
        return missing
    if isinstance(value, SecretStr):
        return _hidden(value)
    if isinstance(value, tuple):
        return "; ".join(map(_shown, value))
    if isinstance(value, ApiKey):
        return f"{value.caller.name} may {', '.join(sorted(value.caller.scopes))}"
    return _PASSWORD.sub(r"\1:***@", str(value))


def _hidden(value: object) -> str:
    return "" if value is None else "(hidden)"


def main(arguments: Sequence[str]) -> int:
    """Print the settings; the exit code is 1, after one line per fault, if one is unusable."""
    try:
        lines = list(_of_containers(arguments[0]) if arguments else _of_run())
    except UnusableSettings as error:
        print(error, file=sys.stderr)
        return 1
    with ends_with_its_reader(0):
        print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
