"""Drivers that run inside a peer's own environment: they import the peer, never desireline."""
