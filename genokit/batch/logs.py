"""A log stream: what one attempt of a job wrote, read from where the last reading ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from genokit.backends import Clients, translated_errors
from genokit.batch.job_state import LOG_GROUP, detailed
from genokit.display import Log
from genokit.errors import InvalidRequest


class LogStream:
    """The log lines of one attempt of a job. A stream that does not exist yet is empty.

    Parameters
    ----------
    clients
        The clients of the account in which the job runs.
    name
        The stream's name, as DescribeJobs gives it: ``job.stream`` is the newest attempt's.
    group
        The log group. Default ``/aws/batch/job``.

    Examples
    --------
    >>> from genokit import Batch
    >>> batch = Batch()
    >>> job = batch.submit(batch.define("two", command=["printf", "one\\ntwo\\n"], memory_gib=0.1)).wait()
    >>> print(job.stream.last(1))
    two

    https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_GetLogEvents.html
    """

    def __init__(self, clients: Clients, name: str, *, group: str = LOG_GROUP) -> None:
        self.name = name
        self.group = group
        self._clients = clients
        self._token: str | None = None

    def new_lines(self) -> Iterator[str]:
        """The lines since the last call; on the first call, all lines.

        Yields
        ------
        str
            One line as the job wrote it, without its end.
        """
        while True:
            request: dict[str, Any] = {"nextToken": self._token} if self._token else {"startFromHead": True}
            page = self._page(request)
            if page is None:
                return
            yield from (event["message"] for event in page["events"])
            # The documented sign of the end; an empty page in the middle is not one.
            ended = page["nextForwardToken"] == self._token
            self._token = page["nextForwardToken"]
            if ended:
                return

    def read(self) -> Log:
        """All lines so far, as one text."""
        return Log("\n".join(LogStream(self._clients, self.name, group=self.group).new_lines()))

    def last(self, lines: int = 20) -> Log:
        """The newest lines, as one text.

        Parameters
        ----------
        lines
            The number of lines, at most 10,000. Default 20.
        """
        page = self._page({"limit": lines})
        return Log("\n".join(event["message"] for event in page["events"]) if page else "")

    def _page(self, request: dict[str, Any]) -> dict[str, Any] | None:
        try:
            with translated_errors(f"log stream '{self.name}'"):
                answer: dict[str, Any] = self._clients.logs.get_log_events(
                    logGroupName=self.group, logStreamName=self.name, **request
                )
                return answer
        except InvalidRequest as error:
            if error.code == "ResourceNotFoundException":
                return None
            raise

    def __repr__(self) -> str:
        return f"<LogStream {self.group} {self.name}>"

    def _repr_html_(self) -> str:
        return self.last(200)._repr_html_()


def log_stream(clients: Clients, detail: Mapping[str, Any]) -> LogStream | None:
    """The log stream of the newest attempt of a job as described; None before the job runs."""
    job = detailed(with_log(clients, detail))
    return LogStream(clients, job.stream, group=job.group) if job.stream else None


def with_log(clients: Clients, detail: Mapping[str, Any]) -> Mapping[str, Any]:
    """The job that writes a job's log: its main node where it has nodes, or else the job itself."""
    if nodes := detail.get("nodeProperties"):
        with translated_errors(f"job '{detail['jobId']}'"):
            found = clients.batch.describe_jobs(jobs=[f"{detail['jobId']}#{nodes['mainNode']}"])["jobs"]
        return found[0] if found else detail  # AWS may know of the nodes only when they start
    return detail
