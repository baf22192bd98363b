"""Achilles' analyses, their pictures and the explorer."""
