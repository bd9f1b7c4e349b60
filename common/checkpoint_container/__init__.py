"""Checkpoints read from the container itself: no torch, and nothing in the file is ever executed.

``describe`` reads headers and structure (milliseconds, whatever the size); ``verify`` reads every byte;
``find_value_problems`` looks at the tensors' values (it alone needs NumPy).
"""

from common.checkpoint_container.description import CheckpointDescription, Damage, describe
from common.checkpoint_container.formats import NotACheckpointError
from common.checkpoint_container.inert_objects import InertCall, TensorRef
from common.checkpoint_container.integrity import IntegrityReport, sha256_of_file, verify
from common.checkpoint_container.tensor_values import ValueProblem, find_value_problems
from common.checkpoint_container.tensors import TensorEntry

__all__ = [
    "CheckpointDescription",
    "Damage",
    "InertCall",
    "IntegrityReport",
    "NotACheckpointError",
    "TensorEntry",
    "TensorRef",
    "ValueProblem",
    "describe",
    "find_value_problems",
    "sha256_of_file",
    "verify",
]
