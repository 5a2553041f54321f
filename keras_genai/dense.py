"""Dense layer whose int8 kernel makes the generation of a token faster.

The time of one token is that of reading all weights. With int8 kernels there are a quarter of the
bytes, but only if no product is written to memory before it is summed: compiled with XLA on a CPU,
the conversion to float is a part of the loop over a row, where the rows of the kernel are those of
the outputs, `(units, input_dim)`. In the layout of Keras, `(input_dim, units)`, the converted
kernel is written to memory first.
"""

import math

import keras
import numpy as np
from keras import layers, ops

# Limits within which XLA on a CPU converts and sums in one loop: more vectors are a product of
# matrices, and a longer vector is split.
MAX_VECTORS, MAX_SIZE = 4, 3072


@keras.saving.register_keras_serializable(package="keras_genai")
class Dense(layers.Dense):
    """`keras.layers.Dense` that stores an int8 kernel in the order in which it is read.

    After `quantize("int8")`, y = (x W^T) / scale + b, where W `(units, input_dim)` is int8, and
    `scale` `(units,)` is 127 over the largest absolute weight of each output. The inputs keep their
    precision; Keras rounds them to int8, too. With LoRA, with a `config` other than the default,
    and in other modes, the layer is that of Keras. Its files are those of Keras in all modes.
    """

    transposed = False  # whether `_kernel` is `(units, input_dim)`

    def __init__(self, units, activation=None, **kwargs):
        super().__init__(units, activation, **kwargs)

    def quantize(self, mode=None, type_check=True, **kwargs):
        super().quantize(mode, type_check=False, **kwargs)  # which Keras refuses to subclasses
        if mode == "int8" and _is_default(kwargs.get("config")) and not self.lora_enabled:
            self._transpose_kernel()

    def enable_lora(self, *args, **kwargs):
        if self.transposed:
            self._transpose_kernel()
        super().enable_lora(*args, **kwargs)

    def _transpose_kernel(self):
        """Replace the int8 variable by its transpose."""
        value = np.transpose(self._kernel)
        self._tracker.unlock()  # a built layer takes no new variables
        del self._kernel
        self._kernel = self.add_weight(
            value.shape, "zeros", dtype="int8", trainable=False, name="kernel"
        )
        self._tracker.lock()
        self._kernel.assign(value)
        self.transposed = not self.transposed

    @property
    def kernel(self):
        return ops.transpose(self._kernel) if self.transposed else super().kernel

    def quantized_call(self, inputs, *args, **kwargs):
        if not self.transposed:
            return super().quantized_call(inputs, *args, **kwargs)
        x = matmul_int8(inputs, self._kernel, self.kernel_scale)
        if self.bias is not None:
            x = x + ops.cast(self.bias, x.dtype)
        return x if self.activation is None else self.activation(x)

    def save_own_variables(self, store):
        values = {}
        super().save_own_variables(values)
        if self.transposed:
            values["0"] = np.transpose(values["0"])
        for name, value in values.items():
            store[name] = value

    def load_own_variables(self, store):
        if self.transposed:
            store = {str(i): store[str(i)] for i in range(len(store.keys()))}
            store["0"] = np.transpose(store["0"])
        super().load_own_variables(store)


def _is_default(config) -> bool:
    """Return whether a configuration of quantization is the one that Keras creates itself."""
    if config is None:
        return True
    default = type(config)()
    return all(
        type(quantizer) is type(default_quantizer)
        and (quantizer is None or quantizer.get_config() == default_quantizer.get_config())
        for quantizer, default_quantizer in (
            (config.weight_quantizer, default.weight_quantizer),
            (config.activation_quantizer, default.activation_quantizer),
        )
    )


def matmul_int8(x, rows, scale):
    """Return x `(…, d)` times the transpose of int8 rows `(n, d)`, divided by `scale` `(n,)`.

    Only the weights are rounded. The sums, which may exceed float16, are in at least float32; the
    product has the dtype of x.
    """
    dtype = keras.backend.result_type(x.dtype, "float32")
    product = _product(ops.cast(x, dtype), rows, ops.cast(scale, dtype))
    return ops.cast(product, x.dtype)


def _product(x, rows, scale):
    *batch_shape, size = x.shape
    if None in batch_shape or math.prod(batch_shape) > MAX_VECTORS:
        return ops.matmul(x, ops.cast(ops.transpose(rows), x.dtype)) / scale
    parts = range(0, size, MAX_SIZE)
    vectors = ops.split(ops.reshape(x, (-1, size)), math.prod(batch_shape))
    products = [
        sum(
            _vector_product(vector[:, i : i + MAX_SIZE], rows[:, i : i + MAX_SIZE], scale)
            for i in parts
        )
        for vector in vectors
    ]
    return ops.reshape(ops.concatenate(products), (*batch_shape, rows.shape[0]))


def _vector_product(x, rows, scale):
    """Return `matmul_int8` of x `(1, d)`, for which XLA reads only the int8 rows."""
    # Always 0, which XLA cannot know. It would convert all rows before a loop of many tokens, and
    # read the float kernel for each; and would repeat a cheap last operation on x, which a division
    # is not, for each row.
    never = ops.cast(x[0, 0] > np.inf, rows.dtype)
    x, rows = x / ops.cast(1 + never, x.dtype), rows + never
    return ops.matmul(x, ops.transpose(ops.cast(rows, x.dtype))) / scale
