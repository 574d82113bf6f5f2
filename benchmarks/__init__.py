"""The figures that tickring claims, each measured beside its target and its peers: ``python -m benchmarks``.

One module per claim, each run in a process of its own::

    __main__.py    header, then a child for each benchmark; printing.py: its table, or JSON
        |
        +-- decode.py      frames of a capture -> records in a ring
        +-- path.py        simulator -> provider -> reader, three processes
        +-- ring.py        publish and read alone
        +-- readers.py     what ten readers cost the writer
        +-- footprint.py   the provider's start and memory

    measuring.py   CPU and wall time of runs         processes.py      simulator, provider and others, started and ended
    figures.py     a figure, its target, its peer    reading.py        a reader in a process of its own
    machine.py     what it was measured on           naive_client.py   the peer of the whole path
    captured.py    real frames                       feeding.py        a feed without a socket

Rates and times are judged by CPU time, because a machine may be shared; wall time stands beside it. Nothing is left
behind, on Ctrl-C neither: children end with their pipes, and all rings lie in one private directory.
"""
