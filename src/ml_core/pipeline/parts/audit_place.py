"""Where the audit of a config's data is kept."""

from __future__ import annotations

from ml_core.audit.files import AuditDir
from ml_core.config import DataConfig
from ml_core.data.layout import AUDIT_DIR

_QUICK = "quick"  # folder inside the audit's, so that a quick audit never replaces a full one


def audit_dir_of(data: DataConfig, *, quick: bool) -> AuditDir:
    """Return the folder of the full audit of `data`, or of a quick one."""
    folder = data.audit_dir or data.data_path / AUDIT_DIR
    return AuditDir(folder / _QUICK if quick else folder)
