"""The embedded CloudWatch Logs, in boto3's shape: what jobs wrote, page by page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genokit.local import stream
from genokit.local.shapes import client_error, operation, unsupported

GROUP = "/aws/batch/job"


class EmbeddedLogs:
    """Answers as ``boto3.client("logs")`` does, for the one log group that Batch jobs write to.

    https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_GetLogEvents.html
    """

    def __init__(self, home: Path) -> None:
        self._home = home

    def __getattr__(self, name: str) -> Any:
        raise unsupported("logs", name)

    @operation("logs")
    def get_log_events(self, **request: Any) -> dict[str, Any]:
        """Events of one stream; the end is reached when the forward token comes back as it was sent."""
        file = self._file("GetLogEvents", request)
        limit = request.get("limit", 10_000)
        if not 1 <= limit <= 10_000:
            raise client_error("GetLogEvents", f"limit: {limit} is not in 1 to 10000", "InvalidParameterException")
        direction, offset = self._position(request)
        with file.open("rb") as events_file:
            end = stream.size(events_file)
            if offset is not None and not stream.starts_event(events_file, offset):
                raise self._bad_token()
            if direction == "f":
                start = min(offset or 0, end)
                events, after = stream.forward(events_file, start, limit)
                before = start
            else:
                after = end if offset is None else min(offset, end)
                events, before = stream.backward(events_file, after, limit)
        since, until = request.get("startTime", 0), request.get("endTime", float("inf"))
        return {
            "events": [
                {"timestamp": stamp, "message": message, "ingestionTime": stamp}
                for stamp, message in events
                if since <= stamp < until
            ],
            "nextForwardToken": f"f/{after:020d}",
            "nextBackwardToken": f"b/{before:020d}",
        }

    @operation("logs")
    def describe_log_streams(self, **request: Any) -> dict[str, Any]:
        """The streams of the group, by name."""
        self._group("DescribeLogStreams", request)
        logs = self._home / "logs"
        names = sorted(str(file.relative_to(logs).with_suffix("")) for file in logs.rglob("*.log"))
        wanted = [name for name in names if name.startswith(request.get("logStreamNamePrefix", ""))]
        first = wanted.index(request["nextToken"]) if request.get("nextToken") in wanted else 0
        page = wanted[first : first + request.get("limit", 50)]
        rest = wanted[first + len(page) :]
        return {"logStreams": [{"logStreamName": name} for name in page]} | ({"nextToken": rest[0]} if rest else {})

    def _position(self, request: dict[str, Any]) -> tuple[str, int | None]:
        token = request.get("nextToken")
        if token is None:
            return ("f", 0) if request.get("startFromHead") else ("b", None)
        direction, _, digits = token.partition("/")
        if direction not in ("f", "b") or not digits.isdecimal():
            raise self._bad_token()
        return direction, int(digits)

    def _bad_token(self) -> Exception:
        return client_error("GetLogEvents", "The specified nextToken is invalid.", "InvalidParameterException")

    def _group(self, operation_name: str, request: dict[str, Any]) -> None:
        if request.get("logGroupName", request.get("logGroupIdentifier")) != GROUP:
            message = f"The specified log group does not exist. The embedded account has '{GROUP}' alone."
            raise client_error(operation_name, message, "ResourceNotFoundException")

    def _file(self, operation_name: str, request: dict[str, Any]) -> Path:
        self._group(operation_name, request)
        file = stream.path(self._home, request["logStreamName"])
        if file is None or not file.is_file():
            raise client_error(operation_name, "The specified log stream does not exist.", "ResourceNotFoundException")
        return file
