"""Cohorts, and the studies that start from them."""
