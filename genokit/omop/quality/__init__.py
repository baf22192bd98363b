"""The checks of the OHDSI Data Quality Dashboard."""
