"""Makes `shop` known to the tests beside it."""

from shop import shop

__all__ = ["shop"]
