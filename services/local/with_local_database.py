"""Run a command of the product on the database of the local system.

``python -m services.local.with_local_database services.history.audit``: the database is that of
``make run``, or the one that ``DATABASE_URL`` names.
"""

import os
import subprocess
import sys
from collections.abc import Sequence

from services.local import servers
from services.local.settings import LocalSettings
from shared.settings import UnusableSettings, read_settings

_NO_DATABASE = (
    "No database can be reached: nothing runs in {folder}. Start `make run`, or set DATABASE_URL."
)


def main(arguments: Sequence[str]) -> int:
    """Run the module named first with the other arguments; its exit code, or 1 without a database.

    It starts no server.
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
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, env=os.environ | {"DATABASE_URL": url}, check=False).returncode  # noqa: S603 - a module named by the Makefile


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
