"""``python -m kshot`` is the `kshot` command."""

import sys

from kshot.cli import main

sys.exit(main())
