"""The processes that run the embedded account's jobs."""
