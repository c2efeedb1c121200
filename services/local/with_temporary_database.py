"""Run a command of the product against an empty database that is removed afterwards.

``python -m services.local.with_temporary_database services.history.revise "Record the age"``
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from services.local import servers


def main(arguments: Sequence[str]) -> int:
    """Run the module named first with the other arguments, and return its exit code.

    Raises ``servers.CannotStart``.
    """
    with TemporaryDirectory(prefix="loan-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # the server's unprivileged user passes through it
        server = servers.postgres(folder / "postgres", logs=folder, durable=False)
        with closing(server):
            server.process.start()
            command = [sys.executable, "-m", *arguments]
            environment = os.environ | {"DATABASE_URL": server.url}
            return subprocess.run(command, env=environment, check=False).returncode  # noqa: S603 - a module named by the Makefile


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
