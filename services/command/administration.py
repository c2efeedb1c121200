"""``loan-predictor bundle``, ``rollout``, ``what-if``: the history's admin routes, in words."""

import argparse
import io
import json
import re
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import httpx
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.command.main import STOPPED, WrongArguments
from services.scoring.manifest import (
    MANIFEST_FILE,
    SIGNATURE_FILE,
    BundleError,
    check_files,
    check_version,
    read_manifest,
)
from shared.contract.rollout import SHARES
from shared.contract.swaps import WhatIf
from shared.pictures.formats import EMPTY_PERIOD, NO_OUTCOMES, arm_title, rule_text
from shared.settings import HttpAddress, SecretKey, UnusableSettings, read_settings

Answer = Mapping[str, Any]

_OK: Final = 0
_DEADLINE_S: Final = 60.0
_WAIT_S: Final = 90.0
"""Longer than the replicas may take to load a roll-out."""
_POLL_S: Final = 0.25


class AdministrationSettings(BaseSettings):
    """Where the history service is, and the key for it."""

    model_config = SettingsConfigDict(extra="ignore", env_ignore_empty=True)

    history_url: HttpAddress = Field(default="http://127.0.0.1:8001")
    api_key: SecretKey | None = Field(default=None)


class Refused(Exception):
    """The service refused, or does not answer; the message is one sentence."""


