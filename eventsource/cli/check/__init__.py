"""`eventsource check`: watch a stream for a while, and say what is wrong with it.

What was seen is written down first (`observing`), by rules of the bytes alone (`reading`); what
it means is found afterwards, by pure functions (`findings`, `timing`, `resuming`). So each
threshold can be tested without a server, and no finding can change what is observed.
"""
