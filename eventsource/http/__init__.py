"""One HTTP exchange that any thread can abort."""
