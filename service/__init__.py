"""The long-lived process: who asked for what, and where it stands."""

from workers import __version__

__all__ = ["__version__"]
