"""Sightline finds known objects in pictures and says exactly where they are in space."""

__version__ = "0.1.0"
