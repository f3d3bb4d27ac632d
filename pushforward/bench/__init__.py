"""The load tester behind `pushforward bench`: requests on a schedule, and what became of each.

    endpoint, requests      where requests go, and their bytes
    arrivals                when they are due
    connection, generator   one event loop that sends them: a closed loop or an open one
    recording, summary      a line a request, and percentiles, rates and errors of them
    knee                    the highest rate whose p99 is below a bound
    server_metrics          what the server counted meanwhile
    own_server              a server for a model folder, for as long as it is measured
    plot, text              pictures of all that, and numbers as people read them

It needs httpx, numpy and httptools, and matplotlib for pictures; nothing of the server.
"""
