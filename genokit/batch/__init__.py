"""AWS Batch for people: ``Batch``, ``JobDefinition``, ``Job``, ``LogStream``, over clients in boto3's shape."""

from genokit.batch.definition import JobDefinition
from genokit.batch.job import Job
from genokit.batch.logs import LogStream
from genokit.batch.service import Batch

__all__ = ["Batch", "Job", "JobDefinition", "LogStream"]
