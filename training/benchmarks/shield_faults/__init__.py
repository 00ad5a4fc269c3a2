"""The fault suite of the shield: what goes wrong, and what must come of it."""
