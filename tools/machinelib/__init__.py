"""The private machine: a real systemd with users, for tests and for the demo, on any Linux host."""
