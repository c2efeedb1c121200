"""``python -m services.training PATH.csv [--output FOLDER]``."""

import sys

from services.training.main import main

if __name__ == "__main__":
    sys.exit(main())
