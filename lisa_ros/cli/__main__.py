#!/usr/bin/env python3
"""`python -m lisa_ros.cli` is `lisa-ros`."""

import sys

from lisa_ros.cli import main

sys.exit(main())
