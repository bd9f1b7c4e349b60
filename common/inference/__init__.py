"""How fast and how right a model answers: any format, on real data, with what the numbers are worth.

``engines`` opens a model; ``requests`` prepares real inputs for it; ``timing`` calls it and takes the time;
``percentiles`` and ``contention`` say how far the times can be trusted; ``resources`` has a fresh process measure
memory and the cold start (``resource_probe`` runs there); ``measurement`` and ``comparison`` put these together;
``report``, ``picture`` and ``saving`` show the result.
"""
