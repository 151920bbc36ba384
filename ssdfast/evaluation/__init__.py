"""Judging answers, and what may be concluded from them."""
