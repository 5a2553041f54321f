"""Version of the package, saved in the files of its models."""

__version__ = "0.2.0"
