"""What the arguments of a model do not say about its layers: precision, frozen and int8 layers.

A model that is rebuilt from its arguments would lose them. `get_layer_state` collects them for the
saved configuration, and `set_layer_state` restores them.
"""

import contextlib

import keras

QUANTIZATION_MODES = ("int8", "int4", "float8")  # restored without the data of a calibration


def get_layer_state(layer) -> dict:
    """Return what differs from a newly built layer, by the index of each layer inside.

    Args:
        layer: `keras.Layer` or `keras.Model`, built.

    Returns:
        A JSON-serializable dict of the frozen layers and of the quantized ones.

    Raises:
        ValueError: for a quantization that needs calibration data, as it cannot be restored.
    """
    state: dict[str, dict] = {}
    for index, inner in enumerate(_inner_layers(layer)):
        mode = getattr(inner, "quantization_mode", None)
        if mode is not None and mode not in QUANTIZATION_MODES:
            raise ValueError(
                f"quantization: expected {', '.join(QUANTIZATION_MODES)} for a model that is "
                f"saved, got {mode!r} of {inner.name}."
            )
        if not inner.trainable:
            state.setdefault(str(index), {})["trainable"] = False
        if mode is not None:
            state.setdefault(str(index), {})["quantization"] = mode
    return state


def set_layer_state(layer, state: dict) -> None:
    """Restore the state from `get_layer_state` in a built layer of the same structure."""
    inner_layers = _inner_layers(layer)
    for index, inner_state in state.items():
        inner = inner_layers[int(index)]
        mode = inner_state.get("quantization")
        if mode is not None and inner.quantization_mode is None:
            inner.quantize(mode)
    # Freezing a layer freezes all layers inside, so that they follow in the same order.
    for index, inner in enumerate(inner_layers):
        inner.trainable = state.get(str(index), {}).get("trainable", True)


class LayerStateMixin:
    """Mixin of a layer that consists of other layers: saves what its arguments do not say."""

    def get_build_config(self):
        config = super().get_build_config() or {}
        state = get_layer_state(self)
        return {**config, "layer_state": state} if state else config

    def build_from_config(self, config):
        config = dict(config)
        state = config.pop("layer_state", None)
        super().build_from_config(config)
        if state:
            set_layer_state(self, state)


@contextlib.contextmanager
def dtype_policy_scope(policy):
    """Context in which new layers have a dtype policy; `None` leaves the current one."""
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(previous if policy is None else policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(previous)


@contextlib.contextmanager
def frozen(network):
    """Context in which a network is frozen; afterwards, each layer has its own flag again."""
    inner_layers = [network, *_inner_layers(network)]
    layer_flags = [(layer, layer.trainable) for layer in inner_layers]
    variable_flags = [(variable, variable.trainable) for variable in network.variables]
    network.trainable = False
    try:
        yield
    finally:
        for layer, trainable in layer_flags:
            layer.trainable = trainable
        for variable, trainable in variable_flags:  # LoRA freezes single variables
            variable.trainable = trainable


def uses_float16(model) -> bool:
    """Return whether any layer computes in float16, whose small gradients need loss scaling."""
    return any(layer.compute_dtype == "float16" for layer in [model, *_inner_layers(model)])


def _inner_layers(layer) -> list:
    """Return all layers inside, each before the layers inside it."""
    return layer._flatten_layers(include_self=False)
