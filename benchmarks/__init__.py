"""Side by side with the other Server-Sent Events clients: `python -m benchmarks`.

The rule that makes the numbers comparable: every client reads the same bytes from the
same server in the same run, does the same for each event, and is asked afterwards
what it got. A client that got something else has no number.

To be read in this order: `inputs` (the bytes), `server` (who sends them), `peers` (who
reads them), `workers` (a process that measures one peer), `processes` (starting, asking
and stopping those), `measure` (the rounds), `report` (the tables), `__main__`.
"""
