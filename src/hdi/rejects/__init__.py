"""Rejected rows: what they are, refined again under other rules, and what is kept of them for how long."""
