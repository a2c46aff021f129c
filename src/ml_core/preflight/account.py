"""Whom the hours are charged to: whether the account may, and whether one must be named."""

from __future__ import annotations

from dataclasses import dataclass

from ml_core.cluster.slurm import run
from ml_core.errors import ClusterError, did_you_mean
from ml_core.preflight.check import Check, error, ok

TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Accounts:
    """What Slurm's accounting knows of a user; `default` is None where there is none."""

    names: tuple[str, ...]
    default: str | None
    is_enforced: bool  # whether a job without a known account is refused


def check_account(user: str, asked: str | None) -> list[Check]:
    """Return whether `user` may have jobs charged to `asked`; nothing where no site keeps accounts.

    `asked` None is the user's default account.
    """
    accounts = read_accounts(user)
    if accounts is None:
        return []
    if not accounts.names:
        if accounts.is_enforced:
            told = f"user {user} has no account here, and this cluster takes no job without one."
            return [
                error("account", told, "Ask whoever runs the cluster, or your project, for it.")
            ]
        return []
    yours = ", ".join(accounts.names)
    if asked is not None and asked not in accounts.names:
        near = did_you_mean(asked, accounts.names)
        told = f"account '{asked}' is none of yours.{near}"
        return [
            error("account", told, f"Yours: {yours}. Name it in the profile, or --ask account=")
        ]
    if asked is None and accounts.default is None:
        told = "the profile names no account, and you have no default one."
        return [
            error(
                "account", told, f"Yours: {yours}. For instance --ask account={accounts.names[0]}"
            )
        ]
    which = asked or f"your default, {accounts.default}"
    return [ok("account", f"charged to {which} (yours: {yours}).")]


def read_accounts(user: str) -> Accounts | None:
    """Return the accounts of `user`; None where there is no accounting, or it does not answer."""
    ask = ("--noheader", "--parsable2", "show")
    try:
        rows = run(
            "sacctmgr", *ask, "associations", f"user={user}", "format=Account", timeout_s=TIMEOUT_S
        )
        default = run("sacctmgr", *ask, "user", user, "format=DefaultAccount", timeout_s=TIMEOUT_S)
        config = run("scontrol", "show", "config", timeout_s=TIMEOUT_S)
    except ClusterError:
        return None
    names = dict.fromkeys(line.strip() for line in rows.splitlines() if line.strip())
    return Accounts(tuple(names), default.strip() or None, is_enforced(config))


def is_enforced(config: str) -> bool:
    """Return whether the text of ``scontrol show config`` says that associations are enforced.

    slurm.conf(5), AccountingStorageEnforce: limits, qos, safe and wckeys imply associations.
    """
    for line in config.splitlines():
        name, _, value = (part.strip() for part in line.partition("="))
        if name == "AccountingStorageEnforce":
            return value.lower() not in ("none", "(null)", "0", "")
    return False
