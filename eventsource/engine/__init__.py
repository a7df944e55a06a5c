"""The engine of a stream, and the iterators over its events, with and without `async`."""
