"""Floor 5: weights and models from other libraries and to them; none of those is needed to import this."""

from tinyrnn.interop.onnx_export import export_onnx
from tinyrnn.interop.onnx_layers import OnnxLayer, layer_from_onnx
from tinyrnn.interop.pytorch import from_torch, to_torch

__all__ = ["OnnxLayer", "export_onnx", "from_torch", "layer_from_onnx", "to_torch"]
