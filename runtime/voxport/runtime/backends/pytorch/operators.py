"""The operators that a model file may ask torch for: arithmetic on tensors, and nothing that knows files or code.

torch itself resolves any operator that a file names, `aten::save` and `aten::from_file` among them, and
the deserializer of .pt2 files would call any function of the module `torch`.
"""

_ARITHMETIC = """
    abs add addmm addcdiv addcmul amax amin argmax argmin baddbmm bmm cat ceil chunk clamp clamp_max clamp_min
    clone concat contiguous cos cosh cumsum detach diff div dropout dropout_ einsum elu eq erf exp exp2 expand
    expand_as expm1 fill flatten flip floor floor_divide fmod full full_like gather ge gelu glu gt hardsigmoid
    hardswish index_select isfinite isinf isnan isneginf isposinf le leaky_relu linalg_norm linalg_vector_norm
    linear log log10 log1p log2 log_softmax logical_and logical_not logical_or logical_xor logsumexp lt
    masked_fill matmul max maximum mean min minimum mish mm movedim mul mv narrow ne neg new_full new_ones
    new_zeros nan_to_num norm ones ones_like outer permute pow prod reciprocal relu relu6 remainder repeat
    repeat_interleave reshape roll round rsqrt rsub scalar_tensor scatter select selu sigmoid sign silu sin sinh size
    slice softmax softplus split split_with_sizes sqrt square squeeze stack std std_mean sub sum swapaxes t tan
    tanh tensor_split tile to topk transpose tril triu trunc type_as unbind unflatten unfold unsqueeze var
    var_mean view view_as where xor zeros zeros_like arange linspace
"""
_NETWORKS = """
    _convolution adaptive_avg_pool1d avg_pool1d avg_pool2d batch_norm constant_pad_nd conv1d conv2d conv_depthwise2d
    convolution embedding group_norm instance_norm layer_norm max_pool1d max_pool2d native_batch_norm
    native_group_norm native_layer_norm pad pixel_shuffle reflection_pad1d replication_pad1d rms_norm
    scaled_dot_product_attention upsample_linear1d upsample_nearest1d
"""
_SHAPES = "_assert_async _assert_scalar _assert_tensor_metadata _to_copy alias len lift_fresh_copy numel sym_numel"
_SHAPES_TOO = "sym_constrain_range sym_constrain_range_for_size sym_size sym_stride"

SAFE_OPERATORS = frozenset(f"{_ARITHMETIC} {_NETWORKS} {_SHAPES} {_SHAPES_TOO}".split())