class Service:
    """The admin routes."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def get(self, path: str, **parameters: str) -> Answer:
        """Read; raises ``Refused``."""
        return self._answer("GET", path, params=parameters)

    def post(self, path: str, **body: object) -> Answer:
        """Change something; raises ``Refused``."""
        return self._answer("POST", path, json=body)

    def delete(self, path: str) -> Answer:
        """Delete or cancel something; raises ``Refused``."""
        return self._answer("DELETE", path)

    def send(self, path: str, content: bytes) -> Answer:
        """Post a ZIP archive; raises ``Refused``."""
        headers = {"content-type": "application/zip"}
        return self._answer("POST", path, content=content, headers=headers)

    def _answer(self, method: str, path: str, **request: Any) -> Answer:
        try:
            answer = self._http.request(method, path, **request)
        except httpx.HTTPError as error:
            reason = re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or "no reason is known"
            raise Refused(f"{self._http.base_url} does not answer: {reason}.") from error
        try:
            body = answer.json()
        except ValueError:
            body = None
        if not isinstance(body, dict) or (answer.is_error and "detail" not in body):
            raise Refused(
                f"{self._http.base_url} answered with something else than this product does"
                f" (status {answer.status_code})."
            )
        if answer.is_error:
            raise Refused(" ".join([str(body["detail"]), *_faults(body)]))
        return body


def _faults(problem: Answer) -> Iterable[str]:
    for fault in problem.get("validation_errors", ()):
        if fault["message"] not in problem["detail"]:
            yield f"{fault['field']} {fault['message']}."


def run(options: argparse.Namespace) -> int:
    """Do what the command line says, and return its exit code."""
    act = _ACTIONS[options.room, options.action]
    try:
        with _connect(read_settings(AdministrationSettings)) as http:
            return act(Service(http), options)
    except BrokenPipeError:
        raise
    except (Refused, BundleError, UnusableSettings, OSError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return STOPPED


def _connect(settings: AdministrationSettings) -> httpx.Client:
    key = settings.api_key
    return httpx.Client(
        base_url=f"{settings.history_url.rstrip('/')}/admin/",
        headers={} if key is None else {"x-api-key": key.get_secret_value()},
        timeout=_DEADLINE_S,
    )


def _publish(service: Service, options: argparse.Namespace) -> int:
    folder: Path = options.folder
    manifest = read_manifest(folder / MANIFEST_FILE)
    version = manifest.version
    check_files(folder, manifest)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in (MANIFEST_FILE, *manifest.files):
            archive.write(folder / name, name)
        if (folder / SIGNATURE_FILE).is_file():
            archive.write(folder / SIGNATURE_FILE, SIGNATURE_FILE)
    before = [each for each in service.get("bundles")["bundles"] if each["version"] == version]
    if service.send("bundles", packed.getvalue()) in before:
        print(f"{version} was registered before; nothing has changed.")
    elif before:
        print(f"{version} was registered before, and is in the store now.")
    else:
        print(f"{version} is published; it decides nothing until a roll-out names it.")
    return _OK


def _list(service: Service, _: argparse.Namespace) -> int:
    for bundle in service.get("bundles")["bundles"]:
        print(_line(bundle))
    return _OK


def _line(bundle: Answer) -> str:
    by = bundle["published_by"]
    parts = [
        bundle["version"],
        f"champion {bundle['champion']}",
        f"published by {by} {_when(bundle['published_at'])}" if by else "ships with the product",
    ]
    if bundle["gate_passed"] is not None:
        parts.append("passed its gate" if bundle["gate_passed"] else "refused by its gate")
    parts += [f"retired by {bundle['retired_by']}"] if bundle["retired_by"] else []
    parts += [f"in roll-out {', '.join(map(str, bundle['uses']))}"] if bundle["uses"] else []
    return "  ".join(parts)


def _show_bundle(service: Service, options: argparse.Namespace) -> int:
    bundle = service.get(f"bundles/{options.version}")
    print(_line(bundle))
    print(f"models {', '.join(bundle['models'])}; trained on the data {bundle['data_sha256']}")
    if bundle["manifest"].get("gate"):
        print(f"gate {json.dumps(bundle['manifest']['gate'])}")
    print(bundle["card"] or "The bundle is not in the store, so there is no card.")
    return _OK


def _verify(service: Service, options: argparse.Namespace) -> int:
    found = service.post(f"bundles/{options.version}/verify")
    if not found["intact"]:
        raise Refused(found["fault"])
    print(f"{options.version} is intact.")
    return _OK


def _compare(service: Service, options: argparse.Namespace) -> int:
    found = service.get("bundles/compare", **{"of": options.of, "with": options.with_})
    print("The same data." if found["same_data"] else "Other data, so the folds are other ones.")
    for each in found["measured"]:
        values = f"{_interval(each['of'])}   {_interval(each['with'])}"
        print(f"{each['model']:24} {each['metric']:18} {values}")
    if found["differs"]:
        print(f"Otherwise different: {', '.join(found['differs'])}")
    return _OK


def _interval(value: Answer | None) -> str:
    if value is None:
        return f"{'-':24}"
    return f"{value['value']:.4f} ({value['low']:.4f} to {value['high']:.4f})"


def _retire(service: Service, options: argparse.Namespace) -> int:
    service.post(f"bundles/{options.version}/retire", reason=options.reason)
    print(f"{options.version} is retired; it stays in the store, for replays.")
    return _OK


def _show_rollout(service: Service, _: argparse.Namespace) -> int:
    status = service.get("rollout")
    if status["active"] is None:
        print("Nothing is rolled out: each replica decides by its own default.")
    for name in ("active", "pending", "proposed"):
        if status[name] is not None:
            print(_described(status[name]))
    for replica in status["replicas"]:
        if not replica["alive"]:
            print(f"replica {replica['replica']}  not heard of since {replica['seen_at']}")
            continue
        fault = f"  {replica['failure']}" if replica["failure"] else ""
        seen = f"seen {replica['seen_s_ago']:.1f} s ago"
        own = f" (its own default, {replica['bundle']})" if replica["epoch"] == 0 else ""
        print(f"replica {replica['replica']}  at {replica['epoch']}{own}  {seen}{fault}")
    return _OK


def _described(entry: Answer) -> str:
    rollout = entry["rollout"]
    parts = [f"roll-out {entry['epoch']} ({entry['state']}): {_arm_text(rollout['default'])}"]
    if candidate := rollout["candidate"]:
        share = 100 * candidate["share"] / SHARES
        parts.append(f"{share:g} % meet {_arm_text(candidate)} ({rollout['experiment']})")
    parts += (f"shadow {_arm_text(shadow)}" for shadow in rollout["shadows"])
    parts.append(f"by {entry['proposed_by']} {_when(entry['proposed_at'])}: {entry['reason']}")
    parts += [entry["why"]] if entry["why"] else []
    return "; ".join(parts)


def _set(service: Service, options: argparse.Namespace) -> int:
    if (options.candidate is None) != (options.share is None):
        raise WrongArguments("--candidate and --share are given together.")
    candidate = None
    if options.candidate is not None:
        candidate = {**_arm(service, options.candidate), "share": options.share}
    return _change(
        service,
        options,
        "rollout",
        default=_arm(service, options.default),
        candidate=candidate,
        shadows=[_arm(service, shadow) for shadow in options.shadow],
    )


def _arm(service: Service, text: str) -> dict[str, str]:
    bundle, _, model = text.partition("/")
    if not model:
        model = service.get(f"bundles/{check_version(bundle)}")["champion"]
    return {"bundle": bundle, "model": model}


def _arm_text(arm: Answer) -> str:
    return f"{arm['bundle']}/{arm['model']}"


def _promote(service: Service, options: argparse.Namespace) -> int:
    return _change(service, options, "rollout/promote")


def _roll_back(service: Service, options: argparse.Namespace) -> int:
    return _change(service, options, "rollout/rollback")


def _change(service: Service, options: argparse.Namespace, path: str, **body: object) -> int:
    epoch = service.get("rollout")["epoch"] if options.epoch is None else options.epoch
    return _follow(service, service.post(path, epoch=epoch, reason=options.reason, **body))


def _approve(service: Service, options: argparse.Namespace) -> int:
    return _follow(service, service.post(f"rollout/{options.epoch}/approve"))


def _follow(service: Service, entry: Answer) -> int:
    """Wait until the replicas have agreed on a roll-out, and say what came of it."""
    deadline_s = time.monotonic() + _WAIT_S
    while entry["state"] == "pending" and time.monotonic() < deadline_s:
        time.sleep(_POLL_S)
        recent = service.get("rollout")["recent"]
        entry = next(each for each in recent if each["epoch"] == entry["epoch"])
    print(_described(entry))
    return STOPPED if entry["state"] in ("failed", "superseded") else _OK


def _report(service: Service, options: argparse.Namespace) -> int:
    named = {} if options.experiment is None else {"experiment": options.experiment}
    report = service.get("rollout/report", **named)
    for name in ("default", "candidate"):
        arm = report[name]
        share = _interval(arm["approval_share"])
        print(
            f"{name:10} {_arm_text(arm['arm'])}  {arm['decisions']:,} decisions, approved {share}"
        )
        print(f"{'':10} {arm['good']:,} good and {arm['bad']:,} bad outcomes")
    least = f"too few yet: each arm needs {report['least']}"
    for name in ("approval", "outcomes"):
        print(f"{name}: {report[name]['sentence'] if report[name] else least}")
    if report["guard"]["crossed"]:
        print(report["guard"]["crossed"])
    return _OK


def _ask(service: Service, options: argparse.Namespace) -> int:
    by = options.decided_by
    order = {
        "since": options.since,
        "until": options.until,
        "decided_by": None if by is None else _arm(service, by),
        "arm": None if options.arm is None else _arm(service, options.arm),
        "threshold": options.threshold,
        "refer": options.refer and dict(zip(("low", "high"), options.refer, strict=True)),
        "costs": dict(options.cost) or None,
    }
    return _shown(service, service.post("what-if", **order), options)


def _show_what_if(service: Service, options: argparse.Namespace) -> int:
    return _shown(service, service.get(f"what-if/{options.id}"), options)


def _list_what_ifs(service: Service, _: argparse.Namespace) -> int:
    for status in service.get("what-if")["items"]:
        print(_what_if(status))
    return _OK


def _cancel(service: Service, options: argparse.Namespace) -> int:
    print(_what_if(service.delete(f"what-if/{options.id}")))
    return _OK


def _shown(service: Service, status: Answer, options: argparse.Namespace) -> int:
    """Say what a what-if has found; with ``--wait`` once it has ended, and how far it is till then.

    The exit code is that of success unless it has failed.
    """
    seen = ""
    while options.wait and status["state"] in ("queued", "running"):
        if seen != (seen := _progress(status)):
            print(seen, file=sys.stderr)
        time.sleep(_POLL_S)
        status = service.get(f"what-if/{status['id']}")
    print(_what_if(status))
    if status["problem"]:
        raise Refused(status["problem"])
    if status["swaps"]:
        for line in _found(status):
            print(line)
    return _OK


def _what_if(status: Answer) -> str:
    order = WhatIf.model_validate_json(json.dumps(status["order"]))
    return f"{_progress(status)}  {rule_text(order)}; {_period(order)}"


def _period(order: WhatIf) -> str:
    parts = [f"of {arm_title(order.decided_by)}"] if order.decided_by else []
    parts += [f"since {order.since}"] if order.since else []
    parts += [f"before {order.until}"] if order.until else []
    return " ".join(["decisions", *parts]) if parts else "all decisions"


def _progress(status: Answer) -> str:
    progress = status["progress"]
    read = f"{progress['read']:,} of {progress['expected']:,} decisions"
    by = f"by {status['created_by']} {_when(status['created_at'])}"
    return f"{status['id']}  {status['state']}  {read}  {by}"


def _found(status: Answer) -> Iterable[str]:
    swaps, cost = status["swaps"], status["cost"]
    if not swaps["all"]["decisions"] and not swaps["unscored"]:
        yield EMPTY_PERIOD
        return
    yield from _swap_lines(swaps)
    if cost is not None:
        yield (
            f"cost {cost['on_record']:,.2f} on record, {cost['instead']:,.2f} instead; a decision"
            f" {_interval(cost['difference']).strip()}. {cost['on_whom']}"
        )
    elif status["order"]["costs"]:
        yield NO_OUTCOMES


def _swap_lines(swaps: Answer) -> Iterable[str]:
    parts = [("all", swaps["all"])]
    parts += [
        (f"probability {each['low']:.2f} to {each['high']:.2f}", each) for each in swaps["bands"]
    ]
    for attribute in swaps["attributes"]:
        parts += [
            (f"{attribute['attribute']} {each['group']}", each) for each in attribute["groups"]
        ]
    for name, part in parts:
        yield (
            f"{name:28}{part['decisions']:>12,}  newly approved {part['newly_approved']:,},"
            f" newly refused {part['newly_refused']:,}, referred {part['referred']:,};"
            f" approvals {_interval(part['difference']).strip()}"
        )


def _when(moment: str) -> str:
    return f"{moment[:16].replace('T', ' ')} UTC"


_ACTIONS: Final[Mapping[tuple[str, str], Callable[[Service, argparse.Namespace], int]]] = {
    ("bundle", "publish"): _publish,
    ("bundle", "list"): _list,
    ("bundle", "show"): _show_bundle,
    ("bundle", "verify"): _verify,
    ("bundle", "compare"): _compare,
    ("bundle", "retire"): _retire,
    ("rollout", "show"): _show_rollout,
    ("rollout", "set"): _set,
    ("rollout", "approve"): _approve,
    ("rollout", "promote"): _promote,
    ("rollout", "rollback"): _roll_back,
    ("rollout", "report"): _report,
    ("what-if", "ask"): _ask,
    ("what-if", "list"): _list_what_ifs,
    ("what-if", "show"): _show_what_if,
    ("what-if", "cancel"): _cancel,
}
