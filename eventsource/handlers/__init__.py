"""Which handlers are called, in which order, and in which thread."""
