"""Drivers: how plants are reached, one module a protocol; each is imported only where it is used."""
