"""The globals that ``torch.load(weights_only=True)`` accepts without being asked; all others it refuses.

Source: ``_get_allowed_globals`` in ``torch/_weights_only_unpickler.py`` of PyTorch 2.13.
"""

from __future__ import annotations

_TYPES = "BFloat16 Byte Char Double Float Half Int Long Short"
_FUNCTIONS = """
    device_tensor_from_cpu_tensor device_tensor_from_numpy meta_tensor_no_storage nested_tensor parameter
    parameter_with_state qtensor sparse_tensor tensor tensor_v2 tensor_v3 wrapper_subclass
"""
_DTYPES = """
    bfloat16 bits16 bits1x8 bits2x4 bits4x2 bits8 bool complex128 complex32 complex64 float16 float32 float4_e2m1fn_x2
    float64 float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz float8_e8m0fnu int1 int16 int2 int3 int32 int4
    int5 int6 int64 int7 int8 qint32 qint8 quint2x4 quint4x2 quint8 uint1 uint16 uint2 uint3 uint32 uint4 uint5 uint6
    uint64 uint7 uint8 per_channel_affine per_channel_affine_float_qparams per_channel_symmetric per_tensor_affine
    per_tensor_symmetric
"""
_OTHERS = """
    _codecs.encode builtins.bytearray builtins.complex builtins.set collections.Counter collections.OrderedDict
    torch.Size torch.Tensor torch._tensor._rebuild_from_type_v2 torch.device torch.nn.parameter.Parameter
    torch.serialization._get_layout torch.storage.TypedStorage torch.storage.UntypedStorage
"""


def _named(form: str, names: str) -> set[str]:
    return {form.format(name) for name in names.split()}


WEIGHTS_ONLY_GLOBALS = frozenset(
    _named("{}", _OTHERS)
    | _named("torch._utils._rebuild_{}", _FUNCTIONS)
    | _named("torch.{}", _DTYPES)
    | _named("torch.{}Storage", f"{_TYPES} Bool ComplexDouble ComplexFloat QInt32 QInt8 QUInt2x4 QUInt4x2 QUInt8")
    | _named("torch.{}Tensor", f"{_TYPES} Bool")
    | _named("torch.sparse.{}Tensor", _TYPES)
    | _named("torch.cuda.{}Storage", f"{_TYPES} Bool ComplexDouble ComplexFloat")
    | _named("torch.cuda.{}Tensor", f"{_TYPES} Bool")
    | _named("torch.cuda.sparse.{}Tensor", _TYPES)
)
