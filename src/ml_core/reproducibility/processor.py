"""Which processor this is, as far as it decides the bits of a sum."""

from __future__ import annotations

import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")

# oneDNN's instruction sets from the least to the most, each with the flags by which Linux says
# that the processor has it (oneDNN, Developer Guide, "CPU Dispatcher Control"; the kernel's
# cpufeatures.h). Its convolutions give other bits in each.
ONEDNN_LADDER = (
    ("SSE41", ("sse4_1",)),
    ("AVX", ("avx",)),
    ("AVX2", ("avx2", "fma")),
    ("AVX2_VNNI", ("avx_vnni",)),
    ("AVX2_VNNI_2", ("avx_vnni_int8", "avx_ne_convert")),
    ("AVX512_CORE", ("avx512f", "avx512bw", "avx512vl", "avx512dq")),
    ("AVX512_CORE_VNNI", ("avx512f", "avx512bw", "avx512_vnni")),
    ("AVX512_CORE_BF16", ("avx512f", "avx512bw", "avx512_bf16")),
    ("AVX512_CORE_FP16", ("avx512_bf16", "avx512_fp16")),
    ("AVX512_CORE_AMX", ("avx512_fp16", "amx_int8", "amx_bf16")),
    ("AVX512_CORE_AMX_FP16", ("avx512_fp16", "amx_fp16")),
)


def processor_facts(cpuinfo: Path = CPUINFO) -> dict[str, str]:
    """Return the first processor of /proc/cpuinfo by its fields; {} on a system without one."""
    try:
        first = cpuinfo.read_text(encoding="utf-8").split("\n\n", 1)[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def processor_name(facts: dict[str, str]) -> str:
    """Return the model's name, or the architecture where the system tells no more."""
    return facts.get("model name") or platform.processor() or platform.machine()


def onednn_instruction_set(facts: dict[str, str], cap: str | None = None) -> str | None:
    """Return the instruction set that oneDNN computes in; None where that is not x86.

    `cap` is ONEDNN_MAX_CPU_ISA; oneDNN ignores a value that it does not know, and case.
    """
    flags = set(facts.get("flags", "").split())
    names = [name for name, _ in ONEDNN_LADDER]
    top = names.index(cap.upper()) if cap and cap.upper() in names else len(names)
    usable = [name for name, needs in ONEDNN_LADDER[: top + 1] if flags.issuperset(needs)]
    return usable[-1] if usable else None
