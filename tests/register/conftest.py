"""Makes `shop` known to the tests beside it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # test folders are no packages

from shop import shop

__all__ = ["shop"]
