"""A venue in a box: a real websocket server on loopback that speaks a venue's protocol.

It is how the demo runs without a network, how every provider is tested, and how users rehearse. A generic core and a
profile per venue::

    market.py    seeded events of symbols         binance.py     one venue's words: routes, answers, frames
    ../capture   frames of a capture              profile.py     what every venue's profile is
         │                                         │
         └── source.py  ──▶  tape.py: one lap of ready frames
                             │
                          playback.py    pushes the tape to whoever subscribed, as pace.py says
                          connection.py  one client: requests, pings, limits, back-pressure
                          venue.py       the server, its counts and its switches
                          command.py     the process: options, one line of JSON, signals

Nothing here is imported by a running feed.
"""
