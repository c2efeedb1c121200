"""``python -m services.command``: the command ``loan-predictor`` without installing the product."""

import sys

from services.command.main import main

if __name__ == "__main__":
    sys.exit(main())
