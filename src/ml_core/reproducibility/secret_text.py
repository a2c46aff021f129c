"""What must not be copied into a run directory: files and lines that look like secrets.

A run directory is handed on. A false alarm costs a named file whose content is not kept; a miss
cannot be taken back.
"""

from __future__ import annotations

import re
from fnmatch import fnmatch

# Files that exist to hold secrets, by their customary names.
SECRET_FILES = (
    ".env", ".env.*", "*.env", ".netrc", ".pgpass", ".htpasswd", "*.pem", "*.key", "*.p12",
    "*.pfx", "*.jks", "*.keystore", "id_rsa*", "id_ed25519*", "id_ecdsa*", "*credentials*",
    "*secret*", "kaggle.json",
)  # fmt: skip

# How keys and tokens look, by their issuers' documented prefixes, and assignments of a literal.
SECRET_TEXT = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"  # AWS
    r"|\bgh[pousr]_[A-Za-z0-9]{30,}|\bgithub_pat_\w{30,}|\bglpat-[\w-]{20,}"
    r"|\bhf_[A-Za-z0-9]{30,}|\bsk-[\w-]{20,}|\bxox[abprs]-[\w-]{10,}"
    # a password in an address, but for the words that stand for one in examples
    r"|\w+://[^\s/:@]+:(?!(?:secret|password|pass|pw)@)[^\s/@{}$<*]+@"
    r"|(?i:pass(?:word|wd)|secret|token|api_?key)[\"']?\s*[:=]\s*[\"'][^\"'\s{}$<]{8,}[\"']"
)


def why_secret(path: str, text: str) -> str | None:
    """Return why the file at `path` with `text` may hold a secret, or None where nothing says so.

    A Python file is judged by what it says only: it may well be about secrets.
    """
    name = path.rsplit("/", 1)[-1].lower()
    if not name.endswith(".py") and any(fnmatch(name, pattern) for pattern in SECRET_FILES):
        return "may hold a secret, by its name"
    return "may hold a secret, by what it says" if SECRET_TEXT.search(text) else None
