"""What drives a stream, and hands on what it brings: for loops with and without `async`."""
