"""Why a job waits, failed, or could never run."""
