"""Diagnosis: from a run folder's files to ranked findings, a report, and the next config. No torch.

``evidence`` reads a run, ``causes_*`` hold one rule per root cause, ``registry`` lists and ranks them, ``diagnosing``
asks them all; ``inputs`` finds the run that a user means, ``report``, ``pictures`` and ``next_config`` say what came of
it, ``suspects`` names doubtful samples, ``documented`` is the documentation's decision logic taken by its letter.
"""
