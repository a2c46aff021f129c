"""Which environment variables reach the numerics; no other one is ever read into a record."""

from __future__ import annotations

from collections.abc import Mapping

# Another value, other bits (unless the level is portable).
CHANGE_BITS = (
    "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "MKL_DEBUG_CPU_TYPE", "MKL_DYNAMIC",
    "MKL_DOMAIN_NUM_THREADS", "MKL_NUM_STRIPES",
    "ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE", "ONEDNN_CPU_ISA_HINTS",
    "DNNL_CPU_ISA_HINTS", "TORCH_MKLDNN_MATMUL_MIN_DIM", "TORCH_MKLDNN_MATMUL_MIN_SIZE",
    "OMP_DYNAMIC", "OMP_MAX_ACTIVE_LEVELS", "CUBLAS_WORKSPACE_CONFIG", "CUBLASLT_WORKSPACE_SIZE",
    "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "TORCH_CUDNN_V8_API_DISABLED",
)  # fmt: skip

# Capped by these, but recorded and compared as the instruction set that comes out.
CAP_INSTRUCTIONS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")

# They steer speed, or what came of them is recorded elsewhere.
RECORDED_ONLY = (
    "OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "OMP_PROC_BIND", "OMP_PLACES", "OMP_SCHEDULE",
    "OMP_WAIT_POLICY", "OMP_NESTED", "OMP_STACKSIZE", "GOMP_CPU_AFFINITY", "GOMP_SPINCOUNT",
    "GOMP_STACKSIZE", "KMP_AFFINITY", "KMP_BLOCKTIME", "KMP_HW_SUBSET", "KMP_ALL_THREADS",
    "KMP_DEVICE_THREAD_LIMIT", "KMP_DETERMINISTIC_REDUCTION", "KMP_DYNAMIC_MODE",
    "MKL_NUM_THREADS", "MKL_THREADING_LAYER", "MKL_INTERFACE_LAYER", "OPENBLAS_NUM_THREADS",
    "OPENBLAS_CORETYPE", "TORCHINDUCTOR_CACHE_DIR", "TORCH_COMPILE_DISABLE",
    "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "CUDA_LAUNCH_BLOCKING",
    "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "PYTHONHASHSEED", "HDF5_USE_FILE_LOCKING",
)  # fmt: skip

VARIABLES = tuple(sorted((*CHANGE_BITS, *CAP_INSTRUCTIONS, *RECORDED_ONLY)))


def set_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return those of VARIABLES that are set in `environment`."""
    return {name: environment[name] for name in VARIABLES if name in environment}


def onednn_cap(environment: Mapping[str, str]) -> str | None:
    """Return the instruction set to which oneDNN is limited; its own name goes before DNNL_'s."""
    return environment.get("ONEDNN_MAX_CPU_ISA") or environment.get("DNNL_MAX_CPU_ISA")
