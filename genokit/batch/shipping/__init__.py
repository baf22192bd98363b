"""Code and rows that travel with a job, and how the job picks them up."""
