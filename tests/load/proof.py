"""Proof that every acknowledged decision is in the history exactly once."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import httpx
from tqdm import tqdm

_PAGE: Final = 100
_POLL_S: Final = 0.5
_TIMEOUT_S: Final = 30.0


class NotProved(Exception):
    """The history could not be read to its end; the message says why."""


@dataclass(frozen=True)
class Proof:
    """The comparison of the acknowledged decisions with the history.

    ``missing`` were acknowledged but not stored. ``doubled`` were acknowledged to two requests or
    stored twice.
    """

    acknowledged: int
    stored: int
    missing: tuple[str, ...]
    doubled: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether each decision is there exactly once."""
        return not self.missing and not self.doubled


def compare(acknowledged: Iterable[str], stored: Iterable[str]) -> Proof:
    """Compare the two; decisions stored beyond the acknowledged ones are harmless."""
    answers, records = Counter(acknowledged), Counter(stored)
    doubled = {id_ for counts in (answers, records) for id_, times in counts.items() if times > 1}
    return Proof(
        acknowledged=answers.total(),
        stored=records.total(),
        missing=tuple(sorted(answers.keys() - records.keys())),
        doubled=tuple(sorted(doubled)),
    )


def prove(
    acknowledged: Iterable[str],
    *,
    history_url: str,
    key: str | None,
    since: datetime,
    drained_within_s: float,
) -> Proof:
    """Wait until the stream is empty, read the history from ``since`` on, and compare.

    Raises ``NotProved`` if the history refuses or the stream is not empty in time.
    """
    headers = {"x-api-key": key} if key else {}
    with httpx.Client(base_url=history_url, headers=headers, timeout=_TIMEOUT_S) as client:
        try:
            _wait_until_drained(client, drained_within_s)
            return compare(acknowledged, _stored_ids(client, since))
        except httpx.HTTPError as error:
            raise NotProved(f"{history_url} cannot be read: {error}") from error


def describe(proof: Proof) -> str:
    """Format the proof for a terminal."""
    outcome = (
        f"{'PROVED' if proof.holds else 'NOT PROVED'}: {proof.acknowledged:,} acknowledged,"
        f" {proof.stored:,} stored meanwhile,"
        f" {len(proof.missing):,} missing, {len(proof.doubled):,} doubled"
    )
    lines = [outcome]
    lines += [f"  missing {id_}" for id_ in proof.missing[:10]]
    lines += [f"  doubled {id_}" for id_ in proof.doubled[:10]]
    return "\n".join(lines)


def _wait_until_drained(client: httpx.Client, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while True:
        stream: dict[str, Any] = _get(client, "/health", {})["checks"]["redis"]
        waiting = stream["detail"]["waiting"] if stream["status"] == "up" else None
        if waiting == 0:
            return
        if time.monotonic() > deadline:
            raise NotProved(f"the stream was not empty within {within_s:g} s: {waiting} waiting")
        time.sleep(_POLL_S)


def _stored_ids(client: httpx.Client, since: datetime) -> Iterator[str]:
    """Yield the id of each record from ``since`` on, following the cursors."""
    parameters: dict[str, str | int] = {"limit": _PAGE, "since": since.isoformat()}
    with tqdm(desc="reading the history", unit="record", leave=False) as bar:
        while True:
            page = _get(client, "/history", parameters)
            yield from (record["prediction_id"] for record in page["items"])
            bar.update(len(page["items"]))
            if page["next_cursor"] is None:
                return
            parameters["cursor"] = page["next_cursor"]


def _get(client: httpx.Client, path: str, parameters: dict[str, str | int]) -> dict[str, Any]:
    answer = client.get(path, params=parameters)
    if answer.status_code != 200:
        raise NotProved(f"GET {path} answers {answer.status_code}: {answer.text[:300]}")
    found: dict[str, Any] = answer.json()
    return found
