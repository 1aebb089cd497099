"""Accounts, groups and reviews that do not behave like people who shop."""
