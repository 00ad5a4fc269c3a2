"""Artifacts for the field: a policy with its site's limits as one signed file, installed whole, out in groups."""
