"""Decisions, pure: failures and figures in, frozen values out. No clock, no randomness, no waiting in here."""
