"""Losses as pure functions and thin modules."""
