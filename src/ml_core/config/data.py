"""The section `data`: which patches, and how they are drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from ml_core.config.section import PositiveInt, Section


class AugmentConfig(Section):
    """What is done to a training patch, on the device, keyed on (seed, epoch, index)."""

    dihedral: bool = Field(True, description="one of the 8 flips and quarter turns, at random")
    stain_jitter: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="relative spread of the haematoxylin, eosin and residual amounts; 0 is off",
    )


class DataConfig(Section):
    """Which patches, and how they are drawn."""

    data_path: Path = Field(description="folder of the PCam files, {train,valid,test}_{x,y}.h5")
    local_copy: Path | None = Field(
        None,
        description="a copy of data_path on a faster disk, read in its place where it is there; "
        "audit, ledger and records stay with data_path",
    )
    dataset_type: Literal["pcam"] = Field("pcam", description="the file layout")
    input_shape: tuple[Literal[3], PositiveInt, PositiveInt] = Field(
        (3, 96, 96), description="channels, height, width"
    )
    batch_size: int = Field(64, ge=1, le=2**20, description="patches per batch")
    num_workers: int = Field(
        0,
        ge=0,
        description="reader processes; 0 reads in the training process, which is the fastest for "
        "contiguous uint8 files",
    )
    placement: Literal["file", "ram", "gpu"] = Field(
        "file",
        description="where a training has its patches: file reads each batch from the disk or the "
        "system's cache; ram and gpu read all of them once, into the memory of the process or of "
        "its GPU. The batches are the same to the bit",
    )
    balanced: bool = Field(True, description="draw as many tumour as normal patches per epoch")
    filter_data: bool = Field(
        False, description="drop patches whose mean is not strictly between 0 and 255"
    )
    on_findings: Literal["refuse", "exclude", "ignore"] = Field(
        "refuse",
        description="what to do when the audit found errors in train or valid; exclude: leave out "
        "the patches in its exclusions.csv; ignore: train in spite of them, as the report will say",
    )
    audit_dir: Path | None = Field(
        None, description="folder of the audit; `audit` in data_path by default"
    )
    ledger_dir: Path | None = Field(
        None,
        description="where openings of the test split are written down; data_path by default",
    )
    max_patches: int | None = Field(
        None,
        ge=2,
        description="use only this many patches of each split, spread over the file; recorded",
    )
    augment: AugmentConfig = Field(AugmentConfig(), description="see below")

    @model_validator(mode="after")
    def _check_placement(self) -> Self:
        if self.placement != "file" and self.num_workers > 0:
            raise ValueError(
                f"placement {self.placement} leaves reader processes nothing to read, num_workers "
                f"is {self.num_workers}. Set data.num_workers to 0, or data.placement to file"
            )
        return self

    @property
    def files_dir(self) -> Path:
        """The folder that patches are read from: `local_copy` where this machine has it."""
        copy = self.local_copy
        return copy if copy is not None and copy.is_dir() else self.data_path
