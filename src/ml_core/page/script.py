"""The script of a page, and the policy that lets a browser run that script and nothing else."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from markupsafe import Markup


def load_script() -> Markup:
    """Return report.js as it stands between <script> and </script>."""
    script = resources.files("ml_core.page").joinpath("report.js").read_text(encoding="utf-8")
    assert "</script" not in script and "<!--" not in script, "it would end before its end"
    return Markup(script)


def content_policy(script: str) -> str:
    """Return a Content-Security-Policy: styles and pictures of the page itself, and `script`.

    The script is known by its SHA-256, so that no other runs, wherever its text comes from; see
    https://www.w3.org/TR/CSP3/#script-src. No address is loaded, no form is sent.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode()
    return (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
