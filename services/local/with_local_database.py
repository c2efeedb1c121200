"""Run a command of the product on the database of the local system.

``python -m services.local.with_local_database services.history.audit``: the database is that of
``make run``, or the one that ``DATABASE_URL`` names.
"""

import os
import runpy
import sys
from collections.abc import Sequence

from services.local import servers
from services.local.settings import LocalSettings
from shared.settings import UnusableSettings, read_settings

_NO_DATABASE = (
    "No database can be reached: nothing runs in {folder}. Start `make run`, or set DATABASE_URL."
)


def main(arguments: Sequence[str]) -> int:
    """Run the module named first with the other arguments, as ``python -m`` does.

    It starts no server; without one the exit code is 1.
    """
    try:
        settings = read_settings(LocalSettings)
    except UnusableSettings as error:
        print(error, file=sys.stderr)
        return 1
    folder = settings.local_data.resolve()
    url = settings.database_url or servers.running_postgres_url(folder / "postgres")
    if url is None:
        print(_NO_DATABASE.format(folder=folder), file=sys.stderr)
        return 1
    os.environ["DATABASE_URL"] = url
    sys.argv = list(arguments)
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
