"""AWS Batch for people: its jobs, definitions, queues and environments, over clients in boto3's shape."""

from genokit.batch.definition import JobDefinition
from genokit.batch.job import Job
from genokit.batch.logs import LogStream
from genokit.batch.resources import ComputeEnvironment, JobQueue
from genokit.batch.service import Batch

__all__ = ["Batch", "ComputeEnvironment", "Job", "JobDefinition", "JobQueue", "LogStream"]
