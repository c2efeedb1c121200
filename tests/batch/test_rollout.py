"""Which arm decides the rows of a batch."""

import asyncio
from pathlib import Path

from pydantic import SecretStr

from services.batch.main import create_app
from services.batch.settings import BatchSettings
from shared.contract.parsing import read_application
from shared.contract.rollout import RolloutState, arm_of
from tests import keys
from tests.batch.conftest import working
from tests.batch.files import applications, as_csv, begin, ended, lines
from tests.bundles import make_bundle
from tests.rollouts import NEW, OTHER, OWN, History, rollout
from tests.serving import served


async def test_rows_of_a_batch_meet_the_arms_of_the_roll_out_in_force_when_it_is_begun(
    settings: BatchSettings, tmp_path: Path
) -> None:
    """If no model is named, and it is put on record; the batch then shows both arms.

    The worker reports like any replica.
    """
    shipped = {"regression": "logistic_regression", "forest": "random_forest"}
    make_bundle(tmp_path / "shipped", version=OWN, models=shipped)
    make_bundle(tmp_path / "store", version=OTHER, models={"forest": "random_forest"})
    make_bundle(tmp_path / "store", version=NEW, models={"newcomer": "gradient_boosting"})
    history, half = History(), rollout(2, NEW, "newcomer", share=5000)
    async with served(history.app()) as there:
        here = settings.model_copy(
            update={
                "bundle_root": tmp_path / "shipped",
                "bundle_store": str(tmp_path / "store"),
                "history_url": str(there.base_url),
                "internal_api_key": SecretStr(keys.SECRET),
                "batch_concurrency": 1,
            }
        )
        rows = applications(200)
        async with served(create_app(here), headers=keys.HEADERS) as client:
            # Taken in before the roll-out, begun under it.
            by_rollout = await begin(client, as_csv(rows))
            what_if = await begin(client, as_csv(rows), record="false")
            named = await begin(client, as_csv(rows), model="forest")
            queued = (await client.get(by_rollout)).json()
            assert (queued["bundle_version"], queued["candidate"]) == (OWN, None)
            history.state = RolloutState(active=rollout(1, "b-0000dead", "forest"))
            async with working(here):
                # It cannot load what is in force, so it decides nothing.
                await history.reported_failure(1)
                await asyncio.sleep(10 * here.batch_poll_s)
                assert (await client.get(by_rollout)).json()["state"] == "queued"
                history.state = RolloutState(active=half)
                for path in (by_rollout, what_if, named):
                    assert (await ended(client, path))["state"] == "done"
                assert (await history.reported(bool)).kind == "batch-worker"
            shown = (await client.get(by_rollout)).json()
            assert (shown["model"], shown["bundle_version"]) == ("newcomer", NEW)
            assert shown["candidate"] == {"bundle": OTHER, "model": "forest", "share": 5000}
            for path in (what_if, named):
                assert (await client.get(path)).json()["candidate"] is None
            decided = {
                path: [
                    each["model_info"]
                    for each in await lines(client, f"{path}/results", format="ndjson")
                ]
                for path in (by_rollout, what_if, named)
            }
    arms = [arm_of(half, read_application(row)) for row in rows]
    assert [each["arm"] for each in decided[by_rollout]] == [f"x2:{arm}" for arm in arms]
    versions = {"default": NEW, "candidate": OTHER}
    assert [each["version"] for each in decided[by_rollout]] == [versions[arm] for arm in arms]
    assert {(each["version"], each["arm"]) for each in decided[what_if]} == {(NEW, None)}
    assert {(each["version"], each["name"]) for each in decided[named]} == {(OWN, "forest")}
