"""The embedded AWS account: Batch and Logs in boto3's shape, kept in one folder, its jobs run on this machine.

Reached through ``genokit.backends`` alone.
"""
