"""Which settings decide what is learned, and which only where and how it is done."""

from __future__ import annotations

# Where things are, how they are read, kept, logged and scored: no weight depends on them at any
# level of numerics. The device is compared as what was computed on, which "auto" does not say.
REACH_NO_WEIGHT = frozenset(
    {
        "data.audit_dir", "data.data_path", "data.ledger_dir", "data.local_copy",
        "data.num_workers", "data.placement", "evaluation", "experiment_name", "output_dir",
        "search", "seeds", "selection", "slices", "tracking", "training.chain_every",
        "training.checkpoint_every", "training.device", "training.rank_timeout_s",
    }
)  # fmt: skip
# What decides the bits of a run beside its recipe, but not which function is learned.
NOT_THE_RECIPE = REACH_NO_WEIGHT | {"seed", "data.on_findings", "training.num_threads"}
