"""Time-respecting graphs of items: who follows whom in users' histories before the cut."""
