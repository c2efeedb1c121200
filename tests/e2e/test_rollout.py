"""A bundle's life while the system is at work: published, given a share, promoted, rolled back."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.scoring.manifest import BUNDLE_ROOT, read_current_version
from shared.contract.application import EXAMPLE
from shared.contract.parsing import LoanApplication
from shared.contract.rollout import Rollout, arm_label, arm_of
from tests.bundles import make_bundle
from tests.harness import System
from tests.history.rollout.conftest import archive_of
from tests.waiting import eventually_said

pytestmark = pytest.mark.system

_SERVED = read_current_version(BUNDLE_ROOT)
_NEW = "b-0000000e"
_SHARE = 3000
_REPLAYED = 20

Body = dict[str, Any]


class _Load:
    """One caller that asks for one decision after the other, each about another loan."""

    def __init__(self, http: httpx.AsyncClient, system: System) -> None:
        self._http, self._url = http, system.inference_url
        self.decisions: list[Body] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Ask during the block; every request has to be answered with a decision."""
        task = asyncio.create_task(self._ask())
        yield
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def _ask(self) -> None:
        for number in count():
            body = EXAMPLE | {"Loan_ID": f"LP{number}", "LoanAmount": 80 + number % 90}
            answer = await self._http.post(f"{self._url}/predict", json=body)
            assert answer.status_code == 200, answer.text
            self.decisions.append(answer.json())

    async def next(self, decisions: int) -> list[Body]:
        """The next ones; those that are being answered may still be decided by what was before."""
        first = len(self.decisions) + 1
        await eventually_said(lambda: self._has(first + decisions))
        return self.decisions[first : first + decisions]

    async def _has(self, decisions: int) -> bool:
        return len(self.decisions) >= decisions


class _Admin:
    """Somebody who changes the roll-out, always from the newest one."""

    def __init__(self, http: httpx.AsyncClient, system: System) -> None:
        self._http, self._url = http, f"{system.history_url}/admin"

    async def publish(self, folder: Path) -> None:
        """Publish a bundle."""
        content, headers = archive_of(folder), {"content-type": "application/zip"}
        answer = await self._http.post(f"{self._url}/bundles", content=content, headers=headers)
        assert answer.status_code == 201, answer.text

    async def ask(self, path: str, **body: Any) -> int:
        """Ask for a change; its epoch."""
        body |= {"epoch": (await self.status())["epoch"], "reason": "a test"}
        answer = await self._http.post(f"{self._url}/{path}", json=body)
        assert answer.status_code == 202, answer.text
        epoch: int = answer.json()["epoch"]
        return epoch

    async def change(self, path: str, **body: Any) -> Rollout:
        """Ask for a change, and return the roll-out once it is in force on all replicas."""
        return await self.in_force(await self.ask(path, **body))

    async def in_force(self, epoch: int) -> Rollout:
        """The roll-out of this epoch once all replicas decide by it."""

        async def followed() -> bool:
            status = await self.status()
            active, replicas = status["active"], status["replicas"]
            living = [each for each in replicas if each["seen_s_ago"] < 2]
            return bool(
                active
                and active["epoch"] == epoch
                and all(each["epoch"] == epoch for each in living)
            )

        await eventually_said(followed)
        return Rollout.model_validate((await self.status())["active"]["rollout"])

    async def status(self) -> Body:
        """What is rolled out."""
        answer = await self._http.get(f"{self._url}/rollout")
        assert answer.status_code == 200, answer.text
        status: Body = answer.json()
        return status


def _arm(bundle: str, model: str) -> Body:
    return {"bundle": bundle, "model": model}


def _assert_decided_by(decisions: list[Body], rollout: Rollout) -> Counter[str]:
    """Each decision names the arm that its applicant meets, and the model of that arm."""
    met: Counter[str] = Counter()
    for decision in decisions:
        name = arm_of(rollout, vars(LoanApplication.model_validate(decision["input_data"])))
        arm = rollout.candidate if name == "candidate" else rollout.default
        assert arm is not None
        info = decision["model_info"]
        expected = (arm.bundle, arm.model, arm_label(rollout, name))
        assert (info["version"], info["name"], info["arm"]) == expected
        met[name] += 1
    return met


async def test_a_bundle_is_published_given_a_share_promoted_and_rolled_back_under_load(
    system: System, tmp_path: Path
) -> None:
    """Every request is answered, by what is in force, and each decision can be made again.

    History is killed while replicas prepare: what was asked for comes into force after it is back.
    """
    make_bundle(tmp_path, version=_NEW, models={"random_forest": "random_forest"})
    old, new = _arm(_SERVED, "logistic_regression"), _arm(_NEW, "random_forest")
    async with httpx.AsyncClient(headers={"x-api-key": system.api_key}, timeout=20) as http:
        load, admin = _Load(http, system), _Admin(http, system)
        async with load.running():
            await admin.publish(tmp_path / _NEW)
            await admin.change("rollout", default=old)
            with_share = await admin.change(
                "rollout", default=old, candidate=new | {"share": _SHARE}
            )
            met = _assert_decided_by(await load.next(100), with_share)
            assert met["candidate"] > 0

            epoch = await admin.ask("rollout/promote")
            system.history.kill()
            _assert_decided_by(await load.next(20), with_share)
            system.history.start()
            promoted = await admin.in_force(epoch)
            _assert_decided_by(await load.next(20), promoted)
            back = await admin.change("rollout/rollback")
            assert back.default == with_share.default
            _assert_decided_by(await load.next(20), back)

        assert {each["model_info"]["version"] for each in load.decisions} == {_SERVED, _NEW}
        ids = [each["prediction_id"] for each in load.decisions]

        async def recorded() -> bool:
            found = await http.get(f"{system.history_url}/statistics")
            return bool(found.json()["total_predictions"] >= len(ids))

        await eventually_said(recorded)
        for prediction_id in ids[:: len(ids) // _REPLAYED]:
            record = await http.get(f"{system.history_url}/history/{prediction_id}")
            again = await http.post(f"{system.inference_url}/replay", content=record.content)
            assert again.json()["equal"], again.text
        report = await http.get(f"{system.history_url}/admin/rollout/report")
        assert report.json()["candidate"]["decisions"] > 0
