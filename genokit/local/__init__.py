"""The embedded AWS account: boto3's clients answered in this process, state in one folder, jobs run on this machine.

Reached through ``genokit.backends`` alone.
"""
