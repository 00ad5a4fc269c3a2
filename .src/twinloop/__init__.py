"""twinloop: multi-agent control that closes the loop between digital twins and real machines."""

__version__ = "0.1.0"
