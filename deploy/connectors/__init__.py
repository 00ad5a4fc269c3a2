"""Connectors: one contract for every protocol, one module a protocol's library; each is imported only where used."""
