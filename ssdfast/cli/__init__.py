"""The command line: ``ssdfast <stage>``. torch is imported when a stage runs, not before."""

from .app import main, run

__all__ = ["main", "run"]
