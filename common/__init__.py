"""What two tools or more share, in layers. Imports only run downwards (tests/unit/test_layers.py holds this map).

1. Plain Python: ``exits`` (exit codes and errors), ``atomic`` (files that are never half-written), ``command``
   (the boundary between a script and the shell), ``console`` (what people see), ``signals`` (being asked to stop),
   ``import_path`` and ``choices`` (names that people give), ``record_texts`` (JSON of a growing history), ``late``
   (work that can wait), ``loading`` (of many modules).
2. No torch: ``config`` (YAML source, schema, modes), ``metrics_file``, ``run_folder``, ``manifest``,
   ``checkpoint_container`` (reads checkpoints without executing them), ``step_trace``, ``environment``, ``nvml``,
   ``classification_metrics``, ``guides``, ``statistics``, ``comparison``, ``diagnosis``, ``plots``,
   ``comparison_plots``, ``tensorboard_log``, ``model_metadata``, ``markdown``, ``results_report``,
   ``search_results``.
3. torch: ``seeding``, ``device``, ``data``, ``augmentation``, ``models``, ``losses``, ``optimizers``, ``schedulers``,
   ``ema``, ``parallel`` (with ``process_rendezvous`` and ``synchronized_batch_norm``), ``health``, ``checkpoints``,
   ``gpu_monitor``.
4. ``engine``: the training loop and what turns a config into its parts; ``export``, ``inference``, ``search``;
   ``checkpoint_load_probe``.
5. The scripts at the top level, which never import each other: they meet in files.
"""
