"""Listing of the public API: every public name of every module with its signature.

Run `python tests/api_listing.py > .github/API.md` after a change.
"""

import importlib
import inspect
import os
import pkgutil

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_genai

HEADER = """# Public API

Every public name of every module, with its signature and the first line of its docstring. Written
by `python tests/api_listing.py > .github/API.md`; a test checks that it is up to date.
"""


def render() -> str:
    """Return the listing as Markdown."""
    names = sorted(
        module.name
        for module in pkgutil.walk_packages(keras_genai.__path__, "keras_genai.")
        if not module.name.endswith("__main__")
    )
    names = ["keras_genai", *names]
    return HEADER + "".join(_render_module(importlib.import_module(name)) for name in names)


def _render_module(module) -> str:
    lines = [f"\n## {module.__name__}\n", _summary(module), ""]
    if hasattr(module, "__path__") and module.__name__ != "keras_genai":
        return "\n".join(lines)  # a package re-exports its modules
    for name, value in vars(module).items():
        if name.startswith("_"):
            continue
        if inspect.isclass(value) and value.__module__ == module.__name__:
            lines += _render_class(name, value)
        elif inspect.isfunction(value) and value.__module__ == module.__name__:
            lines.append(f"- `{name}{_signature(value)}`: {_summary(value)}")
    return "\n".join(lines) + "\n"


def _render_class(name, value) -> list[str]:
    if value.__name__ != name:
        return [f"- `{name}`: the class `{value.__name__}`"]
    lines = [f"- class `{name}{_signature(value)}`: {_summary(value)}"]
    for method_name, method in vars(value).items():
        if method_name.startswith("_") or method_name in KERAS_METHODS:
            continue
        if isinstance(method, (classmethod, staticmethod)):
            method = method.__func__
        if isinstance(method, property):
            lines.append(f"  - `{method_name}`: property")
        elif inspect.isfunction(method):
            lines.append(f"  - `{method_name}{_signature(method)}`: {_summary(method)}")
    return lines


# Overridden methods of Keras, whose meaning is Keras's.
KERAS_METHODS = {
    "build",
    "call",
    "compile_from_config",
    "compute_mask",
    "compute_output_shape",
    "compute_output_spec",
    "from_config",
    "get_compile_config",
    "get_config",
    "load_own_variables",
    "metrics",
    "on_epoch_begin",
    "on_epoch_end",
    "on_train_batch_end",
    "save_own_variables",
    "test_step",
    "train_step",
}


def _signature(value) -> str:
    try:
        signature = inspect.signature(value)
    except ValueError:
        return "(…)"
    parameters = [
        parameter.replace(annotation=parameter.empty)
        for parameter in signature.parameters.values()
        if parameter.name != "self"
    ]
    return str(signature.replace(parameters=parameters, return_annotation=signature.empty))


def _summary(value) -> str:
    """Return the first line of a docstring."""
    lines = inspect.cleandoc(value.__doc__ or "").splitlines()  # not that of Keras, which varies
    return lines[0] if lines else "(no docstring)"


if __name__ == "__main__":
    print(render(), end="")
