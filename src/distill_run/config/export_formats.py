"""The formats in which a student can be exported, and what each of them needs. No torch."""

from collections.abc import Sequence
from importlib.util import find_spec

from distill_run.errors import user_error

EXPORT_FORMATS = ("onnx", "torch_export", "safetensors", "state_dict")
LOGITS_TOLERANCE = 0.001  # the largest difference that a file with floats may have
INT8_TOLERANCE = 0.01  # of test accuracy, as a fraction
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def check_export(formats: Sequence[str], *, key: str, int8: str | None) -> None:
    """Raise UserError for an unknown format, a missing package, or int8 without the format that has it.

    `key` is what chooses the formats, and `int8` what asks for int8, as they are typed; None where nothing does.
    """
    unknown = [each for each in formats if each not in EXPORT_FORMATS]
    if unknown:
        raise user_error(f"{key}{unknown[0]} is not accepted", f"write one of {', '.join(EXPORT_FORMATS)}")
    if int8 is not None and "onnx" not in formats:
        why = "" if "torch_export" not in formats else ": torch's own int8 files are larger, slower and need torchao"
        raise user_error(f"{int8} is for the format onnx alone{why}", f"write {key}onnx {int8}")
    missing = [package for package in ONNX_PACKAGES if find_spec(package) is None]
    if "onnx" in formats and missing:
        raise user_error(
            f"{key}onnx needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed",
            "write pip install 'distill-run[export]'",
        )
