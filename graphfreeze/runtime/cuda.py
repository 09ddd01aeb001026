"""Can onnxruntime really run on CUDA here? And if not, why not.

onnxruntime lists its CUDA provider wherever it was built with it. Where a library or the driver is missing, it prints
an error and runs on the CPU all the same. So the parts are probed one by one, before onnxruntime is asked.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import sys

import numpy as np
import onnxruntime

__all__ = ["CUDA_PROVIDER", "CUDA_PROVIDER_OPTIONS", "why_no_cuda"]

CUDA_PROVIDER = "CUDAExecutionProvider"

CUDA_PROVIDER_OPTIONS = {
    # TF32 keeps 10 bits of a float32's fraction: gradients would not be those of TensorFlow.
    "use_tf32": "0",
    # The default of onnxruntime, EXHAUSTIVE, measures, and may choose another algorithm in every run.
    "cudnn_conv_algo_search": "DEFAULT",
}

_INSTALL = "Install the CUDA libraries with `pip install 'graphfreeze[cuda]'`."


@functools.cache
def why_no_cuda() -> str | None:
    """The reason why CUDA cannot be used, with what to do about it, or None where it can."""
    version = onnxruntime.__version__
    if CUDA_PROVIDER not in onnxruntime.get_available_providers():
        return (
            f"the installed onnxruntime {version} was built without CUDA. "
            "Uninstall it and install graphfreeze[cuda], which has wheels for x86_64 Linux and Windows"
        )
    return _why_no_driver() or _why_no_libraries() or _why_no_session()


def _why_no_driver() -> str | None:
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
    except OSError:
        return f"there is no NVIDIA driver ({name} cannot be loaded). Install one, or use --device cpu"
    code = int(driver.cuInit(0))
    count = ctypes.c_int(0)
    if code == 0:
        code = int(driver.cuDeviceGetCount(ctypes.byref(count)))
    if code != 0 or count.value == 0:
        return (
            f"the NVIDIA driver finds no usable device (CUDA error {code}, {count.value} devices). "
            "Check `nvidia-smi` and CUDA_VISIBLE_DEVICES"
        )
    return None


def _why_no_libraries() -> str | None:
    # preload_dlls finds the libraries of the nvidia-* packages; what it prints is repeated here, better.
    with contextlib.redirect_stdout(io.StringIO()):
        onnxruntime.preload_dlls()
    major = str(onnxruntime.cuda_version).partition(".")[0]
    missing = [name for name in _library_names(major) if not _loads(name)]
    if missing:
        return f"{', '.join(missing)} cannot be loaded (CUDA {major}, cuDNN 9). {_INSTALL.rstrip('.')}"
    return None


def _library_names(major: str) -> list[str]:
    if sys.platform == "win32":
        names = [f"cublasLt64_{major}.dll", f"cublas64_{major}.dll", f"cudart64_{major}.dll", "cudnn64_9.dll"]
    else:
        names = [f"libcublasLt.so.{major}", f"libcublas.so.{major}", f"libcudart.so.{major}", "libcurand.so.10"]
        names.append("libcudnn.so.9")
    return names


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _why_no_session() -> str | None:
    """Let onnxruntime run one addition: the only proof that its CUDA provider works."""
    from onnx import TensorProto, helper

    one = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    two = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "probe", [one], [two])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=[(CUDA_PROVIDER, CUDA_PROVIDER_OPTIONS)]
        )
        if CUDA_PROVIDER not in session.get_providers():
            return f"onnxruntime {onnxruntime.__version__} could not start its CUDA provider. {_INSTALL.rstrip('.')}"
        (result,) = session.run(None, {"x": np.ones(1, np.float32)})
    except Exception as error:  # onnxruntime raises bare exceptions of many kinds
        return f"onnxruntime cannot run on CUDA: {str(error).splitlines()[0]}"
    return None if result[0] == 2 else "the CUDA device computes 1 + 1 wrongly"
