"""The programs in the deployment guide. They use nothing of this project, but for the one that loads a checkpoint."""

from __future__ import annotations

_PREPARE_IMAGE = '''\
def prepare(path):
    """One image file to float32 (1, C, H, W), exactly as in training."""
    channels, height, width = spec["input_shape"]
    with Image.open(path) as image:
        image = ImageOps.exif_transpose(image).convert("L" if channels == 1 else "RGB")
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(image, dtype=np.float32).reshape(height, width, channels) / 255
    normalised = (pixels - spec["preprocessing"]["mean"]) / spec["preprocessing"]["std"]
    return normalised.transpose(2, 0, 1)[None].astype(np.float32)
'''

_PREPARE_ROWS = '''\
def prepare(path):
    """A file of numbers, one row per sample and one column per feature, no header, to float32 (N, F)."""
    values = np.loadtxt(path, delimiter=",", ndmin=2)
    normalised = (values - spec["preprocessing"]["mean"]) / spec["preprocessing"]["std"]
    return normalised.astype(np.float32)
'''

_REPORT = """\
for path in sys.argv[1:]:
    for probabilities in softmax(predict(prepare(path))):
        best = int(probabilities.argmax())
        print(path, spec["class_names"][best], f"{probabilities[best]:.4f}")
"""

_SOFTMAX = '''\
def softmax(logits):
    """Probabilities (N, classes) from logits."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)
'''

_ONNX = """\
session = onnxruntime.InferenceSession({file!r}, providers=["CPUExecutionProvider"])
spec = json.loads(session.get_modelmeta().custom_metadata_map["ml_trainer"])["model_spec"]


def predict(inputs):
    return session.run(["logits"], {{"input": inputs}})[0]
"""

_TORCHSCRIPT = """\
extra = {{"ml_trainer.json": ""}}
model = torch.jit.load({file!r}, map_location="cpu", _extra_files=extra)
spec = json.loads(extra["ml_trainer.json"])["model_spec"]
"""

_PT2 = """\
extra = {{"ml_trainer.json": ""}}
model = torch.export.load({file!r}, extra_files=extra).module()
spec = json.loads(extra["ml_trainer.json"])["model_spec"]
"""

_CHECKPOINT = """\
checkpoint = load_checkpoint({file!r})
model = load_model(checkpoint)
spec = checkpoint["model_spec"]
"""

_TORCH_PREDICT = """\


def predict(inputs):
    with torch.inference_mode():
        return model(torch.from_numpy(inputs)).numpy()
"""

_LOADERS = {"onnx": _ONNX, "torchscript": _TORCHSCRIPT, "pt2": _PT2, "checkpoint": _CHECKPOINT}


def inference_program(kind: str, file: str, *, images: bool) -> str:
    """A whole program that classifies the files named on its command line.

    Args:
        kind: ``onnx``, ``torchscript``, ``pt2`` or ``checkpoint``.
        file: the model, as seen from where the program is run.
        images: whether inputs are image files; otherwise files of numbers.
    """
    standard = ["sys"] if kind == "checkpoint" else ["json", "sys"]
    packages = ["import numpy as np"]
    packages += ["import onnxruntime"] if kind == "onnx" else ["import torch"]
    packages += ["from PIL import Image, ImageOps"] if images else []
    imports = "\n".join([*(f"import {name}" for name in standard), "", *packages])
    if kind == "checkpoint":
        imports += "\n\nfrom common.checkpoints import load_checkpoint, load_model"
    load = _LOADERS[kind].format(file=file) + ("" if kind == "onnx" else _TORCH_PREDICT)
    prepare = _PREPARE_IMAGE if images else _PREPARE_ROWS
    return "\n\n".join([f"{imports}\n\n{load}", f"{prepare}", f"{_SOFTMAX}", _REPORT])
