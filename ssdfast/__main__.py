"""``python -m ssdfast`` is ``ssdfast``."""

from .cli import main

main()
