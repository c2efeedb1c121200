"""One module defines the inputs: a field added there, and one migration, are all it takes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from filecmp import dircmp
from pathlib import Path
from shutil import copytree, ignore_patterns

from tests.history.storage import NEWEST_REVISION

_ROOT = Path(__file__).parents[2]
_DEFINITION = Path("shared/contract/application.py")
_MIGRATIONS = Path("services/history/migrations/versions")
_AGE = """    Age_Under_Test: Annotated[
        Whole | None,
        Input(
            column="age_under_test",
            title="Age",
            description="Age of the applicant.",
            use="recorded",
            unit="years",
            minimum=18,
            maximum=120,
        ),
    ] = None
"""


def test_field_is_added_in_one_module_and_one_migration(
    tmp_path: Path, empty_database_url: str, redis_url: str
) -> None:
    """Validated, documented, stored, given back, exported, erased, asked for, and never scored."""
    for folder in ("services", "shared", "client", "tests"):
        copytree(_ROOT / folder, tmp_path / folder, ignore=ignore_patterns("__pycache__"))
    definition = tmp_path / _DEFINITION
    before, after = definition.read_text(encoding="utf-8").split("\n\n\ndef _field(")
    definition.write_text(f"{before}\n{_AGE}\n\ndef _field({after}", encoding="utf-8")

    environment = os.environ | {
        "DATABASE_URL": empty_database_url,
        "REDIS_URL": redis_url,
        "PYTHONPATH": os.pathsep.join(map(str, (tmp_path, tmp_path / "client/src"))),
    }
    for command in (
        ("services.history.revise", "Record the age"),
        ("services.history.migrate",),
        ("tests.contract.age",),
    ):
        subprocess.run(
            [sys.executable, "-m", *command], cwd=tmp_path, env=environment, check=True, timeout=60
        )
    changed = {
        path
        for folder in ("services", "shared")
        for path in _changes(dircmp(_ROOT / folder, tmp_path / folder))
    }
    migration = _MIGRATIONS / f"{int(NEWEST_REVISION) + 1:04}_record_the_age.py"
    assert {path.relative_to(tmp_path) for path in changed} == {_DEFINITION, migration}


def _changes(compared: "dircmp[str]") -> Iterator[Path]:
    for name in (*compared.diff_files, *compared.left_only, *compared.right_only):
        if name != "__pycache__":
            yield Path(compared.right, name)
    for below in compared.subdirs.values():
        yield from _changes(below)
