"""`eventsource check`: observes a stream for a while, and reports what is wrong with it.

The observation is recorded first (`observing`), from the bytes alone (`reading`). Pure functions
then derive the findings from it (`findings`, `timing`, `resuming`). So each threshold can be
tested without a server, and no finding can change what is observed.
"""
