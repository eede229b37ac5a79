"""``python -m kshot.studies FOLDER`` works at one cell, see `kshot.studies.cell`."""

import sys

from kshot.studies.cell import main

sys.exit(main())
