"""``python -m moevoprune``."""

import sys

from moevoprune.cli.main import main

sys.exit(main())
