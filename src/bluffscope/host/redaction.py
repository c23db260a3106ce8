"""Redacts credentials in logs and messages."""

from __future__ import annotations

import re
from typing import Final

_HIDDEN: Final = "***"
_SECRETS: Final = (
    # user:password@ of an address, a proxy's say
    (re.compile(r"(?<=://)[^/\s@]+@"), f"{_HIDDEN}@"),
    # tokens of the hub
    (re.compile(r"\bhf_[A-Za-z0-9]{8,}"), _HIDDEN),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), rf"\1 {_HIDDEN}"),
    (re.compile(r"(?i)([?&](?:[a-z_-]*token|key|password|signature|x-amz-[a-z-]+)=)[^&\s]+"), rf"\1{_HIDDEN}"),
)


def redacted(text: str) -> str:
    """The text without passwords in addresses, tokens of the hub, authorisations and signed parameters."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text
