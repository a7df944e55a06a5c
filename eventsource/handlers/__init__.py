"""Who is called, in which order, and where."""
