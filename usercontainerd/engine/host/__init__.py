"""What this host offers: ``doctor`` and its checks."""
