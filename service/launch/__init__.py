"""From the address to the exit code: one process, or several behind one port."""
