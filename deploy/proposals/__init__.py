"""Changes that are proposed from the live twin, approved by a second person, and rolled out asset by asset."""
