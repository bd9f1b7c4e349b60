"""Hyperparameter search: the space, what is tried next, the ledger of trials, and the workers that train them.

``space`` and its neighbours, ``proposals``, ``definition`` and ``ledger`` know nothing of training and import no torch.
``training`` turns a trial into a run of the engine, ``worker`` takes trials one after another, ``searching`` is the
whole search on one machine.
"""
