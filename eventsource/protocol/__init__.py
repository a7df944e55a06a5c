"""The rules of a stream without I/O: no sockets, threads, clocks or randomness."""
