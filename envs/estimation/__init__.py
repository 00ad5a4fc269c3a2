"""Estimation: keeping a twin's replicas at the plant's state from what is measured."""
