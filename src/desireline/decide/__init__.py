"""Decisions that follow from answers: whom to keep under a budget."""
