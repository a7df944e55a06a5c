"""`python -m eventsource` is the `eventsource` command."""

import sys

from .cli import main

sys.exit(main())
