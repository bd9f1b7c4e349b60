"""From a checkpoint to files for deployment, none of which appears before it is proven to answer as the checkpoint.

``pipeline`` runs an export: ``source`` loads the checkpoint, ``evaluation_data`` finds real inputs, ``formats`` writes
the files (``onnx_format``, ``torch_formats``, ``quantization``), ``verification`` compares them with the checkpoint,
``speed`` times them, ``workspace`` puts them in place, ``report`` and ``guide`` say what came of it.
"""
