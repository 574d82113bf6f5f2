"""The command line: typer commands over the control client, the rings and the results files.

::

    main      what the shell starts: own packages or a clash, then the app; every error as one line and an exit code
    app       the commands, put together
    options   what several commands take          output    where text goes: data to stdout, the rest to stderr
    formats   how numbers and times are written   lines     how a record looks as a line or a row
    gauge     rates and recent lags from counters

    service (up, down)  connections (create, subscribe, ...)  status  data (results, attach, listen)  venues (providers,
    simulate)  demo, demo_stage, demo_board, demo_view

Modules import only typer and the standard library when they are loaded, and the rest when a command runs, so that help
and completion come at once.
"""
