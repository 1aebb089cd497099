"""Churn: who is leaving, why, and whom it pays to keep."""
