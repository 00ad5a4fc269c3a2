"""Subcommands of ``twinloop`` that need a site and nothing that learns or deploys."""
