"""GA4GH Data Repository Service: where the bytes of ``drs://host/id`` are.

https://ga4gh.github.io/data-repository-service-schemas/
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from genokit.data.packages import Unavailable

KINDS = ("https", "s3")  # the preferred one first; gs, ftp, globus and others are not offered here
HEADER = re.compile(r"\s*([\w!#$%&'*+.^`|~-]+):[ \t]*([\x20-\x7e]*?)\s*", re.ASCII)  # without line breaks
LOCAL = re.compile(r"(localhost|127\.0\.0\.1)(:\d+)?")


def resolved(source: str, get: Callable[[str], bytes]) -> tuple[str, dict[str, str]]:
    """The address of an object's bytes, and the headers that its server asks for. Raises Unavailable.

    Parameters
    ----------
    source : str
        ``drs://host/id``. Compact identifiers (``drs://prefix:id``) are refused.
    get : callable
        Returns the body at an address; raises Unavailable.
    """
    host, _, name = source.removeprefix("drs://").partition("/")
    if not name:
        raise Unavailable("is a compact identifier, which only identifiers.org can resolve: use drs://host/id")
    scheme = "http" if LOCAL.fullmatch(host) else "https"
    base = f"{scheme}://{host}/ga4gh/drs/v1/objects/{quote(name, safe='%')}"
    methods = _json(get(base)).get("access_methods") or []
    if not isinstance(methods, list) or not all(isinstance(one, dict) for one in methods):
        raise Unavailable("did not answer as a DRS server: access_methods is no list of objects")
    if not methods:
        raise Unavailable("is a bundle, or cannot be accessed: name one of its objects")
    for method in sorted(methods, key=lambda one: KINDS.index(one["type"]) if one.get("type") in KINDS else 9):
        if method.get("type") in KINDS:
            access = f"{base}/access/{quote(str(method.get('access_id')), safe='')}"
            return _checked(method.get("access_url") or _json(get(access)))
    raise Unavailable(f"offers only {', '.join(str(one.get('type')) for one in methods)}, not https or s3")


def _checked(access: Mapping[str, Any] | str) -> tuple[str, dict[str, str]]:
    if not isinstance(access, Mapping):
        raise Unavailable("did not answer as a DRS server: access_url is no object")
    url, headers = str(access.get("url")), [HEADER.fullmatch(str(one)) for one in access.get("headers") or []]
    if not all(headers):
        raise Unavailable("did not answer as a DRS server: a header is not 'name: value'")
    local = url.startswith("http://") and LOCAL.fullmatch(urlsplit(url).netloc)
    if not (local or url.startswith(("https://", "s3://"))):
        raise Unavailable(f"refused: it leads to {url.partition(':')[0]}, not to https or s3")
    return url, {one[1]: one[2] for one in headers if one}


def _json(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Unavailable("did not answer as a DRS server: no JSON object")
    return found
